"""Pickles and torch files from elsewhere, read without executing code: containers, numbers, text, numpy arrays."""

from __future__ import annotations

import bz2
import codecs
import collections
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast, final

import numpy
import torch
from numpy.typing import NDArray

from nas.errors import NasValueError, explain

# numpy's own constructors take any dtype with any flags from a pickle, and trust them; these stand in for them.


@final
class _Dtype:
    """A dtype of plain numbers or text, of which only the byte order is taken from the file."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        self.dtype = numpy.dtype(code)
        if self.dtype.kind not in "biufcSU":
            raise pickle.UnpicklingError(f"it holds a numpy dtype {code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


@final
class _Array(numpy.ndarray[Any, Any]):
    """An array, filled with what the file has for it."""

    def __new__(cls) -> _Array:
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, dtype, fortran, data = state
        checked: Any = (1, shape, dtype.dtype, bool(fortran), bytes(data))
        super().__setstate__(checked)


def _new_array(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return numpy.frombuffer(data, dtype.dtype, count=1)[0]


def _buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[Any]:
    return cast("NDArray[Any]", numpy.frombuffer(data, dtype.dtype).reshape(shape, order=order))


def _encode(text: str, encoding: str) -> bytes:
    """What pickles of an old protocol call for bytes; other codecs have no business there."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes in the encoding {encoding!r}")
    return codecs.encode(text, encoding)


_PLAIN = (list, dict, set, frozenset, tuple, int, float, complex, bool, str, bytes, bytearray)
_ALLOWED: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "collections.OrderedDict": collections.OrderedDict,
    "collections.defaultdict": collections.defaultdict,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    # Python 3 has moved its builtins, numpy 2 its constructors; old files name the old places.
    **{f"{module}.{kind.__name__}": kind for module in ("builtins", "__builtin__") for kind in _PLAIN},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _new_array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _buffer for core in ("core", "_core")},
}


@final
class _PlainUnpickler(pickle.Unpickler):
    """Finds the names of plain data, and refuses every other one before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """What a pickle holds; one that bz2 has packed is unpacked.

    Raises:
        NasValueError: no such file, a torn one, or one that holds anything else than plain data.
    """
    try:
        with Path(path).open("rb") as file:
            packed = file.read(3) == b"BZh"
            file.seek(0)
            if packed:
                with bz2.BZ2File(file) as unpacked:
                    return _PlainUnpickler(unpacked).load()
            return _PlainUnpickler(file).load()
    # A torn or forged pickle fails with nearly anything.
    except Exception as error:
        raise _unreadable(path, error) from error


def read_torch(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote, if that is plain data or tensors.

    Raises:
        NasValueError: no such file, a torn one, or one that holds anything else.
    """
    try:
        with torch.serialization.safe_globals([(known, name) for name, known in _ALLOWED.items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: Exception) -> NasValueError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return NasValueError(
        explain(
            f"the file must hold plain data: containers, numbers, text, numpy arrays ({reason})",
            got=str(path),
            mend="fetch the file again from its publisher; if it holds weights too, take the one without them",
        )
    )
