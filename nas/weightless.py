"""Modules without weights: a program run on the meta device, or where that cannot be, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, final

from torch import nn
from torch.overrides import TorchFunctionMode

from nas.errors import NasError

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
