"""What two operations of the same latency share, and operations called once more by themselves."""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import sys
import weakref
from collections.abc import Iterable, Mapping
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any, final

import numpy
import torch
from torch import Tensor, nn

from nas._compat.torch_internals import (
    children_of,
    has_numbers,
    hook_dicts,
    own_buffers,
    own_parameters,
    tree_map,
)
from nas.example_inputs import Inputs
from nas.profile.dry_run import ModuleCall, TensorSpec, is_single
from nas.profile.passes import with_numbers
from nas.space import ARCHITECTURE

_LONGEST = 160


class _HiddenError(Exception):
    """An object whose parts cannot be seen."""


def operation_text(module: nn.Module, call: ModuleCall) -> str | None:
    """Kind, configuration, parameters, buffers and inputs; None where two that are different could look alike."""
    try:
        looks = _Looks()
        given = [looks.of(argument) for argument in call.args]
        given += [f"{name}={looks.of(argument)}" for name, argument in call.kwargs.items()]
        return f"{looks.of_module(module)} on {', '.join(given)}"
    except _HiddenError:
        return None


@final
class _Looks:
    """Describes objects by what they are made of: two with the same text do the same."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []

    def of_module(self, module: nn.Module) -> str:
        """Its class, attributes, parameters, buffers, children and hooks."""
        self._met(module)
        plain = [
            f"{name}={self.of(value)}" for name, value in sorted(vars(module).items()) if name not in _NOT_CONFIGURATION
        ]
        tensors = [*own_parameters(module).items(), *own_buffers(module).items()]
        weights = [f"{name} {self._of_weight(tensor)}" for name, tensor in tensors]
        weights += [f"{name}: {self.of(child)}" for name, child in children_of(module).items()]
        weights += [f"hook {self.of(hook)}" for place in hook_dicts(module) for hook in place.values()]
        return f"{self.of(type(module))}({', '.join(plain)}; {', '.join(weights)})"

    def _of_weight(self, tensor: Tensor | None) -> str:
        if tensor is None:
            return "None"
        text = str(tuple(tensor.shape)) + ("" if tensor.dtype == torch.float32 else f" {_dtype(tensor.dtype)}")
        return text if isinstance(tensor, nn.Parameter) else text + _numbers(tensor)

    def of(self, value: Any) -> str:
        """One object.

        Raises:
            _HiddenError: its parts cannot be seen.
        """
        if isinstance(value, TensorSpec):
            return f"{value.shape} {_dtype(value.dtype)}"
        if value is None or value is ... or type(value) in _PLAIN:
            return repr(value)
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, ModuleType):
            return value.__name__
        if id(value) in self._seen:
            return f"<{self._seen[id(value)]}>"
        self._met(value)
        text = self._of_parts(value)
        if len(text) <= _LONGEST:
            return text
        return f"{text[: _LONGEST // 2]}... sha256 {_digest([text])}"

    def _met(self, value: object) -> None:
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)  # so that no id comes twice

    def _of_parts(self, value: Any) -> str:
        if isinstance(value, nn.Module):
            return self.of_module(value)
        if isinstance(value, Tensor):
            return self._of_weight(value)
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, MethodType):
            return f"{self.of(value.__func__)} of {self.of(value.__self__)}"
        if isinstance(value, weakref.ref):
            return self.of(value())
        if isinstance(value, numpy.ndarray | numpy.generic):
            return f"{value.dtype}{value.shape} sha256 {_digest([value.tobytes()])}"
        if isinstance(value, enum.Enum):
            return f"{self.of(type(value))}.{value.name}"
        if isinstance(value, functools.partial):
            return f"partial({self.of(value.func)}, {self.of(value.args)}, {self.of(value.keywords)})"
        if isinstance(value, _BUILTIN):
            return self._of_builtin(value)
        if isinstance(value, SimpleNamespace):
            return f"{self.of(type(value))}({self._of_all(vars(value))})"
        if _in_python(type(value)):
            kind = "" if type(value) in _CONTAINERS else self.of(type(value))
            attributes = _attributes(value)
            return kind + self._of_items(value) + (f"({self._of_all(attributes)})" if attributes else "")
        raise _HiddenError

    def _of_builtin(self, value: Any) -> str:
        """A function or method of an extension module: its name, and whose it is."""
        name = str(value.__name__)
        if getattr(sys.modules.get(getattr(value, "__module__", None) or ""), name, None) is value:
            return f"{value.__module__}.{name}"
        owner = getattr(value, "__objclass__", None) or value.__self__
        if owner is None:
            raise _HiddenError
        return f"{self.of(owner)}.{name}"

    def _of_items(self, value: Any) -> str:
        if isinstance(value, dict):
            return f"{{{self._of_all(value)}}}"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(map(self.of, value)))}}}"
        if isinstance(value, list | tuple | collections.deque):
            return f"[{', '.join(map(self.of, value))}]"
        return ""

    def _of_all(self, items: Mapping[Any, Any]) -> str:
        return ", ".join(f"{self.of(name)}: {self.of(item)}" for name, item in items.items())

    def _of_function(self, value: FunctionType) -> str:
        if _importable(value):
            return f"{value.__module__}.{value.__qualname__}"
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [self.of(item) for item in (*held, value.__defaults__, value.__kwdefaults__)]
        return f"{value.__module__}.{value.__qualname__} sha256 {_digest([*_code(value.__code__), *parts])}"

    def _of_class(self, value: type) -> str:
        name = f"{value.__module__}.{value.__qualname__}"
        if _importable(value) or id(value) in self._seen:
            return name
        self._met(value)
        parts = [self.of(base) for base in value.__bases__]
        for key, item in vars(value).items():
            if key not in _NOT_OF_CLASS and not isinstance(item, MemberDescriptorType):
                parts += [key, *(self.of(part) for part in _functions_in(item))]
        return f"{name} sha256 {_digest(parts)}"


_PLAIN: tuple[type, ...] = (bool, int, float, complex, str, bytes, range, slice)
_PLAIN += (torch.dtype, torch.device, torch.layout, torch.memory_format)
_CONTAINERS: tuple[type, ...] = (dict, list, tuple, set, frozenset, torch.Size)
_CONTAINERS += (collections.OrderedDict, collections.defaultdict, collections.deque)
_NOT_CONFIGURATION = {*vars(nn.Module()), ARCHITECTURE}
_NOT_OF_CLASS = {"__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__qualname__"}


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _numbers(tensor: Tensor) -> str:
    """The numbers of a tensor that has some: who computes with them may take as long as they are large."""
    if not has_numbers(tensor) or tensor.layout is not torch.strided:
        return ""
    return f" sha256 {_digest([tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()])}"


def _digest(parts: Iterable[str | bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
        found.update(b"\0")
    return found.hexdigest()[:16]


def _code(code: CodeType) -> list[str | bytes]:
    """What a function does, without where it stands."""
    inner = [part for item in code.co_consts if isinstance(item, CodeType) for part in _code(item)]
    plain = repr([item for item in code.co_consts if not isinstance(item, CodeType)])
    return [code.co_code, plain, repr(code.co_names), repr(code.co_varnames), *inner]


def _importable(value: Any) -> bool:
    """Whether its name leads to it, and to nothing else."""
    found: Any = sys.modules.get(getattr(value, "__module__", None) or "")
    for name in getattr(value, "__qualname__", "<nowhere>").split("."):
        found = getattr(found, name, None)
    return found is value


def _in_python(kind: type) -> bool:
    """Whether class statements have made it, so that its attributes are all that its objects are made of.

    Classes of containers may be among its bases, as their items can be seen too.
    """
    return all(base in _CONTAINERS or _made_by_class(base) for base in kind.__mro__ if base is not object)


def _made_by_class(kind: type) -> bool:
    """An extension module's class has methods that are no functions of Python."""
    return not any(isinstance(item, _NATIVE) for name, item in vars(kind).items() if name not in _NOT_OF_CLASS)


