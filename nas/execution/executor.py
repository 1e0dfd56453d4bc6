"""The protocol of executors, where trials run; and the plain one, which runs them in this process one by one."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Generic, final

from nas.calls import explained
from nas.execution.crew import Crew, L
from nas.execution.interruption import Interruption
from nas.execution.log import shown_and_logged
from nas.execution.trial_run import Assignment, Outcome, Plan, execute
from nas.protocols import Place
from nas.whole_process import generators_if_free

_GLANCE = 0.25
"""Seconds between two looks at what happens while a trial runs."""
_FAREWELL = 5.0


class Executor(ABC):
    """Runs trials: `start`, `submit` up to `concurrency` of them, `collect` outcomes as they come, and at last `close`.

    `nas.testing.ExecutorContract` checks all that an experiment relies on.
    """

    @property
    @abstractmethod
    def max_concurrency(self) -> int:
        """How many trials it can run at a time."""

    @property
    @abstractmethod
    def usual_concurrency(self) -> int:
        """How many it runs at a time when nobody says how many."""

    @property
    @abstractmethod
    def is_isolated(self) -> bool:
        """Whether trials run in other processes, so that they can be let finish after a Ctrl-C in this one."""

    @property
    def place(self) -> Place:
        """Where trials run: what is not there is refused before, where it is known what there is."""
        return "elsewhere"

    @abstractmethod
    def start(self, plan: Plan, concurrency: int) -> None:
        """Begins a run.

        Args:
            plan: what its trials share.
            concurrency: so many trials at a time at most.

        Raises:
            NasError: the plan cannot be carried out, or not so many trials at a time.
        """

    @abstractmethod
    def submit(self, assignment: Assignment) -> None:
        """Takes a trial to run."""

    @abstractmethod
    def collect(self) -> tuple[int, Outcome]:
        """Waits for the next trial to end: its number and its outcome, whatever happened to it."""

    def attend(self, look: Callable[[], bool]) -> tuple[int, Outcome] | None:
        """Waits for the next trial to end, as `collect` does, and attends to what happens meanwhile.

        An executor that only has `collect` looks once, before it.

        Args:
            look: to be called about four times a second, in any one thread. It may call `kill` and `limit`.

        Returns:
            As `collect`; None as soon as `look` says that the experiment has something else to do first.
        """
        return None if look() else self.collect()

    def kill(self, number: int, why: str) -> None:  # noqa: B027 - not every executor can
        """Ends a trial that runs, at once: it is FAILED for this reason. Does nothing where there is none.

        An executor that cannot lets it run.
        """

    def limit(self, seconds: float | None) -> None:  # noqa: B027 - not every executor can
        """Gives trials another `max_trial_time`, those that run too; None for as long as they take.

        An executor that cannot goes on with that of the plan.
        """

    def resize(self, concurrency: int) -> bool:
        """Makes room for so many trials at a time; more that run are let finish.

        Returns:
            Whether it did. An executor that cannot goes on as it was started.

        Raises:
            NasError: not so many trials at a time.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Ends the run and what still runs, at once; another one may be started. Does nothing where none was."""


class CrewedExecutor(Executor, Generic[L]):
    """An executor whose trials run in workers, each at the end of a line: the crew does what is asked of them."""

    _crew: Crew[L] | None = None
    """Of the run that has begun."""

    @property
    def _working(self) -> Crew[L]:
        assert self._crew is not None, "start comes before all else"
        return self._crew

    def submit(self, assignment: Assignment) -> None:
        """Hands a trial to an idle worker."""
        self._working.submit(assignment)

    def collect(self) -> tuple[int, Outcome]:
        """Waits for a trial to end; meanwhile it answers reports, and kills what is overdue."""
        return self._working.collect()

    def attend(self, look: Callable[[], bool]) -> tuple[int, Outcome] | None:
        """As `collect`, and looks several times a second."""
        return self._working.attend(look)

    def kill(self, number: int, why: str) -> None:
        """Kills the worker of the trial, with its children where it has any; another one takes its place."""
        if self._crew is not None:
            self._crew.kill(number, why)

    def limit(self, seconds: float | None) -> None:
        """For the trials that run, as far as the line can, and for those that begin from now on."""
        if self._crew is not None:
            self._crew.limit(seconds)


@explained()
@final
class InlineExecutor(Executor):
    """Runs a trial when its outcome is asked for. What it prints is shown, and kept in the trial's folder.

    Where several experiments run so in threads of one process, their trials take turns: each has the random generators
    and the standard output to itself.
    """

    def __init__(self) -> None:
        self._run: _Run | None = None
        self._waiting: deque[Assignment] = deque()
        self._lookout: _Lookout | None = None

    @property
    def max_concurrency(self) -> int:
        """One trial at a time: global random generators cannot be shared."""
        return 1

    @property
    def usual_concurrency(self) -> int:
        """One."""
        return 1

    @property
    def is_isolated(self) -> bool:
        """No: a Ctrl-C reaches the trial."""
        return False

    @property
    def place(self) -> Place:
        """In this very process."""
        return "this process"

    def start(self, plan: Plan, concurrency: int) -> None:
        """Takes note of what the trials share."""
        self._run = _Run(plan)

    def submit(self, assignment: Assignment) -> None:
        """Puts a trial in the queue."""
        self._waiting.append(assignment)

    def attend(self, look: Callable[[], bool]) -> tuple[int, Outcome] | None:
        """Runs the next one, while another thread looks."""
        if self._lookout is None:
            self._lookout = _Lookout(look)
        return self.collect()

    def collect(self) -> tuple[int, Outcome]:
        """Runs the next one."""
        assert self._run is not None, "start comes before collect"
        assignment = self._waiting[0]
        interruption = self._run.begin(assignment.number)
        outcome = None
        while outcome is None:
            with generators_if_free(_GLANCE) as free:
                if free:
                    with shown_and_logged(assignment.directory):
                        outcome = execute(self._run.plan, assignment, interruption=interruption)
                elif interruption.killed is not None:
                    outcome = assignment.failed(f"TrialKilled: {interruption.killed}")
        self._waiting.popleft()
        return assignment.number, outcome

    def kill(self, number: int, why: str) -> None:
        """Interrupts the trial, unless it is in compiled code that does not come back to Python."""
        if (run := self._run) is not None:
            run.kill(number, why)

    def limit(self, seconds: float | None) -> None:
        """From now on, and for the trial that runs."""
        if (run := self._run) is not None:
            run.limit(seconds)

    def close(self) -> None:
        """Forgets what waits."""
        if self._lookout is not None:
            self._lookout.end()
            self._lookout = None
        self._waiting.clear()
        self._run = None


@final
class _Run:
    """What can be asked of the trials of a run, from any thread.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._limit, self._killed = plan.max_trial_time, dict[int, str]()
        self._running: tuple[int, Interruption] | None = None
        self._changing = threading.Lock()

    def begin(self, number: int) -> Interruption:
        """What can end a trial that begins now."""
        with self._changing:
            interruption = Interruption(self._limit)
            self._running = number, interruption
            if number in self._killed:
                interruption.kill(self._killed[number])
            return interruption

    def kill(self, number: int, why: str) -> None:
        """Ends a trial, be it that it has not begun yet."""
        with self._changing:
            self._killed[number] = why
            if self._running is not None and self._running[0] == number:
                self._running[1].kill(why)

    def limit(self, seconds: float | None) -> None:
        """Gives trials another limit, the one that runs too."""
        with self._changing:
            self._limit = seconds
            if self._running is not None:
                self._running[1].limit(seconds)


@final
class _Lookout:
    """Looks several times a second, in a thread of its own.

    Args:
        look: what it calls.
    """

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look, self._over = look, threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="nas-lookout", daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        while not self._over.wait(_GLANCE):
            self._look()

    def end(self) -> None:
        """Looks no more; what waits for a database that is away is left behind."""
        self._over.set()
        self._thread.join(_FAREWELL)
