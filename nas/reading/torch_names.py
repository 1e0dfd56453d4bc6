"""What files of `torch.save` name: tensors, whose sizes are checked against what the file has for them, and plain data.

No tensor is made here, and nothing of torch is called. A note stands for each tensor: torch itself reads a file that
has passed, or nobody needs the tensors.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch

from nas.reading.machine import Named, Refused, Unfinished
from nas.reading.plain_names import plain_name

_MOST_DIMENSIONS = 64
_REPEATED = 1 << 28
"""Bytes that a tensor may show more than there are, as an expanded one does."""
_NUMBERS = {
    **dict.fromkeys(("Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4", "Untyped"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
"""Bytes of a number, by the kinds of storage."""
_SPARSE = {"torch.sparse_coo": (3, 4), **{f"torch.sparse_{kind}": (4,) for kind in ("csr", "csc", "bsr", "bsc")}}
"""Layouts, and how many parts tensors of each may consist of."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a file has for the storage of tensors."""

    nbytes: int
    size: int
    """Bytes of a number."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Stands for a tensor of a file."""

    shape: tuple[int, ...]


@final
class _Foreign(Unfinished):
    """Stands for an object of a class that the user has told torch to be safe."""

    __slots__ = ()

    def finish(self, state: Any) -> _Foreign:
        """Itself: the class is the user's."""
        return self


def _numbers(found: object, what: str) -> tuple[int, ...]:
    if type(found) is not tuple or len(found) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in found):
        raise Refused(f"it holds a tensor without a {what}")
    return found


def _view(stored: object, offset: object, shape: object, strides: object, *, size: int = 0) -> LeftOut:
    """A tensor that lies wholly in its storage."""
    if type(stored) is not Stored:
        raise Refused("it holds a tensor without numbers")
    size = size or stored.size
    lengths, steps = _numbers(shape, "shape"), _numbers(strides, "stride")
    if type(offset) is not int or offset < 0 or len(lengths) != len(steps):
        raise Refused("it holds a tensor of another shape than its strides have")
    count = math.prod(lengths)
    end = offset + (1 + sum((n - 1) * step for n, step in zip(lengths, steps, strict=True)) if count else 0)
    if end * size > stored.nbytes:
        raise Refused(f"it holds a tensor of {end * size:,} bytes in {stored.nbytes:,}")
    if count * size > stored.nbytes + _REPEATED:
        raise Refused(f"it holds a tensor that makes {count * size:,} bytes of {stored.nbytes:,}")
    return LeftOut(shape=lengths)


def _no_hooks(hooks: object) -> None:
    if hooks is not None and (type(hooks) not in (dict, OrderedDict) or hooks):
        raise Refused("it holds a tensor with hooks")


def _is_flag(flag: object) -> None:
    if type(flag) is not bool:
        raise Refused("it holds a tensor that is neither trained nor not")


def _plain_tensor(arguments: tuple[Any, ...]) -> LeftOut:
    return _view(*_exactly(arguments, 4))


def _tensor(arguments: tuple[Any, ...]) -> LeftOut:
    stored, offset, shape, strides, trained, hooks, *rest = _exactly(arguments, 6, 7)
    _is_flag(trained)
    _no_hooks(hooks)
    _is_metadata(*rest)
    return _view(stored, offset, shape, strides)


def _tensor_of_bytes(arguments: tuple[Any, ...]) -> LeftOut:
    stored, offset, shape, strides, trained, hooks, dtype, *rest = _exactly(arguments, 7, 8)
    _is_flag(trained)
    _no_hooks(hooks)
    _is_metadata(*rest)
    if type(dtype) is not Named or not dtype.size:
        raise Refused("it holds a tensor without a dtype")
    return _view(stored, offset, shape, strides, size=dtype.size)


def _is_metadata(found: object = None) -> None:
    """Whether numbers are to be read as conjugated or negated."""
    if found is not None and (
        type(found) is not dict or found.keys() - {"conj", "neg"} or any(type(v) is not bool for v in found.values())
    ):
        raise Refused("it holds a tensor with foreign metadata")


def _quantized_tensor(arguments: tuple[Any, ...]) -> LeftOut:
    stored, offset, shape, strides, how, trained, hooks = _exactly(arguments, 7)
    _is_flag(trained)
    _no_hooks(hooks)
    found = _view(stored, offset, shape, strides)
    per_tensor = type(how) is tuple and len(how) == 3 and type(how[1]) is float and type(how[2]) is int
    per_channel = type(how) is tuple and len(how) == 4 and type(how[3]) is int and 0 <= how[3] < len(found.shape)
    if per_channel:
        wanted = (found.shape[how[3]],)
        per_channel = all(type(part) is LeftOut and part.shape == wanted for part in how[1:3])
    if not per_tensor and not per_channel:
        raise Refused("it holds a quantized tensor without its scales")
    return found


