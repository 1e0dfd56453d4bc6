"""Samples as JSON: a dict label -> answer in and out of text and files, without loss and without running code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from nas.calls import explained
from nas.checks import check_path
from nas.domains.domain import Answer
from nas.errors import NasError, NasTypeError, NasValueError, explain, told_if_full
from nas.files import MIB, named_by_user, parse_json, read_text, write_whole

Sample: TypeAlias = dict[str, Answer]
"""An architecture: label -> answer, for exactly the choices that are asked while it is built."""

_TUPLE = "__tuple__"
_DEEPEST = 50
_MOST = 16 * MIB
"""Bytes of a sample."""


def _encode(value: object) -> object:
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NasTypeError(
        explain(
            "an answer must be a value that JSON can hold",
            got=value,
            mend="a number, a text, None, or a list or tuple of these",
        )
    )


def _decode(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise NasValueError(explain(f"an answer is nested at most {_DEEPEST} times", got=value))
    if isinstance(value, dict):
        if set(value) != {_TUPLE} or not isinstance(value[_TUPLE], list):
            raise NasValueError(explain("an answer must be a plain value, a list or a tuple", got=value))
        return tuple(_decode(item, depth + 1) for item in value[_TUPLE])
    if isinstance(value, float) and not math.isfinite(value):
        raise NasValueError(explain("an answer must be a finite number", got=value))
    return [_decode(item, depth + 1) for item in value] if isinstance(value, list) else value


def check_sample(sample: object) -> None:
    """Refuses what is no dict of answers; which labels and answers there may be is a matter of the space.

    Raises:
        NasTypeError: it is none.
    """
    if not isinstance(sample, Mapping):
        raise NasTypeError(
            explain(
                "a sample must be a dict label -> answer",
                got=sample,
                mend='{"width": 32}, as space.default() and trial.sample are',
            )
        )


def dumps_sample(sample: Mapping[str, Answer], *, indent: int | None = None) -> str:
    """A sample as JSON text; a tuple is written as `{"__tuple__": [...]}`, so that it comes back as one.

    Raises:
        NasTypeError: a label that is no str, or an answer that JSON cannot hold.

    Example:
        >>> dumps_sample({"width": 32, "size": (3, 3)})
        '{"width": 32, "size": {"__tuple__": [3, 3]}}'
    """
    check_sample(sample)
    for label in sample:
        if not isinstance(label, str):
            raise NasTypeError(explain("a label must be a str", got=label, mend=f'"{label}"'))
    try:
        return json.dumps({label: _encode(answer) for label, answer in sample.items()}, indent=indent, allow_nan=False)
    except ValueError as error:
        mend = "a finite number in place of NaN or infinity"
        raise NasValueError(explain("an answer must be a finite number", got=dict(sample), mend=mend)) from error


def loads_sample(text: str) -> Sample:
    """The sample that `dumps_sample` wrote.

    Raises:
        NasValueError: the text is no JSON, torn, or no dict of answers.

    Example:
        >>> loads_sample('{"width": 32}')
        {'width': 32}
    """
    if not isinstance(text, str):
        raise NasTypeError(explain("a sample is read from a text", got=text, mend='{"width": 32}, as JSON'))
    start = text[:60] + ("..." if len(text) > 60 else "")
    found = parse_json(text, where=start, strict=True, rule="a sample must be whole JSON text, and is none")
    if not isinstance(found, dict):
        raise NasValueError(
            explain(
                "a sample must be a JSON object label -> answer",
                got=found,
                mend="write it with nas.save_sample",
            )
        )
    return {label: _decode(answer) for label, answer in found.items()}


@explained()
def save_sample(sample: Mapping[str, Answer], path: str | os.PathLike[str]) -> Path:
    """Writes a sample as a JSON file, whole or not at all, making the folder where needed.

    Returns:
        The path it wrote.

    Raises:
        NasTypeError: an answer that JSON cannot hold.

    Example:
        >>> import tempfile
        >>> file = save_sample({"width": 32}, tempfile.mkdtemp() + "/best.json")
        >>> load_sample(file)
        {'width': 32}
    """
    target = check_path("path", path, where="save_sample")
    text = dumps_sample(sample, indent=2)
    with told_if_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(named_by_user(target), text + "\n")
    return target


@explained()
def load_sample(path: str | os.PathLike[str]) -> Sample:
    """Reads a sample file.

    Raises:
        NasValueError: there is no such file, or it is torn, no JSON, or no dict of answers.
    """
    file = check_path("path", path, where="load_sample")
    try:
        text = read_text(file, most=_MOST, follow=True)
    except (OSError, NasError) as error:
        rule, mend = f"a sample file must be readable text ({error})", "the path of a file that nas.save_sample wrote"
        raise NasValueError(explain(rule, got=str(path), mend=mend)) from error
    try:
        return loads_sample(text)
    except NasValueError as error:
        raise NasValueError(f"in {path}: {error}") from error


_sorted_text = json.JSONEncoder(sort_keys=True).encode


def sample_key(sample: Mapping[str, Answer]) -> str:
    """Text that two samples share exactly when they are the same architecture, whatever the order of their labels."""
    return _sorted_text(sample)
