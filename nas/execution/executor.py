"""The protocol of executors: where trials run."""

from __future__ import annotations

from abc import ABC, abstractmethod

from nas.execution.trial_run import Assignment, Outcome, Plan
from nas.protocols import Place


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

    @abstractmethod
    def close(self) -> None:
        """Ends the run and what still runs, at once; another one may be started. Does nothing where none was."""
