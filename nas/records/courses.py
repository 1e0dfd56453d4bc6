"""How far trials have come that pause on their way, as the ledger knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from nas._compat.optuna_internals import id_in_storage
from nas.records.attributes import PASSED, PAUSE, refuse_damaged
from nas.records.retry import patiently

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


@final
@dataclass(frozen=True, kw_only=True)
class Course:
    """How far one trial has come."""

    reports: Mapping[int, float]
    """step -> value, of all its runs."""
    passed: int
    """How many rungs it has been let pass."""
    pause: Mapping[str, Any] | None
    """What was known of it when it paused for the last time; None where it has not yet."""
    is_running: bool
    """Whether it has not ended: it runs, or is paused."""

    def whole(self, reports: Mapping[int, float]) -> dict[int, float]:
        """The reports of its latest run, and of earlier ones those before the first of them.

        So the curve of a trial that went on from a checkpoint is whole; one that began anew has no earlier ones.
        """
        first = min(reports, default=None)
        earlier = {step: value for step, value in self.reports.items() if first is not None and step < first}
        return {**earlier, **reports}

    @property
    def is_paused(self) -> bool:
        """Whether it waits at a rung."""
        return self.is_running and self.pause is not None and bool(self.pause["rung"] == self.passed)


@final
class Courses:
    """The courses of an experiment's trials.

    Args:
        storage: of the ledger.
        study_id: of it.
        place: where it is, for messages.
    """

    def __init__(self, storage: BaseStorage, study_id: int, place: str = "") -> None:
        self._storage, self._study_id, self._place = storage, study_id, place

    def read(self) -> dict[int, Course]:
        """By the number of the trial."""
        return {frozen.number: self._course(frozen) for frozen in self._frozen()}

    def of(self, number: int) -> Course:
        """That of one trial."""
        return self._course(self._one(number))

    def pause(self, number: int, rung: int, known: Mapping[str, Any]) -> None:
        """Writes down that a trial waits at a rung.

        Args:
            number: of the trial.
            rung: 0 for its first.
            known: of it, as JSON.
        """
        self._write(number, PAUSE, {**known, "rung": rung})

    def wake(self, number: int) -> None:
        """Writes down that a trial does not wait any more, though it has been let pass no rung."""
        pause = self.of(number).pause
        assert pause is not None
        self._write(number, PAUSE, {**pause, "rung": None})

    def let_pass(self, number: int, passed: int) -> None:
        """Writes down how many rungs a trial has been let pass."""
        self._write(number, PASSED, passed)

    def _write(self, number: int, key: str, value: Any) -> None:
        trial_id = id_in_storage(self._one(number))
        patiently(lambda: self._storage.set_trial_user_attr(trial_id, key, value))

    def _one(self, number: int) -> FrozenTrial:
        return next(frozen for frozen in self._frozen() if frozen.number == number)

    def _frozen(self) -> list[FrozenTrial]:
        return patiently(lambda: self._storage.get_all_trials(self._study_id, deepcopy=False))

    def _course(self, frozen: FrozenTrial) -> Course:
        refuse_damaged(frozen.user_attrs, (PASSED, PAUSE), f"{self._place}, trial {frozen.number}")
        return Course(
            reports=frozen.intermediate_values,
            passed=frozen.user_attrs.get(PASSED, 0),
            pause=frozen.user_attrs.get(PAUSE),
            is_running=not frozen.state.is_finished(),
        )