_BUILTIN = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)
_NATIVE = (type(str.join), type(int.__add__), type(int.real))


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    slots = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    names = [name for found in slots for name in ([found] if isinstance(found, str) else found)]
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in names if hasattr(value, name)}}


def _functions_in(item: Any) -> list[Any]:
    """What an attribute of a class is made of."""
    if isinstance(item, classmethod | staticmethod):
        return [item.__func__]
    if isinstance(item, property):
        return [item.fget, item.fset, item.fdel]
    return [item]


def call_again(module: nn.Module, call: ModuleCall) -> tuple[nn.Module, Inputs]:
    """A copy of a module, and what it was called with in a pass: tensors of these shapes, or the very ones.

    Where the pass had no numbers, parameters and inputs are small noise, and integers are 0: valid as indices.
    """
    if call.given is not None:
        return with_numbers(module), Inputs(*call.given)
    args, kwargs = tree_map(
        lambda item: _tensor(item) if isinstance(item, TensorSpec) else item,
        (call.args, dict(call.kwargs)),
        is_leaf=is_single,
    )
    return with_numbers(module), Inputs(args, kwargs)


def _tensor(spec: TensorSpec) -> Tensor:
    if spec.dtype.is_floating_point:
        return torch.randn(spec.shape, generator=torch.Generator().manual_seed(0)).to(spec.dtype)
    return torch.zeros(spec.shape, dtype=spec.dtype)
