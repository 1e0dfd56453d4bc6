"""Optuna pruners that `early_stopping.py` puts together; imports Optuna, so it is imported when they are made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from optuna.pruners import BasePruner
from optuna.study import StudyDirection

from nas.protocols.resources import arrival

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


@final
class ByResource(BasePruner):
    """Tells a pruner what a trial has used, instead of the number of its step.

    Args:
        pruner: is asked.
        max_resource: where a trial ends of itself, and is not judged.
    """

    def __init__(self, pruner: BasePruner, *, max_resource: int | None = None) -> None:
        self._pruner, self._max_resource = pruner, max_resource

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to stop."""
        if not trial.intermediate_values:
            return False
        ahead = 1 if min(trial.intermediate_values) == 0 else 0
        used = max(trial.intermediate_values) + ahead
        if self._max_resource is not None and used >= self._max_resource:
            return False
        shifted = copy.copy(trial)
        shifted.intermediate_values = {step + ahead: value for step, value in trial.intermediate_values.items()}
        return self._pruner.prune(study, shifted)


@final
class AtRungs(BasePruner):
    """Lets the best share of those that came to a rung pass it; each trial has rungs of its own bracket, and no others.

    A report that comes past a rung, where none was made at it, is judged there.

    Args:
        bracket_of: of the trial with a number.
        rungs: for each bracket the resources at which its trials are judged, rising.
        factor: one in so many passes, and at least one.
    """

    def __init__(self, *, bracket_of: Callable[[int], int], rungs: Sequence[Sequence[int]], factor: int) -> None:
        self._bracket_of, self._rungs, self._factor = bracket_of, rungs, factor

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to stop."""
        if not trial.intermediate_values:
            return False
        latest = max(trial.intermediate_values)
        bracket = self._bracket_of(trial.number)
        reached = [rung for rung in self._rungs[bracket] if arrival(trial.intermediate_values, rung) == latest]
        if not reached:
            return False
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        others = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and self._bracket_of(other.number) == bracket
        ]
        value = sign * trial.intermediate_values[latest]
        for rung in reached:
            came = [(other, arrival(other.intermediate_values, rung)) for other in others]
            values = [sign * other.intermediate_values[step] for other, step in came if step is not None]
            passing = sorted([*values, value], reverse=True)[: max(1, (len(values) + 1) // self._factor)]
            if value < passing[-1]:
                return True
        return False


@final
class WithoutProgress(BasePruner):
    """Stops a trial when its last reports are no better than the best before them.

    Args:
        patience: how many reports.
        min_delta: by how much they must be better.
    """

    def __init__(self, *, patience: int, min_delta: float) -> None:
        self._patience, self._min_delta = patience, min_delta

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to stop."""
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        reports = [sign * value for _, value in sorted(trial.intermediate_values.items())]
        before, last = reports[: -self._patience], reports[-self._patience :]
        return bool(before) and max(last) <= max(before) + self._min_delta
