"""Private names of torch: the bases of its layers, the dicts of a module, versions of tensors, operations on lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.conv import _ConvNd as Convolution
from torch.nn.modules.conv import _ConvTransposeNd as TransposedConvolution
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = [
    "TENSOR_DICTS",
    "BatchNorm",
    "Convolution",
    "InstanceNorm",
    "MovableModule",
    "NormBase",
    "TorchDispatchMode",
    "TransposedConvolution",
    "TreeSpec",
    "add_to_each",
    "can_decompose",
    "children_of",
    "copy_each",
    "drop_hooks",
    "has_hooks",
    "inside_compiled",
    "is_compiled",
    "own_buffers",
    "own_parameters",
    "persists",
    "running_iterator",
    "storage_key",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "version_of",
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


def persists(module: nn.Module, buffer: str) -> bool:
    """Whether a buffer is in the state dict."""
    return buffer not in module._non_persistent_buffers_set


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to know when it is called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def drop_hooks(module: nn.Module) -> None:
    """Nobody is told any more when it is called."""
    for name in _HOOKS:
        getattr(module, name).clear()


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called."""
    return module._compiled_call_impl is not None


def inside_compiled(model: nn.Module) -> nn.Module:
    """The module that `torch.compile(module)` wraps; any other as it is."""
    return dict(model.named_children()).get("_orig_mod", model)


class MovableModule(nn.Module, ABC):
    """A module that is told when its tensors may have been replaced: by `.to()`, `.half()`, `.cuda()` and the like."""

    @abstractmethod
    def moved(self) -> None:
        """Its tensors, and those of all modules in it, may be others now."""

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch's
        self.moved()
        return self


# Tensors.

version_of: Callable[[Tensor], int] = attrgetter("_version")
"""How often it has been written into."""
copy_each = torch._foreach_copy_
"""`copy_` for the tensors of one list from those of another, in few kernels."""
add_to_each = torch._foreach_add_
"""`add_` to the tensors of a list."""
storage_key: Callable[[torch.UntypedStorage], int] = attrgetter("_cdata")
"""A number that no other storage has while this one lives; there are no addresses on the meta device."""


def can_decompose(func: torch._ops.OpOverload) -> bool:
    """Whether an operation is made of simpler ones."""
    return func._can_decompose()


# Data loaders.


def running_iterator(loader: torch.utils.data.DataLoader[Any]) -> object:
    """The iterator that a loader with persistent workers holds on to; None where it has not begun."""
    return loader._iterator
