"""What a LightningModule's `configure_optimizers` returns, in one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nas.errors import NasTypeError, NasValueError, explain


@final
@dataclass(kw_only=True)
class Schedule:
    """A learning rate scheduler, and when it is stepped."""

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1
    monitor: str | None = None

    def step(self, metrics: Mapping[str, Any] | None) -> None:
        """One step of the scheduler; a plateau one is given its metric."""
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
            return
        name = self.monitor
        if name is None or metrics is None or name not in metrics:
            raise NasValueError(
                explain(
                    "a scheduler of plateaus needs a logged metric to monitor", got=name, where="configure_optimizers"
                )
            )
        self.scheduler.step(metrics[name])


@final
@dataclass(kw_only=True)
class Optimization:
    """The optimizers of the weights and their schedulers."""

    optimizers: list[Optimizer] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)


def read_optimization(configured: Any) -> Optimization:
    """Reads what Lightning allows: an optimizer, a list, a pair of lists, a dict, or a list of dicts.

    Raises:
        NasTypeError: something else.
    """
    plan = Optimization()
    if isinstance(configured, tuple) and len(configured) == 2 and all(isinstance(p, list | tuple) for p in configured):
        plan.optimizers = list(configured[0])
        plan.schedules = [_schedule(item) for item in configured[1]]
    else:
        for item in configured if isinstance(configured, list | tuple) else [configured]:
            if isinstance(item, Mapping):
                plan.optimizers.append(item["optimizer"])
                if "lr_scheduler" in item:
                    plan.schedules.append(_schedule(item["lr_scheduler"]))
            else:
                plan.optimizers.append(item)
    if not plan.optimizers or not all(isinstance(optimizer, Optimizer) for optimizer in plan.optimizers):
        raise NasTypeError(explain("configure_optimizers must return at least one torch optimizer", got=configured))
    return plan


def _schedule(item: Any) -> Schedule:
    if not isinstance(item, Mapping):
        return Schedule(scheduler=item)
    known = {name: item[name] for name in ("scheduler", "interval", "frequency", "monitor") if name in item}
    return Schedule(**known)
