"""The lines of a journal: records of Optuna with a checksum of ours, and what is wrong with one.

The checksum is one key more in the JSON object of a record. Optuna takes from a record what it knows, so its own tools
open the file. It is one of the line's place too: a line that was deleted, moved or copied is told like one whose bits
were flipped. Lines without it, of older journals or written by Optuna's tools, are read as they are.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, final

from nas.errors import NasValueError
from nas.files import MIB, parse_json

CHECKSUM = "nas:crc"
"""Its key."""
LONGEST = 64 * MIB
"""Bytes of a line."""
_MARK = re.compile(rb',"nas:crc":"([0-9a-f]{8})"\}')
_MARK_LENGTH = len(b',"nas:crc":"00000000"}')
_BEGINNING = b'{"op_code":'
_DEEPEST = 64
"""So many objects and lists may lie in each other; records have about ten."""


@final
class Damage(Exception):  # noqa: N818 - names the situation
    """What is wrong with a line."""


def write_line(record: Mapping[str, Any], number: int) -> bytes:
    """A record as the line of a number, which is 1 for the first of the journal.

    Example:
        >>> write_line({"op_code": 1, "study_id": 0}, 1)
        b'{"op_code":1,"study_id":0,"nas:crc":"b1f404ac"}\\n'
    """
    body = json.dumps(record, separators=(",", ":")).encode()[:-1]
    return body + b',"%s":"%08x"}\n' % (CHECKSUM.encode(), zlib.crc32(body, number))


def read_line(line: bytes, number: int) -> tuple[dict[str, Any], bool]:
    """The record of a line, and whether it has a checksum, which fits.

    Raises:
        Damage: it is not as it was written, or no record.
    """
    mark = _MARK.fullmatch(line, max(0, len(line) - _MARK_LENGTH - 1), len(line) - 1)
    if mark is not None and zlib.crc32(line[: mark.start()], number) != int(mark[1], 16):
        raise Damage("its checksum does not fit: it was changed, or stands at another place than where it was written")
    try:
        record = parse_json(line.decode("utf-8"), where="")
    except UnicodeDecodeError:
        raise Damage("it is no text in UTF-8") from None
    except NasValueError:
        raise Damage("it is no whole JSON") from None
    if not isinstance(record, dict):
        raise Damage("it is no record, which is a JSON object")
    if mark is None and CHECKSUM in record:
        raise Damage("it has a checksum, and is not as it was written")
    refuse_depth(record)
    record.pop(CHECKSUM, None)
    return record, mark is not None


def refuse_depth(value: object) -> None:
    """What is nested so deeply that programs which walk through it would come to their end.

    Raises:
        Damage: it is.
    """
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return
    raise Damage(f"it is nested more than {_DEEPEST} deep")


def check_end(end: bytes, *, is_first: bool) -> None:
    """The end of a journal that has no line end is what a killed writer or a full disk left; or it is damage.

    Args:
        end: what comes after the last whole line.
        is_first: whether there is no whole line.

    Raises:
        Damage: it is more than the beginning of a record.
    """
    text = end.rstrip(b"\0")  # A power failure leaves room that was never written.
    if is_first and text[: len(_BEGINNING)] != _BEGINNING[: len(text)]:
        raise Damage("this is no journal of an experiment")
    mark = _MARK.search(text)
    if _goes_on(text) if mark is None else mark.end() < len(text):
        raise Damage("it goes on after its end")


def _goes_on(text: bytes) -> bool:
    """Whether anything comes after a whole JSON object."""
    characters = text.decode("utf-8", errors="replace")
    try:
        return json.JSONDecoder().raw_decode(characters)[1] < len(characters)
    except (ValueError, RecursionError):
        return False
