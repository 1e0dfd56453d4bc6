"""Private names of Optuna that classes of ours are built on; imports Optuna."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from optuna.pruners import HyperbandPruner
from optuna.storages.journal._file import BaseJournalFileLock as JournalFileLock
from optuna.storages.journal._storage import JournalOperation

from nas._compat.changed import changed

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["FilledInTurn", "JournalFileLock", "JournalOperation"]


@final
class FilledInTurn(HyperbandPruner):
    """Optuna's Hyperband with brackets of exactly the published sizes; Optuna draws the bracket of each trial.

    Args:
        min_resource, max_resource, reduction_factor: as for `HyperbandPruner`.
        brackets: how many. Optuna finds their number by a logarithm of floats, which is one too low for 243 and 3.
        bracket_of: of the trial with a number.

    Raises:
        ExperimentError: this Optuna's Hyperband asks for brackets in another way, and would draw them.
    """

    def __init__(
        self,
        *,
        min_resource: int,
        max_resource: int,
        reduction_factor: int,
        brackets: int,
        bracket_of: Callable[[int], int],
    ) -> None:
        super().__init__(min_resource=min_resource, max_resource=max_resource, reduction_factor=reduction_factor)
        if "_n_brackets" not in vars(self) or not hasattr(HyperbandPruner, "_get_bracket_id"):
            raise _drawn()
        self._n_brackets = brackets
        self._bracket_of = bracket_of
        self._asked = 0

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to stop.

        Raises:
            ExperimentError: Optuna drew the bracket.
        """
        before = self._asked
        stop = super().prune(study, trial)
        if self._asked == before or len(self._pruners) != self._n_brackets:
            raise _drawn()
        return stop

    def _get_bracket_id(self, study: Study, trial: FrozenTrial) -> int:
        self._asked += 1
        return self._bracket_of(trial.number)


def _drawn() -> Exception:
    return changed(
        "optuna", "HyperbandPruner._get_bracket_id", purpose="the brackets of Hyperband have their published sizes"
    )
