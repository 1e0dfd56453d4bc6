"""Workers that take one trial after the other and are replaced when they die, whatever they are and however reached."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar, final

from nas.execution.log import quote_log
from nas.execution.trial_run import Assignment, Outcome

_GLANCE = 0.25
"""Seconds between two looks at what happens while trials run."""
_TRIES = 3
"""So many workers may die before they come to a trial at all."""


@final
@dataclass(frozen=True, kw_only=True)
class Begun:
    """A worker says: the trial begins; all before was the worker's own beginning."""


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """A worker says: an intermediate result, which waits for whether to stop."""

    step: int
    value: float


@final
@dataclass(frozen=True, kw_only=True)
class Done:
    """A worker says: the trial has ended by itself."""

    outcome: Outcome


@final
@dataclass(frozen=True, kw_only=True)
class Gone:
    """A worker says no more: it has died."""

    innocent: bool = False
    """Whether its trial has certainly nothing to do with that, as when a whole machine is lost."""


Word: TypeAlias = Begun | Report | Done | Gone


class Line(ABC):
    """A live worker, and the way to it; the one that replaces it gets another line."""

    @property
    @abstractmethod
    def noun(self) -> str:
        """What the worker is, for errors."""

    @property
    @abstractmethod
    def is_starved(self) -> bool:
        """Whether it has waited so long for a place that there seems to be none, so that an idle worker helps out."""

    @abstractmethod
    def send(self, assignment: Assignment) -> bool:
        """Hands over a trial.

        Returns:
            Whether it begins at once; else the worker says `Begun`.

        Raises:
            OSError: the worker has died while it was idle.
        """

    @abstractmethod
    def answer(self, stop: bool) -> None:
        """Answers the last report.

        Raises:
            OSError: the worker has died meanwhile.
        """

    @abstractmethod
    def cause(self) -> str:
        """What it died of, once it is gone, in words that follow its noun."""

    def limit(self, number: int, seconds: float | None) -> bool:
        """Tells the worker that a trial has another time limit, counted from its beginning too.

        Returns:
            Whether it could be told; where not, it goes on with the limit that it was sent with.
        """
        return False

    def dismiss(self) -> None:  # noqa: B027 - some have nothing to do
        """Tells an idle worker that it gets no more trials, and waits for a moment; where that is no use, nothing."""

    @abstractmethod
    def end(self) -> None:
        """Kills the worker and its children, whatever they do."""


L = TypeVar("L", bound=Line)


