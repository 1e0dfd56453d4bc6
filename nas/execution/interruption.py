"""Ending a trial that runs, from outside: when its time is up, or when somebody asks for it."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final

from nas._compat.changed import frame_of
from nas.protocols import TrialKilled, TrialTimeout

_SIGNAL = getattr(signal, "SIGURG", None)
"""Nobody else sends it, and a process that does not expect it is not harmed. Trials may use SIGALRM themselves."""

_AGAIN = 0.02
"""Seconds until it is tried again where it cannot be just now."""


@final
class Interruption:
    """What can end one trial in this process.

    It is raised in the trial's thread: in the main thread by a signal, which ends a wait too; in another thread when
    that comes back to Python code. Compiled code that does not come back to Python cannot be ended by it anywhere; nor
    can a trial that catches all exceptions, until it reports or ends.

    An import is let finish, for a module that is half imported would be in the way of all later trials.

    Args:
        limit: seconds from its beginning to the end of its time; None for as long as it takes.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._begin = time.monotonic()
        self._killed: TrialKilled | None = None
        self._raised: BaseException | None = None
        # Of those who strike. The trial's own thread never takes it: struck while it does, it would keep it for ever.
        self._lock = threading.Lock()
        self._is_open = self._is_over = self._is_shielded = self._is_striking = self._by_signal = False
        self._thread = 0
        self._timer: threading.Timer | None = None

    # Asked for by others, from any thread.

    def limit(self, seconds: float | None) -> None:
        """Gives the trial another limit, counted from its beginning too."""
        self._limit = seconds
        self._arm()

    def kill(self, why: str) -> None:
        """Ends the trial."""
        self._killed = TrialKilled(why)
        self._strike()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = None if self._limit is None else self._limit - (time.monotonic() - self._begin)
        if not self._thread or self._is_over or left is None or left > threading.TIMEOUT_MAX:
            return
        timer = threading.Timer(max(left, 0.0), self._strike)
        timer.daemon = True
        self._timer = timer
        timer.start()

    def _strike(self) -> None:
        if threading.get_ident() == self._thread:
            self._strike_alone()
            return
        with self._lock:
            self._is_striking = True
            try:
                self._strike_alone()
            finally:
                self._is_striking = False

    def _strike_alone(self) -> None:
        error = self._due()
        if error is None or not self._is_open or self._is_shielded or self._raised is not None:
            return
        if self._by_signal:
            assert _SIGNAL is not None
            signal.pthread_kill(self._thread, _SIGNAL)
            return
        if _is_importing(frame_of(self._thread)):
            self._strike_again()
            return
        self._raised = error
        raise_in(self._thread, type(error))

    def _strike_again(self) -> None:
        timer = threading.Timer(_AGAIN, self._strike)
        timer.daemon = True
        timer.start()

    # In the trial's own thread.

    def _due(self) -> TrialKilled | TrialTimeout | None:
        """What the trial is to end by now, if anything."""
        if self._killed is not None:
            return self._killed
        limit = self._limit
        if limit is None or time.monotonic() - self._begin < limit:
            return None
        return TrialTimeout(f"the trial ran longer than max_trial_time, {limit:g} s")

    @property
    def killed(self) -> TrialKilled | None:
        """What says so, where somebody has asked for the end of the trial."""
        return self._killed

    def check(self) -> None:
        """Raises what the trial is to end by, if anything."""
        error = self._due()
        if error is not None:
            raise error

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """What it does for the experiment meanwhile, to the ledger say, is not broken off in the middle."""
        if threading.get_ident() != self._thread:
            yield
            return
        try:
            self._is_shielded = True
            self._let_strike()
            yield
        finally:
            self._is_shielded = False
        self.check()

    @contextmanager
    def around(self) -> Iterator[None]:
        """The trial runs inside: so long it can be ended."""
        self._begin, self._thread = time.monotonic(), threading.get_ident()
        self._by_signal = _SIGNAL is not None and threading.current_thread() is threading.main_thread()
        before = signal.signal(_SIGNAL, self._by_handler) if self._by_signal and _SIGNAL is not None else None
        try:
            self._arm()  # what strikes too early is due below
            self._is_open = True
            self.check()
            yield
        except BaseException as error:
            # It may have come up inside a library that makes another error of whatever error it meets; and what is
            # raised in another thread says nothing but its name.
            raised = self._raised
            if raised is None or error is raised or not _came_from(error, raised):
                raise
            raise raised from error
        finally:
            # What strikes in the first of these blocks comes through; there is no second one.
            try:
                self._close()
            finally:
                self._close()
                if before is not None and _SIGNAL is not None:
                    signal.signal(_SIGNAL, before)

    def _close(self) -> None:
        self._is_open, self._is_over = False, True
        self._let_strike()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_strike(self) -> None:
        """Who is about to strike has done so afterwards, or sees that it must not any more."""
        while self._is_striking:
            time.sleep(1e-4)
        time.sleep(0)  # what is to be raised in this thread is raised here

    def _by_handler(self, number: int, frame: FrameType | None) -> None:
        error = self._due()
        if error is None or not self._is_open or self._is_shielded or self._raised is not None:
            return
        if _is_importing(frame):
            self._strike_again()
            return
        self._raised = error
        raise error


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: broken off, it would be half there for all that comes after."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Has a thread raise an error as soon as it runs Python code.

    It is not taken back: Python 3.11 would ask for ever what there is to raise, and a traced function not go on.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _came_from(error: BaseException | None, origin: BaseException) -> bool:
    """Whether an error was raised because of another one, or while that one was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if error is origin or (type(error) is type(origin) and not error.args):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
