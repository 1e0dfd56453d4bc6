"""The executor that runs each trial in this process, one after the other."""

from __future__ import annotations

from collections import deque
from typing import final

from nas.calls import explained
from nas.execution.executor import Executor
from nas.execution.log import shown_and_logged
from nas.execution.trial_run import Assignment, Outcome, Plan, execute
from nas.protocols import Place


@explained()
@final
class InlineExecutor(Executor):
    """Runs a trial when its outcome is asked for. What it prints is shown, and kept in the trial's folder."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._waiting: deque[Assignment] = deque()

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
        self._plan = plan

    def submit(self, assignment: Assignment) -> None:
        """Puts a trial in the queue."""
        self._waiting.append(assignment)

    def collect(self) -> tuple[int, Outcome]:
        """Runs the next one."""
        assert self._plan is not None, "start comes before collect"
        assignment = self._waiting[0]
        with shown_and_logged(assignment.directory):
            outcome = execute(self._plan, assignment)
        self._waiting.popleft()
        return assignment.number, outcome

    def close(self) -> None:
        """Forgets what waits."""
        self._waiting.clear()
        self._plan = None
