"""What strikes while the journal is written leaves its lock free, and the record whole."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import filelock
import pytest

from nas.records.journal import JournalFile, JournalLock

LOG = {"op_code": 0, "worker_id": "w", "study_name": "s"}


class TimeIsUpError(Exception):
    """What a time limit raises."""


def is_free(path: Path) -> bool:
    try:
        with filelock.FileLock(str(path)).acquire(timeout=0):
            return True
    except filelock.Timeout:
        return False


@pytest.mark.parametrize(("number", "raised"), [("SIGINT", KeyboardInterrupt), ("SIGALRM", TimeIsUpError)])
def test_a_signal_that_strikes_while_the_lock_is_taken(
    number: str, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(*_: Any) -> None:
        raise raised

    chosen, path = getattr(signal, number), tmp_path / "journal.log"
    before = signal.signal(chosen, strike)
    lock = JournalLock(f"{path}.lock")
    acquire = lock._lock._acquire

    def struck() -> None:
        acquire()
        os.kill(os.getpid(), chosen)

    monkeypatch.setattr(lock._lock, "_acquire", struck)
    try:
        with pytest.raises(raised):
            JournalFile(str(path), lock).append_logs([LOG])
        assert signal.getsignal(chosen) is strike
    finally:
        signal.signal(chosen, before)
    assert is_free(Path(f"{path}.lock"))
    monkeypatch.undo()
    journal = JournalFile(str(path), lock)
    journal.append_logs([LOG])
    assert list(journal.read_logs(0)) == [LOG, LOG], "what struck came after the record was written"


def test_other_threads_write_as_they_are(tmp_path: Path) -> None:
    journal = JournalFile(str(tmp_path / "journal.log"), JournalLock(str(tmp_path / "lock")))
    thread = threading.Thread(target=journal.append_logs, args=([LOG],))
    thread.start()
    thread.join()
    assert list(journal.read_logs(0)) == [LOG]
