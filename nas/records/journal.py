"""The journal of an experiment: Optuna's file, written so that a kill, a full disk and a slow disk do no harm."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

import filelock
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from nas._compat.optuna_bases import JournalFileLock, JournalOperation

_RAISING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGALRM", "SIGTERM", "SIGURG") if hasattr(signal, name))
_DEFERRED = (
    JournalOperation.CREATE_TRIAL,
    JournalOperation.SET_TRIAL_USER_ATTR,
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
)


@final
class JournalLock(JournalFileLock):
    """A lock that the operating system releases when its holder is killed.

    Optuna's own lock is a file that outlives a killed process and blocks the next one for half a minute.
    """

    def __init__(self, path: str) -> None:
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Gives it back."""
        self._lock.release()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What signals raise in the main thread they raise after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    usual: dict[int, Any] = {}
    try:
        for number in _RAISING:
            handler = signal.getsignal(number)
            if callable(handler):
                usual[number] = handler
                signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    for number in came:
        usual[number](number, None)


@final
class JournalFile(BaseJournalBackend):
    """Optuna's journal file, which all of Optuna's tools open.

    What differs is how it is written: a record that does not fit on the disk leaves nothing behind, and the disk is
    waited for once for each trial instead of three times. A kill loses nothing; a power failure nothing that was said
    to be finished, for the records before it are on the disk when the last one of a trial is.

    Args:
        path: of the file.
        lock: of its writers.
    """

    def __init__(self, path: str, lock: JournalLock) -> None:
        self._path, self._lock = path, lock
        self._reader = JournalFileBackend(path, lock_obj=lock)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The records from a number on."""
        return self._reader.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes records, all or none.

        Raises:
            OSError: the disk is full, say.
        """
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        # A time limit or a Ctrl-C that struck while the lock is being taken would leave it taken for ever.
        with _undisturbed():
            self._append(logs, data)

    def _append(self, logs: list[dict[str, Any]], data: bytes) -> None:
        self._lock.acquire()
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                end = os.lseek(file, 0, os.SEEK_END)
                try:
                    written = 0
                    while written < len(data):
                        written += os.write(file, data[written:])
                    if any(log["op_code"] not in _DEFERRED for log in logs):
                        os.fsync(file)
                except BaseException:
                    os.ftruncate(file, end)
                    raise
            finally:
                os.close(file)
        finally:
            self._lock.release()
