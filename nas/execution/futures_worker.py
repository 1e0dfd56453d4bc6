"""What runs in the workers of a pool: each trial in a process beside the worker, which may die without harm to it."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, final

import psutil

from nas.errors import is_full
from nas.execution.futures_mail import END, MOST, PLAN, Lifeline, Outbox, outcome_of, pause_after
from nas.execution.pickled import load_plan
from nas.execution.trial_run import Assignment, Plan
from nas.execution.worker import run_trial
from nas.files import read_bytes

_APPEARS = 30.0
"""Seconds in which what one machine writes is surely seen by another."""
_LOOK = 1.0
_NO_ROOM = 28
"""The exit code of a process that cannot write what has come of its trial, because the disk is full."""
_LAST_WORDS = 4000
"""Bytes."""


@final
@dataclass(frozen=True, kw_only=True)
class Errand:
    """What the pool is handed for a trial."""

    run: Path
    """The folder of the run."""
    words: Path
    """The folder for words about this trial."""
    modules: tuple[str, ...]
    """Where the experiment finds modules."""
    assignment: Assignment


def run_errand(payload: bytes) -> tuple[str, Any]:
    """Runs a trial, and waits for it; called by the pool in a worker.

    Args:
        payload: an errand, pickled.

    Returns:
        ("done", the outcome, pickled), ("died", exit code in words, last words), ("refused", why), ("full", "") where
        the disk is full, or ("ended", "").
    """
    errand: Errand = pickle.loads(payload)
    begin = time.monotonic()
    while not (errand.run / PLAN).exists():
        if time.monotonic() > begin + _APPEARS:
            return "refused", (
                f"the workers of a pool must see the folder of the search, but {socket.gethostname()} does not find "
                f"{errand.run}. To mend: FuturesExecutor(..., folder=...) on a disk that all machines share"
            )
        time.sleep(_LOOK)
    number = Outbox.claim(errand.words)
    children = children_of(os.getpid())
    child = children.take(errand)
    try:
        child.begin(errand, number)
        result = _wait(child, errand, outcome_of(errand.words, number))
    except BaseException:
        child.close()
        raise
    if result[0] == "done":
        children.give_back(child)
    else:
        child.close()
    return result


def _wait(child: Child, errand: Errand, outcome: Path) -> tuple[str, Any]:
    lifeline, begin = Lifeline(errand.run), time.monotonic()
    while True:
        code = child.process.poll()  # Asked first: what it has written before its end is then there.
        if outcome.exists():
            return "done", read_bytes(outcome, most=MOST)
        if code == _NO_ROOM:
            return "full", ""
        if code is not None:
            return "died", (_in_words(code), child.last_words())
        if lifeline.is_cut() or (errand.words / END).exists():
            return "ended", ""
        time.sleep(pause_after(time.monotonic() - begin))


def _in_words(code: int) -> str:
    return f"{signal.Signals(-code).name}({code})" if code < 0 else f"EXIT({code})"


@final
class Child:
    """A process that runs trials, seen from the worker of a pool.

    It is a plain one: some pools forbid theirs to have children of multiprocessing.

    Args:
        errand: the first one of its run.
    """

    def __init__(self, errand: Errand) -> None:
        self.run = errand.run
        modules = [*sys.path, *(path for path in errand.modules if path not in sys.path)]
        start = "from nas.execution.futures_worker import serve_worker; serve_worker()"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {modules!r}; {start}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # A Ctrl-C on a terminal reaches all its processes.
        )
        # Called at the end of this process, too: one that waits for more must not be left to itself.
        self._close = weakref.finalize(self, _close, self.process, self._errors, os.getpid())

    def begin(self, errand: Errand, number: int) -> None:
        """Hands over a trial."""
        assert self.process.stdin is not None
        with suppress(OSError):  # It has died; that is seen when it is waited for.
            pickle.dump((errand, number), self.process.stdin)
            self.process.stdin.flush()

    def last_words(self) -> str:
        """What it has said outside a trial."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = self._errors.read(_LAST_WORDS).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Ends it and its children, whatever they do."""
        self._close()


def _close(process: subprocess.Popen[bytes], errors: IO[bytes], owner: int) -> None:
    if os.getpid() != owner:  # A copy of its owner, by a fork.
        return
    if process.poll() is None:
        _kill_with_children(process.pid)
        process.wait()
    assert process.stdin is not None
    with suppress(OSError):  # What it was not told any more.
        process.stdin.close()
    errors.close()


@final
class Children:
    """Processes that are kept warm between trials; they end by themselves when their run is over."""

    def __init__(self) -> None:
        self._idle: list[Child] = []
        self._lock = threading.Lock()

    def take(self, errand: Errand) -> Child:
        """A process for a trial: one that is idle, or a new one."""
        with self._lock:
            ended = [child for child in self._idle if child.process.poll() is not None]
            fitting = [child for child in self._idle if child not in ended and child.run == errand.run]
            self._idle = [child for child in self._idle if child not in (*ended, *fitting[-1:])]
        for child in ended:
            child.close()
        return fitting[-1] if fitting else Child(errand)

    def give_back(self, child: Child) -> None:
        """Keeps an idle process."""
        with self._lock:
            self._idle.append(child)


@cache
def children_of(pid: int) -> Children:
    """Those of this process; one that was forked from it has none."""
    return Children()


def serve_worker() -> None:
    """The life of such a process: runs what comes through its standard input, until that ends or the run is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arrivals: queue.SimpleQueue[tuple[Errand, int]] = queue.SimpleQueue()
    line = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # What a trial reads is not what was meant for us.
    threading.Thread(target=_receive, args=(line, arrivals), daemon=True).start()
    plan: Plan | None = None
    while True:
        errand, number = arrivals.get()
        if plan is None:
            threading.Thread(target=_watch, args=(errand.run,), daemon=True).start()
        outbox = Outbox(errand.words, number)
        try:
            if plan is None:
                plan = load_plan(read_bytes(errand.run / PLAN, most=MOST))
            outbox.say("begun")
            outcome = run_trial(plan, errand.assignment, on_report=outbox.ask)
        except Exception:
            outcome = errand.assignment.failed(traceback.format_exc())
        try:
            outbox.end(pickle.dumps(outcome))
        except OSError as error:
            if not is_full(error):
                raise
            os._exit(_NO_ROOM)  # That much is seen without a file.


def _receive(line: BinaryIO, arrivals: queue.SimpleQueue[tuple[Errand, int]]) -> None:
    with suppress(Exception):
        while True:
            arrivals.put(pickle.load(line))
    _kill_with_children(os.getpid())  # The worker has ended, and its trial must not outlive it.


def _watch(run: Path) -> None:
    lifeline = Lifeline(run)
    while not lifeline.is_cut():
        time.sleep(_LOOK)
    _kill_with_children(os.getpid())


def _kill_with_children(pid: int) -> None:
    processes: Sequence[psutil.Process] = ()
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if pid != os.getpid():
            process.suspend()  # It must not start more of them meanwhile.
        processes = [*process.children(recursive=True), process]
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
