"""What others ask of a run that is under way: by the ledger, so from any thread, any process and any host."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import final

from nas._compat.changed import is_shutting_down
from nas.execution import Executor
from nas.records import Ledger, Notes
from nas.search.limits import Limits

KILLED = "somebody has asked for the end of this trial"
"""The error of such a trial."""
_GLANCE = 0.25
"""Seconds between two looks while something is trained."""


@final
class Orders:
    """The limits of a run as they are now, and whether it is to stop.

    Args:
        ledger: where they are noted.
        notes: what was noted when the run began; what came before is not its business.
        limits: that it began with.
        begin: when it did, of `time.monotonic()`.
        executor: is told what concerns trials that run.
        ends_with_script: whether the run is broken off when the main thread has come to its end.
    """

    def __init__(
        self,
        ledger: Ledger,
        notes: Notes,
        limits: Limits,
        begin: float,
        executor: Executor,
        *,
        ends_with_script: bool = False,
    ) -> None:
        self._ledger, self._executor, self._begin = ledger, executor, begin
        self._ends_with_script, self._thread = ends_with_script, threading.get_ident()
        self.limits = limits
        self.is_stopped = False
        """Whether no new trial is to start any more."""
        self.killed = notes.kills
        """The trials, of this run or not, that somebody has ever asked to end at once."""
        self._stops, self._changes, self._queue = notes.stops, len(notes.changes), len(notes.queue)
        self._taking, self._next_look = threading.Lock(), begin

    @property
    def end(self) -> float | None:
        """Of `time.monotonic()`: no new trial starts after it."""
        return None if self.limits.timeout is None else self._begin + self.limits.timeout

    def until(self) -> float | None:
        """The end as it is now, for what is asked between the steps of a training: it is over where all is to stop."""
        if time.monotonic() >= self._next_look:
            self.look()
            self._next_look = time.monotonic() + _GLANCE
        return -math.inf if self.is_stopped else self.end

    def look(self) -> bool:
        """Looks whether there is something new, and takes note of it; whether there is something for the loop.

        Raises:
            KeyboardInterrupt: in the thread of the run, where that ends with the script, and the script has ended.
        """
        if self._ends_with_script and is_shutting_down() and threading.get_ident() == self._thread:
            raise KeyboardInterrupt
        with suppress(Exception):  # A database may be away. It is looked at again soon, and the loop waits for it.
            return self.take(self._ledger.glance())
        return False

    def take(self, notes: Notes) -> bool:
        """Takes note of what is noted, and tells the executor; whether there is something new for the loop."""
        with self._taking:
            kills, changes = notes.kills - self.killed, notes.changes[self._changes :]
            stopped = notes.stops > self._stops
            news = bool(changes) or stopped != self.is_stopped or len(notes.queue) != self._queue
            self.killed |= kills
            self.is_stopped = stopped
            self._changes, self._queue = len(notes.changes), len(notes.queue)
            before = self.limits
            for change in changes:
                self.limits = self.limits.changed(change)
            for number in kills:
                self._executor.kill(number, KILLED)
            if self.limits.max_trial_time != before.max_trial_time:
                self._executor.limit(self.limits.max_trial_time)
            return news
