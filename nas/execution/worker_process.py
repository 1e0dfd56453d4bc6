"""One worker process, seen from the process of the experiment."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, final

from nas.execution.crew import Begun, Done, Gone, Line, Report, Word
from nas.execution.trial_run import Assignment
from nas.execution.worker import prepare, serve
from nas.whole_process import own_warnings

_PATIENCE = 5.0
"""Seconds that an idle worker has for closing what it has opened."""


@final
class WorkerProcess(Line):
    """A process that runs trials.

    It is one of loky's: they are spawned without importing the user's script again, take an environment of their own,
    and are killed together with their children.

    Args:
        plan: the file that holds the pickled plan.
        environment: what its environment has that this one has not.
    """

    def __init__(self, plan: Path, environment: Mapping[str, str]) -> None:
        import loky

        self._line, theirs = Pipe()
        their_lifeline, self._lifeline = Pipe(duplex=False)
        self._death, death = Pipe(duplex=False)
        self._executor: Any = loky.ProcessPoolExecutor(
            1, env=dict(environment), initializer=prepare, initargs=(theirs, their_lifeline)
        )
        self._serving = self._executor.submit(serve, str(plan))
        theirs.close()
        their_lifeline.close()
        self._serving.add_done_callback(lambda _: death.close())

    @property
    def noun(self) -> str:
        """A process."""
        return "process"

    @property
    def is_starved(self) -> bool:
        """Never: this machine always has a place."""
        return False

    @property
    def ends(self) -> tuple[Connection, Connection]:
        """What is ready when it says something, or has ended."""
        return self._line, self._death

    def send(self, assignment: Assignment) -> bool:
        """Hands over a trial."""
        if self._serving.done():
            raise BrokenPipeError("the process has ended")
        self._line.send(assignment)
        return False

    def answer(self, stop: bool) -> None:
        """Answers a report."""
        self._line.send(stop)

    def read(self) -> Word:
        """The next word, once one of its ends is ready."""
        try:
            if not self._line.poll():
                return Gone()
            kind, *rest = self._line.recv()
        except (EOFError, OSError):
            return Gone()
        if kind == "done":
            return Done(outcome=rest[0])
        return Begun() if kind == "started" else Report(step=rest[0], value=rest[1])

    def cause(self) -> str:
        """How the process ended."""
        try:
            error = self._serving.exception(timeout=30)
        except TimeoutError:
            return "does not answer any more"
        found = re.search(r"exit codes? of the workers are \{(.*)\}", str(error))
        return describe_end(found.group(1) if found else str(error or "by itself"))

    def limit(self, number: int, seconds: float | None) -> bool:
        """Tells it by its lifeline, for it may be anywhere in its trial."""
        with suppress(OSError):  # It has died; that is seen when it is listened to.
            self._lifeline.send((number, seconds))
        return True

    def dismiss(self) -> None:
        """Lets its evaluator close what it has opened."""
        with suppress(OSError):
            self._line.send(None)
            wait([self._death], _PATIENCE)

    def end(self) -> None:
        """Kills the process and its children."""
        with own_warnings():
            warnings.simplefilter("ignore")
            self._executor.shutdown(wait=True, kill_workers=True)
        for connection in (self._line, self._lifeline, self._death):
            connection.close()


def listen(processes: list[WorkerProcess], timeout: float | None) -> Iterator[tuple[WorkerProcess, Word]]:
    """What processes say next."""
    ends = {end: process for process in processes for end in process.ends}
    for process in dict.fromkeys(ends[end] for end in wait(ends, timeout)):  # type: ignore[index]  # what was waited for
        yield process, process.read()


def describe_end(code: str) -> str:
    """What became of a process, by its exit code in words, as SIGKILL(-9)."""
    if "SIGKILL" in code:
        return f"was killed ({code}): by somebody, or by the system because memory was short"
    return f"ended: {code}"
