"""What optimizers keep under private names: who listens to their steps, and what schedulers want to know of them."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer, optimizer


def has_step_hooks(given: Optimizer) -> bool:
    """Whether somebody is called before or after its steps."""
    return bool(
        given._optimizer_step_pre_hooks
        or given._optimizer_step_post_hooks
        or optimizer._global_optimizer_pre_hooks
        or optimizer._global_optimizer_post_hooks
    )


def mark_as_followed(step: Any) -> None:
    """Says of what stands for an optimizer's `step` that it tells schedulers of each step: they do not wrap it."""
    step._wrapped_by_lr_sched = True


def tell_schedulers(given: Optimizer) -> None:
    """A step was done: schedulers that are stepped before the first one warn."""
    given._opt_called = True  # type: ignore[attr-defined]
