"""The protocol of executors: where trials run."""

from __future__ import annotations

from abc import ABC, abstractmethod

from nas.execution.execute import Assignment, Outcome


class Executor(ABC):
    """Runs trials. `nas.experiment` submits up to `max_concurrency` of them and collects the outcomes as they come."""

    @property
    @abstractmethod
    def max_concurrency(self) -> int:
        """How many trials it can run at a time."""

    @abstractmethod
    def submit(self, assignment: Assignment) -> None:
        """Takes a trial to run."""

    @abstractmethod
    def collect(self) -> tuple[int, Outcome]:
        """Waits for the next trial to end: its number and its outcome."""

    @abstractmethod
    def close(self) -> None:
        """Ends what still runs."""
