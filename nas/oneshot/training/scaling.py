"""Scaled losses of half precision where a step may have no gradient at all: a path of skips has no weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer


class _Patient(GradScaler):
    """Leaves out what has no gradients, where torch fails."""

    _has_stepped = False

    def unscale_(self, optimizer: Optimizer) -> None:
        """Takes the scale out of the gradients, where there are any."""
        if has_gradients(optimizer):
            super().unscale_(optimizer)

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """The optimizer's step, unless there is nothing to step by."""
        if not has_gradients(optimizer):
            return None
        self._has_stepped = True
        return super().step(optimizer, *args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Another scale, where an optimizer has made a step."""
        if self._has_stepped or new_scale is not None:
            super().update(new_scale)
        self._has_stepped = False


def make_patient(scaler: GradScaler) -> None:
    """Lets a scaler leave out the step of an optimizer none of whose parameters has a gradient."""
    kind = type(scaler)
    if not issubclass(kind, _Patient):
        scaler.__class__ = type(kind.__name__, (_Patient, kind), {})


def has_gradients(optimizer: Optimizer) -> bool:
    """Whether any parameter of an optimizer has one."""
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
