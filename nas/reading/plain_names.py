"""What pickles of plain data name, and what stands for it: Python's containers, and arrays and numbers of numpy."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, final

import numpy

from nas.reading.machine import Named, Refused, Unfinished, checked_key, fill_dict

_DTYPE = re.compile(r"[<>=|]?(?:[biufc]\d{1,2}|[SU]\d{1,6}|\?)")
_MOST_DIMENSIONS = 32
_LAST_CHARACTER = 0x10FFFF


@final
class _Dtype(Unfinished):
    """A dtype of plain numbers or text, of which only the byte order is taken from its state."""

    __slots__ = ("dtype",)

    def __init__(self, code: object) -> None:
        super().__init__()
        if type(code) is not str or not _DTYPE.fullmatch(code):
            raise Refused(f"it holds a numpy dtype {str(code)[:40]!r}")
        self.dtype = numpy.dtype(code)

    def finish(self, state: Any) -> _Dtype:
        """Itself, in the byte order of the state."""
        order = state[1] if type(state) is tuple and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise Refused("it holds a numpy dtype without its byte order")
        self.dtype = self.dtype.newbyteorder(order)
        return self


@final
class _Array(Unfinished):
    """An array that waits for what the file has for it."""

    __slots__ = ()

    def finish(self, state: Any) -> Any:
        """The array."""
        if type(state) is not tuple or len(state) not in (4, 5):
            raise Refused("it holds an array without its state")
        shape, dtype, is_fortran, data = state[-4:]
        return _filled(data, dtype, shape, "F" if is_fortran is True or is_fortran == 1 else "C")


def _filled(data: object, dtype: object, shape: object, order: object) -> Any:
    """An array of its own, with no more and no fewer numbers than its shape has."""
    content, kind = _content(data), _dtype(dtype)
    if type(shape) is not tuple or len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise Refused("it holds an array without a shape")
    if order not in ("C", "F") or math.prod(shape) * kind.itemsize != len(content):
        raise Refused(f"it holds an array of shape {shape} and {kind} in {len(content):,} bytes")
    if not content:
        if math.prod(shape):
            raise Refused("it holds numbers of no bytes")
        return numpy.zeros(shape, kind)
    if kind.kind == "b":  # else a number could be neither true nor false
        return (numpy.frombuffer(content, "u1") != 0).reshape(shape, order=order)
    if kind.kind == "U":
        letters = numpy.frombuffer(content, numpy.dtype("u4").newbyteorder(kind.byteorder))
        if letters.max() > _LAST_CHARACTER:
            raise Refused("it holds a text of what are no characters")
    return numpy.frombuffer(content, kind).reshape(shape, order=order).copy(order="K")


def _content(data: object) -> bytes:
    """Bytes that nothing else holds; Python 2 wrote them as a text."""
    if type(data) is str:
        return data.encode("latin-1")
    if type(data) is bytes or type(data) is bytearray:
        return bytes(data)
    raise Refused("it holds numbers that are no bytes")


def _dtype(found: object) -> numpy.dtype[Any]:
    if type(found) is not _Dtype:
        raise Refused("it holds numbers without a dtype")
    return found.dtype


# What is called, with the arguments of the call.


def _scalar(arguments: tuple[Any, ...]) -> Any:
    dtype, data = arguments
    return _filled(data, dtype, (), "C")[()]


def _buffer(arguments: tuple[Any, ...]) -> Any:
    data, dtype, shape, order = arguments
    return _filled(data, dtype, shape, order)


def _new_dtype(arguments: tuple[Any, ...]) -> _Dtype:
    return _Dtype(arguments[0])


def _new_array(arguments: tuple[Any, ...]) -> _Array:
    kind, _, _ = arguments
    if kind is not _NAMES["numpy.ndarray"]:
        raise Refused("it holds an array of another kind")
    return _Array()


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """What pickles of an old protocol call for bytes; other codecs have no business there."""
    text, encoding = arguments
    if type(text) is not str or encoding != "latin1":
        raise Refused(f"it holds bytes in the encoding {str(encoding)[:40]!r}")
    return text.encode("latin-1")


def _bytes(arguments: tuple[Any, ...]) -> bytes:
    """Old protocols write no bytes at all so; never a number of bytes."""
    if arguments:
        raise Refused("it calls builtins.bytes")
    return b""


def _bytearray(arguments: tuple[Any, ...]) -> bytearray:
    if not arguments:
        return bytearray()
    if len(arguments) == 2 and arguments[1] not in ("latin-1", "latin1"):
        raise Refused("it holds bytes in another encoding")
    return bytearray(_content(arguments[0]))


def _complex(arguments: tuple[Any, ...]) -> complex:
    real, imaginary = arguments
    if type(real) is not float or type(imaginary) is not float:
        raise Refused("it holds a complex number of what are no numbers")
    return complex(real, imaginary)


def _set_of(kind: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Any]:
    def make(arguments: tuple[Any, ...]) -> Any:
        (items,) = arguments or ([],)
        if type(items) is not list:
            raise Refused("it holds a set of what is no list")
        return kind(map(checked_key, items))

    return make


def _ordered(arguments: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    """Empty, and filled later; Python 2 has filled it at once."""
    found: OrderedDict[Any, Any] = OrderedDict()
    (pairs,) = arguments or ([],)
    if type(pairs) is not list or not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
        raise Refused("it holds a dict of what are no pairs")
    fill_dict(found, [part for pair in pairs for part in pair])
    return found


def _dict_without_default(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return {}


_CALLED: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "_codecs.encode": _encoded,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytearray,
    "builtins.complex": _complex,
    "builtins.set": _set_of(set),
    "builtins.frozenset": _set_of(frozenset),
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _dict_without_default,
    "numpy.dtype": _new_dtype,
    # numpy 2 has moved its constructors; old files name the old places.
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _new_array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _buffer for core in ("core", "_core")},
}
_HANDED_ON = (
    "numpy.ndarray",
    *(f"builtins.{kind}" for kind in ("list", "dict", "tuple", "int", "float", "bool", "str")),
)
_NAMES = {
    **{name: Named(name=name, make=make) for name, make in _CALLED.items()},
    **{name: Named(name=name) for name in _HANDED_ON},
}


def plain_name(name: str) -> Named:
    """What stands for a name in a pickle of plain data.

    Raises:
        Refused: plain data need none of this name.
    """
    found = _NAMES.get(name)
    if found is None:
        raise Refused(f"it names {name[:200]}")
    return found
