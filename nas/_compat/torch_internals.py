"""Private names of torch: the bases of its layers, the dicts of a module, versions of tensors, operations on lists."""

from __future__ import annotations

import copy
import functools
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from types import MethodType
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.conv import _ConvNd as Convolution
from torch.nn.modules.conv import _ConvTransposeNd as TransposedConvolution
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrizations import _WeightNorm as WeightNormalised
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = [
    "BASE_ATTRIBUTES",
    "SET_BY_HOOKS",
    "TENSOR_DICTS",
    "WHAT_A_CALL_IS",
    "BatchNorm",
    "Convolution",
    "FakeTensors",
    "InstanceNorm",
    "MovableModule",
    "NormBase",
    "TorchDispatchMode",
    "TransposedConvolution",
    "TreeSpec",
    "WeightNormalised",
    "add_to_each",
    "apply_along",
    "apply_to",
    "awaits_first_call",
    "bare_copy",
    "calls_are_watched",
    "can_decompose",
    "children_of",
    "copy_each",
    "flatten_each",
    "forward_pre_hooks",
    "has_hooks",
    "has_numbers",
    "hook_dicts",
    "hooks_of",
    "inside_compiled",
    "is_compiled",
    "move_each_toward",
    "own_buffers",
    "own_parameters",
    "persists",
    "plain_attributes",
    "running_iterator",
    "scale_each",
    "schema_of",
    "share_insides",
    "shun_fast_path",
    "storage_key",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "version_of",
    "watching_modules",
    "writes_into_first",
    "yields_new_tensors",
    "zero_each",
]

# Modules. The dicts themselves, as a subnet's tensors are put in place by writing into them in every step.


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters of a module, without those of its children; None where it was registered as None."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers of a module, without those of its children; None where it was registered as None."""
    return module._buffers


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """The children of a module by name: one that stands under two names twice, which `named_children` leaves out."""
    return module._modules


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """What a module keeps beside its parameters, buffers and children, and has hooks for."""
    return {name: value for name, value in vars(module).items() if name not in BASE_ATTRIBUTES}


BASE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""What `nn.Module` itself keeps in `vars(module)`."""
SET_BY_HOOKS = ("_is_full_backward_hook",)
"""What registering a hook sets beside the dicts of hooks."""
WHAT_A_CALL_IS = ("forward", "_compiled_call_impl", "_modules", "_parameters", "_buffers")
"""The attributes that say what a call of a module does, other than by its settings."""
_CONTAINERS = (dict, set)
TENSOR_DICTS = ("_parameters", "_buffers")
"""Under which names in `vars(module)` its tensors are."""

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def hooks_of(module: nn.Module) -> dict[str, dict[int, Any]]:
    """The same by the names of the attributes."""
    return {name: getattr(module, name) for name in _HOOKS}


def bare_copy(module: nn.Module) -> nn.Module:
    """One of the same type with the same attributes, that has its children and tensors in dicts of its own."""
    twin = object.__new__(type(module))
    own = {name: copy.copy(value) for name, value in vars(module).items() if name in BASE_ATTRIBUTES}
    vars(twin).update({**vars(module), **own})
    return twin


def share_insides(face: nn.Module, module: nn.Module) -> None:
    """Gives a module the tensors, children and hooks of another one: what is put into either is in both.

    Args:
        face: reads and sets attributes that it has not as those of the other one; loses those that hooks set.
        module: as it is.
    """
    shared = {name: value for name, value in vars(module).items() if isinstance(value, _CONTAINERS)}
    vars(face).update({name: value for name, value in shared.items() if name in BASE_ATTRIBUTES})
    for name in SET_BY_HOOKS:
        vars(face).pop(name, None)


def shun_fast_path(attention: nn.MultiheadAttention) -> None:
    """Keeps the layers of torch that hold an attention from computing in its stead."""
    attention._qkv_same_embed_dim = False


def persists(module: nn.Module, buffer: str) -> bool:
    """Whether a buffer is in the state dict."""
    return buffer not in module._non_persistent_buffers_set


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to know when it is called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_heard(tensor: Tensor) -> bool:
    """Whether somebody wants to know its gradient, or changes it."""
    return bool(tensor._backward_hooks)


def forward_pre_hooks(module: nn.Module) -> list[Callable[..., Any]]:
    """What is called before a module is."""
    return list(module._forward_pre_hooks.values())


def hook_dicts(module: nn.Module) -> list[dict[int, Any]]:
    """Where a module keeps what is called with it: number -> hook; also numbers -> True of hooks with keywords."""
    return [getattr(module, name) for name in _HOOKS]


def calls_are_watched() -> bool:
    """Whether a mode of torch sees its calls at the moment, or a hook those of all modules."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or nn.modules.module._has_any_global_hook()
    )


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called."""
    return module._compiled_call_impl is not None


def awaits_first_call(module: nn.Module) -> bool:
    """Whether it is a lazy module that has not been called: it becomes another class then, even with weights loaded."""
    return isinstance(module, LazyModuleMixin) and "_initialize_hook" in vars(module)


def inside_compiled(model: nn.Module) -> nn.Module:
    """The module that `torch.compile(module)` wraps; any other as it is."""
    return dict(model.named_children()).get("_orig_mod", model)


_WATCHED: ContextVar[tuple[Callable[[nn.Module], None], Callable[[nn.Module, str], None]] | None] = ContextVar(
    "nas_watched", default=None
)
_PATCHING = threading.Lock()
_PATCHED: dict[str, Any] = {}
_WATCHERS = 0
_METHODS = ("__init__", "__setstate__")


@contextmanager
def watching_modules(made: Callable[[nn.Module], None], changed: Callable[[nn.Module, str], None]) -> Iterator[None]:
    """Tells of each module that is made in the block, and of what is put into modules; in this context alone.

    A constructor ends in `nn.Module.__init__`; a copy, and what is read from a file, in `__setstate__`. Both are
    wrapped while any thread is in such a block.

    Args:
        made: gets each module before its constructor runs.
        changed: gets a module and the name of the parameter, buffer or child that is being registered.
    """
    token = _WATCHED.set((made, changed))
    _patch(1)
    try:
        yield
    finally:
        _patch(-1)
        _WATCHED.reset(token)


def _patch(more: int) -> None:
    global _WATCHERS
    with _PATCHING:
        _WATCHERS += more
        if more > 0 and not _PATCHED:
            for register in (
                torch.nn.modules.module.register_module_parameter_registration_hook,
                torch.nn.modules.module.register_module_buffer_registration_hook,
                torch.nn.modules.module.register_module_module_registration_hook,
            ):
                register(_tell_of_change)
        if more > 0 and _WATCHERS == 1:
            for name in _METHODS:
                own = getattr(nn.Module, name)
                _PATCHED[name] = own, _told_of(own)
                setattr(nn.Module, name, _PATCHED[name][1])
        elif _WATCHERS == 0:
            for name, (own, told) in _PATCHED.items():
                if getattr(nn.Module, name) is told:  # else somebody else has put theirs around it meanwhile
                    setattr(nn.Module, name, own)


def _told_of(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def told(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        watched = _WATCHED.get()
        if watched is not None:
            watched[0](self)
        return method(self, *args, **kwargs)

    return told


def _tell_of_change(module: nn.Module, name: str, value: object) -> None:
    watched = _WATCHED.get()
    if watched is not None:
        watched[1](module, name)


class MovableModule(nn.Module, ABC):
    """A module that is told when its tensors may have been replaced: by `.to()`, `.half()`, `.cuda()` and the like."""

    @abstractmethod
    def moved(self) -> None:
        """Its tensors, and those of all modules in it, may be others now."""

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch's
        self.moved()
        return self


def apply_to(module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Replaces all tensors of a module by what a function makes of them, as `.to()` does."""
    module._apply(function)


