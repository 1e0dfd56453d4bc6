"""Workers that take one trial after the other and are replaced when they die, whatever they are and however reached."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias, TypeVar, final

from nas.execution.log import quote_log
from nas.execution.trial_run import Assignment, Outcome

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
    """

    def __init__(self, start: Callable[[], L], *, limit: float | None, grace: float) -> None:
        self._start, self._limit, self._grace = start, limit, grace
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
        return self._began + self._limit + self._grace

    def assign(self, assignment: Assignment) -> None:
        """Hands it a trial."""
        self.assignment, self._tries = assignment, 0
        self._send()

    def _send(self) -> None:
        assert self.assignment is not None
        self._curve = {}
        sent = replace(self.assignment, on_report=None)
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
            return word.outcome
        if isinstance(word, Gone):
            return self._died(innocent=word.innocent)
        if isinstance(word, Begun):
            if self._began is not None:  # The pool itself has begun it anew, on another machine, say.
                self._curve = {}
            self._began = time.monotonic()
            return None
        return self._reported(word.step, word.value)

    def _reported(self, step: int, value: float) -> Outcome | None:
        assert self.assignment is not None
        assert self.line is not None
        self._curve[step] = value
        stop = self.assignment.on_report is not None and self.assignment.on_report(step, value)
        try:
            self.line.answer(stop)
        except OSError:
            return self._died(innocent=False)
        return None

    def end_overdue(self) -> Outcome:
        """Kills the worker: its trial has not ended at its time."""
        assert self.line is not None
        return self._fail(
            f"TrialTimeout: the trial ran longer than max_trial_time, {self._limit:g} s, and did not end within "
            f"{self._grace:g} s more; its {self.line.noun} was killed"
        )

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

    def submit(self, assignment: Assignment) -> None:
        """Hands a trial to an idle worker, one with a live process if there is one."""
        idle = [worker for worker in self._workers if worker.assignment is None]
        assert idle, "no more trials than the concurrency that was started with"
        max(idle, key=lambda worker: worker.is_warm).assign(assignment)

    def collect(self) -> tuple[int, Outcome]:
        """Waits for a trial to end; meanwhile it answers reports, and kills what is overdue."""
        while True:
            self._feed_the_starved()
            busy = {worker.line: worker for worker in self._workers if worker.assignment is not None}
            assert busy, "submit comes before collect"
            ends = [worker.deadline for worker in busy.values() if worker.deadline is not None]
            timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
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
        for worker in self._workers:
            worker.close()
