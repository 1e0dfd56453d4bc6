"""Pickles and torch files from elsewhere, read without executing code: containers, numbers, text, numpy arrays."""

from __future__ import annotations

import bz2
import codecs
import collections
import os
import pickle
from pathlib import Path
from typing import Any, final

import numpy
import torch

from nas.errors import NasValueError, explain


def _encode(text: str, encoding: str) -> bytes:
    """What pickles of an old protocol call for bytes; other codecs than latin-1 have no business there."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return codecs.encode(text, "latin1")


_DTYPES = tuple({type(numpy.dtype(code)) for code in "?bBhHiIlLqQefdFDSU"})
_SCALAR, _ARRAY = numpy.float64(0).__reduce__()[0], numpy.zeros(0).__reduce__()[0]
_BUFFER = numpy.zeros(1).__reduce_ex__(5)[0]
_PLAIN = (list, dict, set, frozenset, tuple, int, float, complex, bool, str, bytes, bytearray)
# numpy 2 has moved its constructors, Python 3 its builtins; old files name the old places.
_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "collections.defaultdict": collections.defaultdict,
    "numpy.ndarray": numpy.ndarray,
    "numpy.dtype": numpy.dtype,
    **{f"numpy.{core}.multiarray.scalar": _SCALAR for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _ARRAY for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _BUFFER for core in ("core", "_core")},
    **{f"{module}.{kind.__name__}": kind for module in ("builtins", "__builtin__") for kind in _PLAIN},
}


@final
class _PlainUnpickler(pickle.Unpickler):
    """Finds the names of plain data, and refuses every other one before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
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
    """What `torch.save` wrote, if that is plain data.

    Raises:
        NasValueError: no such file, a torn one, or one that holds anything else than plain data and tensors.
    """
    known = [(kind, name) for name, kind in _ALLOWED.items() if name.split(".")[0] not in ("builtins", "__builtin__")]
    try:
        with torch.serialization.safe_globals([*known, *_DTYPES]):
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
