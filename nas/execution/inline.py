"""The executor that runs each trial in this process, one after the other."""

from __future__ import annotations

from collections import deque
from typing import final

from nas.execution.execute import Assignment, Outcome, execute
from nas.execution.executor import Executor


@final
class InlineExecutor(Executor):
    """Runs a trial when its outcome is asked for."""

    def __init__(self) -> None:
        self._waiting: deque[Assignment] = deque()

    @property
    def max_concurrency(self) -> int:
        """One trial at a time: global random generators cannot be shared."""
        return 1

    def submit(self, assignment: Assignment) -> None:
        """Puts a trial in the queue."""
        self._waiting.append(assignment)

    def collect(self) -> tuple[int, Outcome]:
        """Runs the next one."""
        assignment = self._waiting[0]
        outcome = execute(assignment)
        self._waiting.popleft()
        return assignment.number, outcome

    def close(self) -> None:
        """Forgets what waits."""
        self._waiting.clear()
