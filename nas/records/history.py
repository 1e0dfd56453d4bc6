"""The trials of an experiment in memory and in its ledger, in step; and the strategy's life through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, final

from nas.domains import Sample, sample_key
from nas.errors import NasError
from nas.execution import Outcome
from nas.protocols import Objectives, Strategy, Task, Trial, TrialState, comparable
from nas.records.ledger import Ledger
from nas.records.notes import Notes, Queued
from nas.records.record import Record
from nas.records.trial_folder import folder_of
from nas.space import SearchSpace

T = TypeVar("T")


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
        grow: is asked, for each sample of a trial that has ended, whether the space is known better now, and returns
            the better one or None. The strategy then begins anew, and lives through all that has happened in that
            space; so it comes to the same whenever the search is gone on with.
        path: the experiment's folder, where each trial has its own.
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
        grow: Callable[[Sample], SearchSpace | None] = lambda sample: None,
        path: Path | None = None,
    ) -> None:
        self._ledger, self._space, self._strategy, self._objectives = ledger, space, strategy, objectives
        self._seed, self._max_trials, self._grow = seed, max_trials, grow
        self._path = path
        self._told: list[Trial] = []
        self.trials: dict[int, Trial] = {}
        self.running: set[int] = set()
        """The numbers of those that have not finished, other processes' included."""
        self.taken_over: set[int] = set()
        """The numbers of those that have run before, until they paused or their process was killed."""
        self.inputs: list[dict[str, Any]] = []
        """Shape and dtype of each tensor that the first model was called with."""
        self.finished = 0
        self.leaders: list[Trial] = []
        """The best trial, or the front of several objectives."""
        self._begun, self._ended, self._succeeded = (Counter[int | None]() for _ in range(3))
        self._complete: dict[tuple[int | None, str], Trial] = {}
        self._known: set[int] = set()
        self._queue: list[Queued] = []
        self._again: set[int] = set()
        self._taken = 0
        self._start()
        self._refresh()

    def _start(self) -> None:
        directions = self._objectives.directions
        task = Task(space=self._space, directions=directions, seed=self._seed, max_trials=self._max_trials)
        self._strategy.start(task)

    def in_turn(self, action: Callable[[], T]) -> T:
        """Does something to the ledger as it is now, and no other process comes between.

        Args:
            action: is done again, on what is there then, where a database took the turn away before it had written.

        Returns:
            What it returned.
        """

        def refreshed() -> T:
            if self._ledger.sharing.is_shared:
                self._refresh()
            return action()

        return self._ledger.sharing.in_turn(refreshed)

    def look(self) -> Notes:
        """Takes note of the samples that others have put in the queue meanwhile.

        Returns:
            What else they have asked for.
        """
        notes = self._ledger.notes()
        self._queue = notes.queue
        return notes

    def _refresh(self) -> None:
        """Lives through what the ledger holds and this history does not, in the order in which it happened."""
        self.look()
        records = self._ledger.read(self._known)
        outcomes = sorted((r for r in records if r.trial.state.is_finished), key=lambda r: (r.order, r.trial.number))
        for record in sorted(records, key=lambda r: r.trial.number):
            if record.trial.number in self.trials:
                continue
            while outcomes and outcomes[0].order < record.told:
                self._end(outcomes.pop(0))
            if record.place is not None:
                self._taken = max(self._taken, record.place + 1)
            if record.again:
                self._again.add(record.trial.number)
            trial = record.trial
            proposed, steps = record.proposed, trial.supernet_steps
            self._take(Trial(number=trial.number, sample=proposed, seed=trial.seed, supernet_steps=steps))
        for record in outcomes:
            self._end(record)

    def _end(self, record: Record) -> None:
        self.inputs = self.inputs or record.inputs
        self._take(record.trial)

    def _take(self, trial: Trial) -> None:
        if self._path is not None:
            trial = replace(trial, directory=folder_of(self._path, trial.number))
        self._begun[trial.supernet_steps] += trial.number not in self.trials
        self.trials[trial.number] = trial
        if trial.state.is_finished:
            self.running.discard(trial.number)
            self._known.add(trial.number)
            self.finished += 1
            self._ended[trial.supernet_steps] += 1
            self._note(trial)
        else:
            self.running.add(trial.number)
        if not self._is_told(trial):
            return
        self._told.append(trial)
        grown = self._grow(trial.sample) if trial.state.is_finished else None
        if grown is None:
            self._tell(trial)
            return
        self._space = grown
        self._start()
        for earlier in self._told:
            self._tell(earlier)

    def _tell(self, trial: Trial) -> None:
        """Tells the strategy; where the space has grown since a sample was proposed, that has the defaults too."""
        whole = trial.sample if self._space.exact else self._space.extend(trial.sample)
        self._strategy.tell(replace(trial, sample=whole))

    def _is_told(self, trial: Trial) -> bool:
        """Whether the strategy is to know: trials of another space, from before a change, mean nothing to it."""
        if not self._ledger.header.get("changes"):
            return True
        try:
            self._space.validate({label: a for label, a in trial.sample.items() if label in self._space.domains})
        except NasError:
            return False
        return True

    @property
    def upcoming(self) -> Sample | None:
        """What stands first in the queue."""
        return self._queue[self._taken].sample if self._taken < len(self._queue) else None

    def _retried(self) -> int:
        """How many trials have another one, begun or in the queue, in their place."""
        places = [queued.instead_of for queued in self._queue]
        return sum(n in self.trials and self.trials[n].supernet_steps == self._steps for n in places if n is not None)

    @property
    def _steps(self) -> int | None:
        """Of the supernet that judges now."""
        shared = self._strategy.shared_training
        return None if shared is None else shared.steps

    @property
    def begun(self) -> int:
        """How many trials there are.

        Those are left out that a supernet judged which has been trained on since, and those that are tried again.
        """
        return self._begun[self._steps] - self._retried()

    @property
    def ended(self) -> int:
        """How many of these have finished."""
        return self._ended[self._steps] - self._retried()

    @property
    def complete(self) -> int:
        """How many are COMPLETE."""
        return self._succeeded[self._steps]

    def is_outdated(self, trial: Trial) -> bool:
        """Whether the supernet has been trained on since a trial was begun."""
        return trial.supernet_steps != self._steps

    def known(self, trial: Trial) -> Trial | None:
        """The first COMPLETE trial of the very sample of another, by the same judge; None of one that is to be run."""
        return None if trial.number in self._again else self._complete.get((self._steps, sample_key(trial.sample)))

    def begin(self, sample: Sample, seed: int, *, queued: bool = False) -> Trial:
        """Writes a new trial down, before it runs; `queued` where its sample is the `upcoming` one."""
        place = self._taken if queued else None
        steps, again = self._steps, queued and self._queue[self._taken].again
        number = self._ledger.start(
            sample, self._space, seed=seed, told=self.finished, place=place, supernet_steps=steps, again=again
        )
        if again:
            self._again.add(number)
        self._taken += queued
        self._take(Trial(number=number, sample=sample, seed=seed, supernet_steps=steps))
        return self.trials[number]

    def adopt(self, paused: Collection[int] = ()) -> Trial | None:
        """A trial that nobody runs, because its process was killed: from now on it is this process's.

        Args:
            paused: the numbers of those that nobody is to run yet.
        """
        orphans = [number for number in self._ledger.orphans(self.running) if number not in paused]
        return self.take(orphans[0]) if orphans else None

    def take(self, number: int) -> Trial:
        """A trial that nobody runs: from now on it is this process's."""
        self._ledger.claim(number)
        self.taken_over.add(number)
        return self.trials[number]

    def finish(self, number: int, outcome: Outcome) -> Trial:
        """Writes the outcome of a trial down, unless another process, thinking that this one was dead, has done it."""
        if self.trials[number].state.is_finished:
            self._ledger.release(number)
            return self.trials[number]
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
            supernet_steps=self.trials[number].supernet_steps,
        )
        self._ledger.finish(trial, order=self.finished, inputs=[] if self.inputs else outcome.inputs)
        self.inputs = self.inputs or outcome.inputs
        self._take(trial)
        return self.trials[number]

    def _note(self, trial: Trial) -> None:
        if trial.state is not TrialState.COMPLETE:
            return
        self._complete.setdefault((trial.supernet_steps, sample_key(trial.sample)), trial)
        self._succeeded[trial.supernet_steps] += 1
        leaders = self._objectives.pareto_front(comparable([*self.leaders, trial]))
        self.leaders = leaders if len(self._objectives.names) > 1 else leaders[:1]