def _meta_tensor(arguments: tuple[Any, ...]) -> LeftOut:
    """It has no numbers."""
    dtype, shape, _, trained = _exactly(arguments, 4)
    _is_flag(trained)
    if type(dtype) is not Named or not dtype.size:
        raise Refused("it holds a tensor without a dtype")
    return LeftOut(shape=_numbers(shape, "shape"))


def _sparse_tensor(arguments: tuple[Any, ...]) -> LeftOut:
    """The numbers of its indices torch checks itself."""
    layout, parts = _exactly(arguments, 2)
    if type(layout) is not Named or type(parts) is not tuple or len(parts) not in _SPARSE.get(layout.name, ()):
        raise Refused("it holds a sparse tensor without its parts")
    of_coordinates = layout.name == "torch.sparse_coo"
    shape = parts[2 if of_coordinates else 3]
    if any(type(part) is not LeftOut for part in parts[: 2 if of_coordinates else 3]):
        raise Refused("it holds a sparse tensor without its parts")
    return LeftOut(shape=_numbers(shape, "shape"))


def _parameter(arguments: tuple[Any, ...]) -> LeftOut:
    tensor, trained, hooks = _exactly(arguments, 3)
    _is_flag(trained)
    _no_hooks(hooks)
    return _is_tensor(tensor)


def _parameter_with_state(arguments: tuple[Any, ...]) -> LeftOut:
    *first, state = _exactly(arguments, 4)
    _is_state(state)
    return _parameter(tuple(first))


def _tensor_with_state(arguments: tuple[Any, ...]) -> Any:
    make, kind, inner, state = _exactly(arguments, 4)
    if type(make) is not Named or make.make is None or type(inner) is not tuple or type(kind) is not Named:
        raise Refused("it holds a tensor of no kind")
    found = make.make(inner)
    if kind.name in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        _is_state(state)
        return _is_tensor(found)
    return kind.make(()) if kind.make is not None else _is_tensor(None)


def _is_tensor(found: object) -> LeftOut:
    if type(found) is not LeftOut:
        raise Refused("it holds a tensor of what is none")
    return found


def _is_state(state: object) -> None:
    """Attributes that somebody has given to a tensor; none that a tensor has itself."""
    given = state[0] if type(state) is tuple and len(state) == 2 and state[1] is None else state
    if given is not None and (
        type(given) is not dict or any(type(k) is not str or hasattr(torch.nn.Parameter, k) for k in given)
    ):
        raise Refused("it gives state to a tensor")


def _layout(arguments: tuple[Any, ...]) -> Named:
    (name,) = arguments
    if type(name) is not str or (name not in _SPARSE and name != "torch.strided"):
        raise Refused("it names no layout")
    return Named(name=name)


def _device(arguments: tuple[Any, ...]) -> Named:
    if not arguments or type(arguments[0]) is not str or not all(type(number) is int for number in arguments[1:]):
        raise Refused("it names no device")
    return Named(name="torch.device")


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    return _numbers(tuple(*_exactly(arguments, 1)), "shape")


def _counter(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    (counts,) = arguments or ({},)
    if type(counts) is not dict:
        raise Refused("it counts nothing")
    return dict(counts)


def _foreign(arguments: tuple[Any, ...]) -> _Foreign:
    return _Foreign()


def _exactly(arguments: tuple[Any, ...], *lengths: int) -> tuple[Any, ...]:
    if len(arguments) not in lengths:
        raise Refused("it holds a tensor that this version of torch does not know")
    return arguments


_CALLED: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.Counter": _counter,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "torch._utils._rebuild_tensor": _plain_tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_qtensor": _quantized_tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    "torch._utils._rebuild_sparse_tensor": _sparse_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_state,
}
_KINDS = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
_NAMES = {
    **{name: Named(name=name, make=make) for name, make in _CALLED.items()},
    **{f"torch.{kind}Storage": Named(name=kind, size=size) for kind, size in _NUMBERS.items()},
    "torch.storage.UntypedStorage": Named(name="Untyped", size=1),
    **{str(kind): Named(name=str(kind), size=kind.itemsize) for kind in _KINDS},
    **{str(kind): Named(name=str(kind)) for kind in vars(torch).values() if isinstance(kind, torch.qscheme)},
    **{name: Named(name=name) for name in ("torch.Tensor", "torch.nn.parameter.Parameter")},
}


def torch_name(name: str) -> Named:
    """What stands for a name in a file of `torch.save`: of torch, or of plain data.

    Raises:
        Refused: tensors and plain data need none of this name.
    """
    return _NAMES.get(name) or plain_name(name)


def name_for_torch(name: str) -> Named:
    """The same for a file that torch is to read after it: no names of numpy, but those that the user has allowed.

    Raises:
        Refused: torch would not read it, or should not.
    """
    known = _NAMES.get(name)
    if known is not None:
        return known
    if not name.startswith(("torch.distributed.", "numpy.")) and name in _allowed_names():
        return Named(name=name, make=_foreign)
    return plain_name(name)


def _allowed_names() -> set[str]:
    """Of what `torch.serialization.add_safe_globals` has been given."""
    given = torch.serialization.get_safe_globals()
    return {each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in given}
