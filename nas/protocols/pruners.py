"""Optuna pruners that `early_stopping.py` puts together; imports Optuna, so it is imported when they are made."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, final

from optuna.pruners import BasePruner
from optuna.study import StudyDirection

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
