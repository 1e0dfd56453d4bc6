"""Modules without weights: a program run on the meta device, or where that cannot be, on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from nas.errors import NasError, NasTypeError, explain

H = TypeVar("H")


def without_weights(
    construct: Callable[[H, str], nn.Module],
    make: Callable[[], H],
    serves: Callable[[nn.Module], bool] | None = None,
) -> tuple[nn.Module, H, Literal["meta", "cpu"]]:
    """Constructs on the meta device; else once more on the CPU, with a fresh handler.

    The CPU's turn comes where the program fails on the meta device, since that has no numbers: a constructor that reads
    some (`torch.linspace(...).tolist()`, `weight.item()`, numpy on a parameter) is as good as any other. Whether that
    was the reason nobody can tell; an error of the program's own comes again on the CPU, and is raised as it is. What
    the choices refuse they would refuse there too, so a NasError is raised at once.

    Args:
        construct: `construct(handler, device)` runs the program.
        make: makes the handler that answers its choices; called again for the second run, since the first has used its
            handler.
        serves: whether the module that was built on the meta device will do; asked for nothing on the CPU.

    Returns:
        The module, the handler that has answered, and the device.

    Raises:
        NasError: a choice is refused.
        Exception: whatever the program raises on the CPU.
    """
    handler = make()
    try:
        module = construct(handler, "meta")
        if serves is None or serves(module):
            return module, handler, "meta"
    except NasError:
        raise
    except Exception:
        pass  # outside of this block, so that a second error does not show the first one as its cause
    handler = make()
    return construct(handler, "cpu"), handler, "cpu"


@final
class NoInitialisation(TorchFunctionMode):
    """Leaves parameters without numbers as they are, which saves a fifth of the time of a build."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:  # elsewhere somebody may read them
                return tensor
        return func(*args, **kwargs)


def copy_to_meta(model: nn.Module) -> nn.Module:
    """A copy on the meta device; nothing of the model is copied or touched, and no number is allocated.

    Raises:
        NasTypeError: it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for tensor in _tensors(vars(module)):
            memo.setdefault(id(tensor), _to_meta(tensor))
    try:
        return copy.deepcopy(model, memo)
    except NasError:
        raise
    except Exception as error:
        raise NasTypeError(
            explain(f"the module cannot be copied ({type(error).__name__}: {error})", got=type(model).__name__)
        ) from error


def _tensors(attributes: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors of a module: parameters, buffers and plain attributes, also in lists, tuples and dicts."""
    for value in attributes.values():
        if isinstance(value, Tensor):
            yield value
        elif type(value) is dict:
            yield from _tensors({str(i): item for i, item in enumerate(value.values())})
        elif type(value) in (list, tuple):
            yield from _tensors({str(i): item for i, item in enumerate(value)})


def _to_meta(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        kind: Any = type(tensor)
        return kind(requires_grad=tensor.requires_grad, device="meta", dtype=tensor.dtype)  # type: ignore[no-any-return]
    empty = torch.empty_like(tensor.detach(), device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
