"""Where a pickle of strangers is run: its stream of bytes, its stack and its memory, and what it may take of them.

Python's own pickles can call what they name, give state to what is there, and ask for any amount of memory. Here a name
is looked up in a short list and stands for one careful function; state is taken by what is being made, once; and what a
file may make is bounded by how long it is. Nothing recurses, so no nesting is too deep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy

_CHUNK, _LONGEST_CHUNK = 1 << 16, 1 << 20
WIDEST = 9
"""Bytes of a step whose length is fixed."""
_LONGEST_LINE = 1 << 24
_LONGEST_KEY = 16
"""Entries of a tuple."""
_FLAT: frozenset[type] = frozenset({str, int, float, bool, bytes, complex, type(None)})
_FREE, _FOR_EACH = 1 << 26, 16
"""Bytes that any file may take, and for each of its own so many more."""
LIST, DICT, SET, TUPLE = 56, 64, 216, 48
"""Bytes that each takes, empty."""
_REMEMBERED = 130
"""Bytes of a place in the memory."""


class Refused(Exception):  # noqa: N818 - what has happened to the file
    """A pickle that is torn, forged, or holds anything else than plain data; the message is the reason."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a pickle names, in the place of what has this name."""

    name: str
    make: Callable[[tuple[Any, ...]], Any] | None = None
    """Makes what a call of it yields; None where it is only handed on."""
    size: int = 0
    """Bytes of one number, where it names a kind of numbers."""


class Unfinished(ABC):
    """What is being made: it waits for its state, and then takes none any more."""

    __slots__ = ("is_finished", "places")

    def __init__(self) -> None:
        self.places: list[int] = []
        """Where the machine remembers it."""
        self.is_finished = False

    @abstractmethod
    def finish(self, state: Any) -> Any:
        """What it has become."""


Find: TypeAlias = Callable[[str], Named]
"""From a dotted name to what stands for it; raises `Refused`."""


@final
class Machine:
    """What the steps of a pickle work on.

    Args:
        read: the next bytes, at most so many; none at the end.
        stored: what there is for data outside of the pickle; None where there are none.

    Attributes:
        stack: what is being put together.
        marks: where on the stack what belongs together begins.
        memory: what is used again, by its number.
        data, at: bytes that are at hand, and the place of the next one.
        soft_end: where more are to be read, so that a short step is at hand whole.
        find: what names stand for.
    """

    def __init__(self, read: Callable[[int], bytes], stored: Callable[[Any], Any] | None = None) -> None:
        self._read, self.stored = read, stored
        self.data, self.at, self.soft_end = b"", 0, 0
        self._ended, self._taken = False, 0
        self._waiting = False
        self.weight = 0
        self.begin(_no_name)

    def begin(self, find: Find) -> None:
        """The next pickle of the stream."""
        self.find = find
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}

    @property
    def place(self) -> int:
        """How many bytes have been read."""
        return self._taken - len(self.data) + self.at

    def fill(self, size: int = WIDEST) -> None:
        """Sees to it that so many bytes are at hand, unless the stream ends before."""
        parts, there = [self.data[self.at :]], len(self.data) - self.at
        while there < size and not self._ended:
            more = self._read(min(max(size - there, _CHUNK), _LONGEST_CHUNK))
            self._ended = not more
            self._taken += len(more)
            there += len(more)
            parts.append(more)
        self.data, self.at = b"".join(parts), 0
        self.soft_end = there if self._ended else there - WIDEST
        self.weigh()

    def take(self, size: int) -> bytes:
        """The next bytes."""
        end = self.at + size
        if end > len(self.data):
            self.fill(size)
            end = size
            if end > len(self.data):
                raise Refused(f"it announces {size:,} bytes, and has {len(self.data):,}")
        found = self.data[self.at : end]
        self.at = end
        return found

    def number(self, size: int) -> int:
        """Of a length or a place: without a sign, the least byte first, of fewer bytes than a step has."""
        at = self.at
        self.at = end = at + size
        return int.from_bytes(self.data[at:end], "little")

    def line(self) -> bytes:
        """The next line, without its end."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            self.fill(_LONGEST_LINE)
            end = self.data.find(b"\n", self.at)
            if end < 0:
                raise Refused("it has a line without an end")
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    def weigh(self, more: int = 0) -> None:
        """Counts bytes that something takes.

        Raises:
            Refused: all in all they are far more than so short a pickle needs.
        """
        self.weight += more
        weight = self.weight + _REMEMBERED * len(self.memory) + 8 * (len(self.stack) + len(self.marks))
        if weight > _FREE + _FOR_EACH * self._taken:
            raise Refused(f"it takes far more memory than its {self._taken:,} bytes can need")

    def items(self) -> list[Any]:
        """What lies above the last mark."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def remember(self, number: int) -> None:
        """The last object, by this number."""
        found = self.memory[number] = self.stack[-1]
        if self._waiting and isinstance(found, Unfinished):
            found.places.append(number)

    def put(self, found: Any) -> None:
        """A new object."""
        self._waiting = self._waiting or isinstance(found, Unfinished)
        self.stack.append(found)
        self.weigh(SET + weight_of(found))


def checked_key(key: Any) -> Any:
    """A key, if it is short to compare: a nested one can take longer than the age of the universe.

    Raises:
        Refused: it is no number, text or short tuple of these.
    """
    if not _is_flat(key) and (type(key) is not tuple or len(key) > _LONGEST_KEY or not all(map(_is_flat, key))):
        name = type(key).__name__
        raise Refused(f"it has a key that is no number, text or short tuple of these, but a {name}")
    return key


def _is_flat(key: Any) -> bool:
    """Of ints those of 64 bits: of longer ones a million can share one place in a dict."""
    kind = type(key)
    if kind is int:
        return bool(key.bit_length() <= 64)
    return kind in _FLAT or isinstance(key, numpy.generic)


def fill_dict(target: Any, items: Sequence[Any]) -> None:
    """Puts keys and values, in turns, in a dict."""
    if type(target) not in (dict, OrderedDict) or len(items) % 2:
        raise Refused("it fills what is no dict")
    keys = items[::2]
    for key in keys:
        if type(key) is not str:
            checked_key(key)
    target.update(zip(keys, items[1::2], strict=True))


Step: TypeAlias = Callable[[Machine], None]
"""What one code of a pickle does."""


def weight_of(value: Any) -> int:
    """Bytes that an object takes, beside those of what it holds."""
    if isinstance(value, numpy.ndarray):
        return int(value.nbytes)
    if type(value) in (bytes, bytearray, str):
        return 4 * len(value)
    return 32 * len(value) if type(value) in (set, frozenset, dict, OrderedDict, list, tuple) else 0


def _no_name(name: str) -> Named:
    raise Refused(f"it names {name}")
