"""The trials of an experiment in memory and in its ledger, in step; and the strategy's life through them."""

from __future__ import annotations

from typing import Any, final

from nas.execution import Outcome
from nas.objectives import Objectives
from nas.samples import Sample, sample_key
from nas.search_space import SearchSpace
from nas.storage import Ledger, Record
from nas.strategy import Strategy, Task
from nas.trial import Trial, TrialState


@final
class History:
    """What has happened, told to the strategy event by event.

    Args:
        ledger: where it is kept; what it holds already is read.
        space: of the samples.
        strategy: is started anew, and lives through the events in their order.
        objectives: of the search.
        seed: the experiment's.
        max_trials: of the search, where it is known.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        space: SearchSpace,
        strategy: Strategy,
        objectives: Objectives,
        seed: int,
        max_trials: int | None = None,
    ) -> None:
        self._ledger, self._space, self._strategy, self._objectives = ledger, space, strategy, objectives
        records = ledger.read()
        self.trials: dict[int, Trial] = {record.trial.number: record.trial for record in records}
        self.inputs: list[dict[str, Any]] = next((record.inputs for record in records if record.inputs), [])
        """Shape and dtype of each tensor that the first model was called with."""
        self.finished = sum(trial.state.is_finished for trial in self.trials.values())
        self.best: Trial | None = None
        """The leader, for a single objective."""
        self._complete: dict[str, Trial] = {}
        for trial in self.trials.values():
            self._note(trial)
        self._queue = ledger.read_queue()
        self._taken = 1 + max((record.place for record in records if record.place is not None), default=-1)
        strategy.start(Task(space=space, directions=objectives.directions, seed=seed, max_trials=max_trials))
        self._relive(records)

    def _relive(self, records: list[Record]) -> None:
        outcomes = sorted((r for r in records if r.trial.state.is_finished), key=lambda r: r.order)
        for record in records:
            while outcomes and outcomes[0].order < record.told:
                self._strategy.tell(outcomes.pop(0).trial)
            self._strategy.tell(Trial(number=record.trial.number, sample=record.proposed, seed=record.trial.seed))
        for record in outcomes:
            self._strategy.tell(record.trial)

    @property
    def upcoming(self) -> Sample | None:
        """What stands first in the queue."""
        return self._queue[self._taken] if self._taken < len(self._queue) else None

    def enqueue(self, sample: Sample) -> bool:
        """Puts a sample at the end of the queue, unless it has been there, or in a trial, before.

        Returns:
            Whether it was new.
        """
        known = {sample_key(s) for s in (*self._queue, *(trial.sample for trial in self.trials.values()))}
        if sample_key(sample) in known:
            return False
        self._queue.append(sample)
        self._ledger.write_queue(self._queue)
        return True

    def known(self, sample: Sample) -> Trial | None:
        """The first COMPLETE trial of this very sample."""
        return self._complete.get(sample_key(sample))

    def begin(self, sample: Sample, seed: int, *, queued: bool = False) -> Trial:
        """Writes a new trial down, before it runs; `queued` where its sample is the `upcoming` one."""
        place = self._taken if queued else None
        number = self._ledger.start(sample, self._space.domains, seed=seed, told=self.finished, place=place)
        self._taken += queued
        self.trials[number] = trial = Trial(number=number, sample=sample, seed=seed)
        self._strategy.tell(trial)
        return trial

    def finish(self, number: int, outcome: Outcome) -> Trial:
        """Writes the outcome of a trial down."""
        trial = Trial(
            number=number,
            sample=outcome.sample,
            state=outcome.state,
            values=outcome.values,
            metrics=outcome.metrics,
            repeats=outcome.repeats,
            intermediate=outcome.intermediate,
            duration=outcome.duration,
            error=outcome.error,
            seed=self.trials[number].seed,
            same_as=outcome.same_as,
        )
        self._ledger.finish(trial, order=self.finished, inputs=[] if self.inputs else outcome.inputs)
        self.inputs = self.inputs or outcome.inputs
        self.trials[number] = trial
        self.finished += 1
        self._note(trial)
        self._strategy.tell(trial)
        return trial

    def _note(self, trial: Trial) -> None:
        if trial.state is TrialState.COMPLETE:
            self._complete.setdefault(sample_key(trial.sample), trial)
        if len(self._objectives.names) == 1:
            rivals = [rival for rival in (self.best, trial) if rival is not None]
            self.best = next(iter(self._objectives.rank(rivals)), None)