def apply_along(module: nn.Module, move: Callable[[Callable[[Tensor], Tensor]], None]) -> None:
    """Lets tensors that are in no module go wherever one goes; copies of the module leave them where they are.

    Args:
        module: which `.to()`, `.half()`, `.cuda()` and the like move or convert.
        move: is given the function of a tensor that its own are given.
    """
    module.__dict__["_apply"] = _AppliedAlong(module, move)


@final
class _AppliedAlong:
    """What applies a function to the tensors of a module."""

    def __init__(self, module: nn.Module, move: Callable[[Callable[[Tensor], Tensor]], None]) -> None:
        self._module, self._move = module, move

    def __call__(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        self._move(fn)
        applied: nn.Module = type(self._module)._apply(self._module, fn, *args, **kwargs)
        return applied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = copy.deepcopy(self._module, memo)
        return MethodType(type(copied)._apply, copied)


# Tensors.

version_of: Callable[[Tensor], int] = attrgetter("_version")
"""How often it has been written into."""
copy_each = torch._foreach_copy_
"""`copy_` for the tensors of one list from those of another, in few kernels."""
add_to_each = torch._foreach_add_
"""`add_` to the tensors of a list."""
scale_each = torch._foreach_mul_
"""`mul_` of the tensors of a list by a number."""
zero_each = torch._foreach_zero_
"""`zero_` of the tensors of a list."""
schema_of: Callable[[Any], Any] = attrgetter("_schema")
"""What an operation takes, writes into and yields."""
move_each_toward: Callable[[list[Tensor], list[Tensor], float], object] = torch._foreach_lerp_
"""`lerp_` of the tensors of one list toward those of another."""
flatten_each: Callable[[Sequence[Tensor]], Tensor] = torch._utils._flatten_dense_tensors
"""The numbers of contiguous tensors, one behind the other, in one launch."""
storage_key: Callable[[torch.UntypedStorage], int] = attrgetter("_cdata")
"""A number that no other storage has while this one lives; there are no addresses on the meta device."""


@final
class FakeTensors:
    """Tensors with shapes, dtypes and a device but no numbers; unlike those on the meta device they mix with others."""

    def __init__(self) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    def like(self, tensor: Tensor) -> Tensor:
        """One of the same shape and dtype, which says that it is on the CPU."""
        with self._mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, all operations make such tensors."""
        log = logging.getLogger("torch._subclasses.fake_tensor")  # It tells of each error that is raised anyway.
        before, log.disabled = log.disabled, True
        try:
            with self._mode:
                yield
        finally:
            log.disabled = before


def has_numbers(tensor: Tensor) -> bool:
    """Whether somebody could read them."""
    from torch._subclasses.fake_tensor import FakeTensor

    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def yields_new_tensors(func: torch._ops.OpOverload) -> bool:
    """Whether an operation writes into nothing and returns no views, as far as it says so."""
    return not func._schema.is_mutable and all(found.alias_info is None for found in func._schema.returns)


def writes_into_first(func: torch._ops.OpOverload) -> bool:
    """Whether an operation writes into its first argument, into nothing else, and returns it."""
    writing = [found.alias_info is not None and found.alias_info.is_write for found in func._schema.arguments]
    return sum(writing) == 1 and writing[0] and len(func._schema.returns) == 1


def can_decompose(func: torch._ops.OpOverload) -> bool:
    """Whether an operation is made of simpler ones."""
    return func._can_decompose()


# Data loaders.


def running_iterator(loader: torch.utils.data.DataLoader[Any]) -> object:
    """The iterator that a loader with persistent workers holds on to; None where it has not begun."""
    return loader._iterator