@final
class Worker(Generic[L]):
    """One place for trials: idle; or with a trial that is sent or has begun; its worker is replaced when it dies.

    Args:
        start: makes a worker.
        limit: seconds for a trial; None for as long as it takes.
        grace: seconds that it may go on after them before its worker is killed.
        environment: what a worker finds in its environment that this process has not.
    """

    def __init__(
        self,
        start: Callable[[], L],
        *,
        limit: float | None,
        grace: float,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._start, self._limit, self._grace, self._environment = start, limit, grace, environment
        self._is_told = True
        """Whether its worker knows the limit of its trial; else there is no grace, for it does not end by itself."""
        self._is_outdated = False
        """Whether its worker is to be replaced when its trial has ended."""
        self.line: L | None = None
        """To its worker, where there is one."""
        self.assignment: Assignment | None = None
        """What it works on."""
        self._began: float | None = None
        self._tries = 0
        self._curve: dict[int, float] = {}

    @property
    def is_warm(self) -> bool:
        """Whether it has a worker and no trial for it."""
        return self.assignment is None and self.line is not None

    @property
    def is_starved(self) -> bool:
        """Whether its trial waits for a worker that finds no place."""
        return self.assignment is not None and self.line is not None and self.line.is_starved

    @property
    def deadline(self) -> float | None:
        """Of `time.monotonic()`: when its trial has gone on too long after its time."""
        if self._began is None or self._limit is None:
            return None
        return self._began + self._limit + (self._grace if self._is_told else 0.0)

    @property
    def devices(self) -> str | None:
        """The GPUs that its worker sees, where they are its own."""
        return self._environment.get("CUDA_VISIBLE_DEVICES")

    def limit(self, seconds: float | None) -> None:
        """Gives its trials another limit, the one that runs too."""
        self._limit = seconds
        if self.assignment is not None and self.line is not None:
            self._is_told = self.line.limit(self.assignment.number, seconds)

    def become(self, other: Worker[L]) -> None:
        """From now on it starts its workers as another place does; one that it has is kept if it is of that kind."""
        self._start = other._start
        if dict(self._environment) != dict(other._environment):
            self._environment, self._is_outdated = other._environment, True
            if self.is_warm:
                self.close()

    def assign(self, assignment: Assignment) -> None:
        """Hands it a trial."""
        self.assignment, self._tries = assignment, 0
        self._send()

    def _send(self) -> None:
        assert self.assignment is not None
        self._curve = {}
        limit = math.inf if self._limit is None else self._limit
        sent, self._is_told = replace(self.assignment, on_report=None, max_trial_time=limit), True
        while True:
            if self.line is None:
                self._tries += 1
                self.line = self._start()
            try:
                begins = self.line.send(sent)
            except OSError:
                self._stop()
                if self._tries >= _TRIES:
                    raise
            else:
                self._began = time.monotonic() if begins else None
                return

    def hear(self, word: Word) -> Outcome | None:
        """Takes what its worker says; the outcome, where that ends the trial."""
        assert self.assignment is not None
        if isinstance(word, Done):
            self.assignment = self._began = None
            if self._is_outdated:
                self.close()
            return word.outcome
        if isinstance(word, Gone):
            return self._died(innocent=word.innocent)
        if isinstance(word, Begun):
            if self._began is not None:  # The pool itself has begun it anew, on another machine, say.
                self._curve = {}
            self._began = time.monotonic()
            return None
        return self._reported(word)

    def _reported(self, report: Report) -> Outcome | None:
        assert self.assignment is not None
        assert self.line is not None
        self._curve[report.step] = report.value
        asked = self.assignment.on_report
        stop = asked is not None and asked(report.step, report.value)
        try:
            self.line.answer(stop)
        except OSError:
            return self._died(innocent=False)
        return None

    def end_overdue(self) -> Outcome:
        """Kills the worker: its trial has not ended at its time."""
        assert self.line is not None
        more = f" and did not end within {self._grace:g} s more;" if self._is_told else ""
        return self._fail(
            f"TrialTimeout: the trial ran longer than max_trial_time, {self._limit:g} s,{more} its {self.line.noun} "
            "was killed"
        )

    def kill(self, why: str) -> Outcome:
        """Kills the worker with its trial."""
        return self._fail(f"TrialKilled: {why}")

    def _died(self, *, innocent: bool) -> Outcome | None:
        """The outcome of a trial whose worker has died; none where it is run again."""
        assert self.line is not None
        if innocent or (self._began is None and self._tries < _TRIES):
            self._stop()
            self._send()
            return None
        return self._fail(f"WorkerDied: the {self.line.noun} of this trial {self.line.cause()}")

    def _fail(self, error: str) -> Outcome:
        assert self.assignment is not None
        duration = 0.0 if self._began is None else time.monotonic() - self._began
        assignment, curve = self.assignment, self._curve
        self.close()
        return assignment.failed(quote_log(assignment.directory) + error, duration=duration, curve=curve)

    def _stop(self) -> None:
        line, self.line = self.line, None
        self._began = None
        self._is_outdated = False
        if line is not None:
            line.end()

    def close(self) -> None:
        """Ends its worker: at once where it has a trial, else in good order."""
        if self.line is not None and self.assignment is None:
            self.line.dismiss()
        self._stop()
        self.assignment = None


@final
class Crew(Generic[L]):
    """The workers of an executor.

    Args:
        workers: so many trials at a time.
        listen: waits, at most for the seconds given (None: as long as it takes), until one or more of the lines given
            have a word, and yields each with its line. What is not asked of it any more must not be lost.
    """

    def __init__(
        self, workers: list[Worker[L]], listen: Callable[[list[L], float | None], Iterable[tuple[L, Word]]]
    ) -> None:
        self._workers, self._listen = workers, listen
        self._leaving: list[Worker[L]] = []
        """Those for which there is no place any more, once their trials have ended."""
        self._ended: deque[tuple[int, Outcome]] = deque()
        """What has come of trials that were killed."""
        self._next_look = 0.0

    @property
    def _busy(self) -> list[Worker[L]]:
        return [worker for worker in (*self._workers, *self._leaving) if worker.assignment is not None]

    def submit(self, assignment: Assignment) -> None:
        """Hands a trial to an idle worker, one with a live process if there is one."""
        idle = [worker for worker in self._workers if worker.assignment is None]
        assert idle, "no more trials than the concurrency that was started with"
        max(idle, key=lambda worker: worker.is_warm).assign(assignment)

    def collect(self) -> tuple[int, Outcome]:
        """Waits for a trial to end; meanwhile it answers reports, and kills what is overdue."""
        found = self.attend(None)
        assert found is not None, "nobody looks"
        return found

    def attend(self, look: Callable[[], bool] | None) -> tuple[int, Outcome] | None:
        """Waits for a trial to end, as `Executor.attend` says.

        Args:
            look: None for nobody who looks.
        """
        while True:
            if look is not None and time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + _GLANCE
                if look():
                    return None
            if self._ended:
                return self._ended.popleft()
            found = self._listened(None if look is None else _GLANCE)
            for gone in [worker for worker in self._leaving if worker.assignment is None]:
                gone.close()
                self._leaving.remove(gone)
            if found is not None:
                return found

    def _listened(self, patience: float | None) -> tuple[int, Outcome] | None:
        """Waits for a word, so many seconds at most; the outcome, where it ends a trial."""
        self._feed_the_starved()
        busy = {worker.line: worker for worker in self._busy}
        assert busy, "submit comes before collect"
        ends = [worker.deadline - time.monotonic() for worker in busy.values() if worker.deadline is not None]
        timeout = min((max(0.0, left) for left in (*ends, *([] if patience is None else [patience]))), default=None)
        for line, word in self._listen([line for line in busy if line is not None], timeout):
            worker = busy[line]
            if worker.line is not line or worker.assignment is None:
                continue  # The last words of a worker that has been replaced must not end the trial of another.
            number, outcome = worker.assignment.number, worker.hear(word)
            if outcome is not None:
                self._feed_the_starved()
                return number, outcome
        for worker in busy.values():
            if worker.assignment is not None and worker.deadline is not None:
                number = worker.assignment.number
                if time.monotonic() > worker.deadline:
                    return number, worker.end_overdue()
        return None

    def kill(self, number: int, why: str) -> None:
        """Kills the worker that has a trial, so that it is FAILED."""
        for worker in self._busy:
            if worker.assignment is not None and worker.assignment.number == number:
                self._ended.append((number, worker.kill(why)))

    def limit(self, seconds: float | None) -> None:
        """Gives all trials another time limit."""
        for worker in (*self._workers, *self._leaving):
            worker.limit(seconds)

    def resize(self, workers: list[Worker[L]]) -> None:
        """Makes other places: trials that run go on, where their GPUs are those of a new place in that one.

        Args:
            workers: the new places.
        """
        new, kept = list(workers), []
        for old in sorted(self._workers, key=lambda worker: worker.assignment is None):
            twin = next((worker for worker in new if worker.devices == old.devices), None)
            if twin is not None:
                new.remove(twin)
                old.become(twin)
                kept.append(old)
            elif old.assignment is not None:
                self._leaving.append(old)
            else:
                old.close()
        self._workers = [*kept, *new]

    def _feed_the_starved(self) -> None:
        """Gives trials that wait for a place, as after the loss of a machine, to workers that keep theirs idle."""
        for starved in [worker for worker in self._workers if worker.is_starved]:
            warm = next((worker for worker in self._workers if worker.is_warm), None)
            if warm is None:
                return
            assignment = starved.assignment
            assert assignment is not None
            starved.close()
            warm.assign(assignment)

    def close(self) -> None:
        """Ends all workers at once."""
        for worker in (*self._workers, *self._leaving):
            worker.close()
