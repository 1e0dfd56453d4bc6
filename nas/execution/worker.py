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
from typing import final

from nas.execution.interruption import Interruption
from nas.execution.log import logged_only
from nas.execution.pickled import load_plan
from nas.execution.trial_run import Assignment, Outcome, Plan, execute
from nas.files import read_bytes

_PLAN = 1 << 40
"""Bytes: as many as a plan has, for this program has written it."""
_LINE: ContextVar[tuple[Connection, Limits]] = ContextVar("nas_line")


def prepare(line: Connection, lifeline: Connection) -> None:
    """Begins the life of a worker.

    Args:
        line: to the executor.
        lifeline: ends when the process of the executor does, however it does; the worker must not outlive it. Meanwhile
            it brings (number, seconds): the trial of this number has another time limit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A Ctrl-C on a terminal reaches all its processes.
    limits = Limits()
    threading.Thread(target=_end_with, args=(lifeline, limits), daemon=True).start()
    _LINE.set((line, limits))


def _end_with(lifeline: Connection, limits: Limits) -> None:
    try:
        while True:
            limits.change(*lifeline.recv())
    except (EOFError, OSError):
        os._exit(1)


@final
class Limits:
    """The time limits that trials of this process have been given anew."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._changed: dict[int, float | None] = {}
        self._running: tuple[int, Interruption] | None = None

    def change(self, number: int, seconds: float | None) -> None:
        """A trial has another limit, be it that it has not begun yet."""
        with self._changing:
            self._changed[number] = seconds
            if self._running is not None and self._running[0] == number:
                self._running[1].limit(seconds)

    def begin(self, plan: Plan, assignment: Assignment) -> Interruption:
        """What can end a trial, with the limit that it has now."""
        with self._changing:
            limit = self._changed.get(assignment.number, assignment.time_limit(plan))
            self._running = assignment.number, Interruption(limit)
            return self._running[1]


def serve(path: str) -> None:
    """Runs what arrives, until nothing more does. The messages back are

    - ("started",): the trial begins; all before was the worker's own beginning;
    - ("report", step, value): which is answered by whether to stop;
    - ("done", outcome).

    Args:
        path: of the plan, pickled.
    """
    line, limits = _LINE.get()
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
                plan = load_plan(read_bytes(path, most=_PLAN))
            line.send(("started",))
            begun = limits.begin(plan, assignment)
            outcome = run_trial(plan, assignment, on_report=_Reporter(line), interruption=begun)
        except Exception:
            outcome = assignment.failed(traceback.format_exc())
        line.send(("done", outcome))


def run_trial(
    plan: Plan,
    assignment: Assignment,
    *,
    on_report: Callable[[int, float], bool],
    interruption: Interruption | None = None,
) -> Outcome:
    """Runs a trial in a process that is there for nothing else; what it prints goes to the trial's folder."""
    try:
        with logged_only(assignment.directory):
            return execute(plan, replace(assignment, on_report=on_report), interruption=interruption)
    except KeyboardInterrupt:  # Raised by the evaluator itself, for workers ignore the signal.
        return assignment.failed(traceback.format_exc())


class _Reporter:
    """Passes reports on, and the answers back."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def __call__(self, step: int, value: float) -> bool:
        self._line.send(("report", step, value))
        return bool(self._line.recv())
