"""Checks what spaces are asked for by name, before anything is built."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.model_zoo.cells import cell_network
from nas.model_zoo.transformer_layers import TransformerRanges

_WORDS: Mapping[object, str] = {
    int: "an int above 0",
    float: "a number",
    bool: "True or False",
    TransformerRanges: "a TransformerRanges",
}


def check_arguments(source: Callable[..., nn.Module], arguments: Mapping[str, Any], *, where: str) -> None:
    """Holds keyword arguments against the annotations of a space, all of them at once.

    Raises:
        NasTypeError: an argument that the space does not have.
        NasValueError: a value of another kind, or a number of channels, classes, ... below 1.
    """
    kinds = _kinds(source)
    unknown = [name for name in arguments if name not in kinds]
    if unknown:
        hints = "; ".join(close_names(name, kinds) for name in unknown)
        raise NasTypeError(explain(f"no such argument; {hints}", got=", ".join(unknown), where=where))
    wrong = [name for name, value in arguments.items() if not _fits(value, kinds[name])]
    if wrong:
        rule = ", ".join(f"{name} must be {_words(kinds[name])}" for name in wrong)
        raise NasValueError(explain(rule, got={name: arguments[name] for name in wrong}, where=where))


def _kinds(source: Callable[..., nn.Module]) -> dict[str, object]:
    """The annotation of each argument."""
    kinds = typing.get_type_hints(vars(source)["__init__"] if isinstance(source, type) else source)
    kinds.pop("return")
    if kinds.pop("arguments", None) is not None:  # of the cell spaces: those of the component builder
        kinds |= typing.get_type_hints(cell_network)
        del kinds["family"], kinds["return"]
    return kinds


def _options(kind: object) -> tuple[object, ...]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _fits(value: object, kind: object) -> bool:
    """Whether a value is of one of the kinds known here; other kinds are left to the space."""
    options = _options(kind)
    if value is None and types.NoneType in options:
        return True
    if bool in options:
        return isinstance(value, bool)
    if int in options:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if float in options:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return TransformerRanges not in options or isinstance(value, TransformerRanges)


def _words(kind: object) -> str:
    return next(_WORDS[option] for option in _options(kind) if option in _WORDS)
