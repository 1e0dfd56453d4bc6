"""Random operations of torch without their chance: what is drawn does not depend on how much is drawn."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@final
class SteadyDraws(TorchDispatchMode):
    """Inside, every noise is one and the same number, and no dropout drops anything.

    Two networks of which one draws noise for more channels than the other can be compared so. Draws of indices and
    what is drawn inside of larger operations (attention with dropout) stay by chance.

    Example:
        >>> with SteadyDraws():
        ...     one, two = torch.randn(3), torch.rand(2)
        >>> one, two
        (tensor([0.7500, 0.7500, 0.7500]), tensor([0.7500, 0.7500]))
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Runs an operation, and puts the number in the place of what it drew."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_")
        if name == "native_dropout":
            return args[0] * 1, torch.ones_like(args[0], dtype=torch.bool)
        found = func(*args, **kwargs)
        if name in _DRAWS and isinstance(found, Tensor):
            found.fill_(1.0 if name == "bernoulli" else 0.75)
        return found


_DRAWS = frozenset(
    {
        *("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal"),
        *("rand", "rand_like", "randn", "randn_like", "uniform"),
    }
)
"""Operations, and those in place of the same names, whose result is the noise."""
