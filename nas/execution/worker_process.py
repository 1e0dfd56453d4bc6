"""One worker process and its trial, seen from the process of the experiment."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

from nas.execution.log import quote_log
from nas.execution.trial_run import Assignment, Outcome
from nas.execution.worker import prepare, serve

_STARTS = 3
"""So many workers may die before they come to a trial at all."""


@final
class WorkerProcess:
    """A process that runs trials, replaced when it dies.

    It is one of loky's: they are spawned without importing the user's script again, take an environment of their own,
    and are killed together with their children.

    Args:
        plan: the file that holds the pickled plan.
        environment: what its environment has that this one has not.
        grace: seconds that a trial may go on after `max_trial_time`, before the process is killed.
        max_trial_time: seconds.
    """

    def __init__(
        self, plan: Path, environment: Mapping[str, str], *, max_trial_time: float | None, grace: float
    ) -> None:
        self._plan, self._environment = plan, dict(environment)
        self._max_trial_time, self._grace = max_trial_time, grace
        self._executor: Any = None
        self._serving: Future[None] | None = None
        self._lifeline: Connection | None = None
        self.line: Connection | None = None
        """To the process."""
        self.death: Connection | None = None
        """Ready when the process has ended."""
        self.assignment: Assignment | None = None
        """What it works on."""
        self._began: float | None = None
        self._starts = 0
        self._curve: dict[int, float] = {}

    @property
    def deadline(self) -> float | None:
        """Of `time.monotonic()`: when its trial has gone on too long after its time."""
        if self._began is None or self._max_trial_time is None:
            return None
        return self._began + self._max_trial_time + self._grace

    def assign(self, assignment: Assignment) -> None:
        """Hands it a trial."""
        self.assignment, self._starts = assignment, 0
        self._send()

    def _send(self) -> None:
        assert self.assignment is not None
        self._began, self._curve = None, {}
        if self._serving is None or self._serving.done():
            self._start()
        assert self.line is not None
        try:
            self.line.send(replace(self.assignment, on_report=None))
        except OSError:  # It died while it was idle.
            self._start()
            self.line.send(replace(self.assignment, on_report=None))

    def receive(self) -> Outcome | None:
        """Takes the next message; the outcome, where it is one."""
        assert self.assignment is not None
        assert self.line is not None
        try:
            if not self.line.poll():
                return self._died()
            kind, *rest = self.line.recv()
        except (EOFError, OSError):
            return self._died()
        if kind == "done":
            outcome: Outcome = rest[0]
            self.assignment = self._began = None
            return outcome
        if kind == "started":
            self._began = time.monotonic()
        else:
            step, value = rest
            self._curve[step] = value
            stop = self.assignment.on_report is not None and self.assignment.on_report(step, value)
            try:
                self.line.send(stop)
            except OSError:
                return self._died()
        return None

    def end_overdue(self) -> Outcome:
        """Kills the process: its trial has not ended at its time."""
        limit = self._max_trial_time
        reason = f"the trial ran longer than max_trial_time, {limit:g} s, and did not end within {self._grace:g} s more"
        return self._fail("TrialTimeout", f"{reason}; its process was killed")

    def _died(self) -> Outcome | None:
        """The outcome of a trial whose process has ended; none where it had not begun and is begun again."""
        if self._began is None and self._starts < _STARTS:
            self._send()
            return None
        return self._fail("WorkerDied", f"the process of this trial {self._reason()}")

    def _fail(self, kind: str, reason: str) -> Outcome:
        assignment = self.assignment
        assert assignment is not None
        duration = 0.0 if self._began is None else time.monotonic() - self._began
        curve = self._curve
        self.close()
        return assignment.failed(f"{quote_log(assignment.directory)}{kind}: {reason}", duration=duration, curve=curve)

    def _reason(self) -> str:
        assert self._serving is not None
        try:
            error = self._serving.exception(timeout=30)
        except TimeoutError:
            return "does not answer any more"
        found = re.search(r"exit codes? of the workers are \{(.*)\}", str(error))
        code = found.group(1) if found else str(error or "ended by itself")
        if "SIGKILL" in code:
            return f"was killed ({code}): by somebody, or by the system because memory was short"
        return f"ended: {code}"

    def _start(self) -> None:
        import loky

        self._stop()
        self._starts += 1
        line, theirs = Pipe()
        their_lifeline, self._lifeline = Pipe(duplex=False)
        self.death, death = Pipe(duplex=False)
        self._executor = loky.ProcessPoolExecutor(
            1, env=self._environment, initializer=prepare, initargs=(theirs, their_lifeline)
        )
        self._serving = self._executor.submit(serve, str(self._plan))
        theirs.close()
        their_lifeline.close()
        self._serving.add_done_callback(lambda _: death.close())
        self.line = line

    def _stop(self) -> None:
        if self._executor is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None
        for connection in (self.line, self._lifeline, self.death):
            if connection is not None:
                connection.close()
        self.line = self._lifeline = self.death = None

    def close(self) -> None:
        """Ends the process and its children at once, whatever they do."""
        self._stop()
        self.assignment = self._began = self._serving = None
