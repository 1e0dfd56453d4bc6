"""A lock for Optuna's journal that the operating system releases when its holder is killed."""

from __future__ import annotations

from typing import final

import filelock
from optuna.storages.journal._file import BaseJournalFileLock


@final
class JournalLock(BaseJournalFileLock):
    """Optuna's own lock is a file that outlives a killed process and blocks the next one for half a minute."""

    def __init__(self, path: str) -> None:
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Gives it back."""
        self._lock.release()
