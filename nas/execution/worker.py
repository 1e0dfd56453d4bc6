"""What a worker process does: it takes trials from a pipe, runs them one after the other, and answers."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from nas.execution.log import logged_only
from nas.execution.pickled import load_plan
from nas.execution.trial_run import Assignment, Outcome, Plan, execute

_LINE: ContextVar[Connection] = ContextVar("nas_line")


def prepare(line: Connection, lifeline: Connection) -> None:
    """Begins the life of a worker.

    Args:
        line: to the executor.
        lifeline: ends when the process of the executor does, however it does; the worker must not outlive it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A Ctrl-C on a terminal reaches all its processes.
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _LINE.set(line)


def _end_with(lifeline: Connection) -> None:
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def serve(path: str) -> None:
    """Runs what arrives, until nothing more does. The messages back are

    - ("started",): the trial begins; all before was the worker's own beginning;
    - ("report", step, value): which is answered by whether to stop;
    - ("done", outcome).

    Args:
        path: of the plan, pickled.
    """
    line = _LINE.get()
    plan: Plan | None = None
    while True:
        try:
            assignment: Assignment | None = line.recv()
        except EOFError:
            return
        if assignment is None:
            if plan is not None:
                with suppress(Exception):  # Nobody waits for it, and the trials are over.
                    plan.evaluator.close()
            return
        try:
            if plan is None:
                plan = load_plan(Path(path).read_bytes())
            line.send(("started",))
            outcome = run_trial(plan, assignment, on_report=_Reporter(line))
        except Exception:
            outcome = assignment.failed(traceback.format_exc())
        line.send(("done", outcome))


def run_trial(plan: Plan, assignment: Assignment, *, on_report: Callable[[int, float], bool]) -> Outcome:
    """Runs a trial in a process that is there for nothing else; what it prints goes to the trial's folder."""
    try:
        with logged_only(assignment.directory):
            return execute(plan, replace(assignment, on_report=on_report))
    except KeyboardInterrupt:  # Raised by the evaluator itself, for workers ignore the signal.
        return assignment.failed(traceback.format_exc())


class _Reporter:
    """Passes reports on, and the answers back."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def __call__(self, step: int, value: float) -> bool:
        self._line.send(("report", step, value))
        return bool(self._line.recv())
