"""Locks that are files: one process at a time holds one, and notices when it is not there any more."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import final

from nas.errors import ExperimentError, explain
from nas.files import open_file, open_to_append
from nas.records.disk.faults import told

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    import fcntl

_PAUSE = 0.02
"""Seconds between two tries."""
_PATIENCE = 0.3
"""Seconds to try for a lock that somebody else holds: whoever only looks whether it is held, holds it for a moment."""


@final
class Busy(Exception):  # noqa: N818 - names the situation
    """Another one holds a lock."""


def _lock(number: int, *, wait: bool = False, alone: bool = True) -> None:
    """Locks a file that is open; the system frees it when the file is closed, or the process has died.

    Raises:
        BlockingIOError: another one holds it.
    """
    if sys.platform == "win32":  # pragma: no cover
        while True:
            try:
                msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if not wait:
                    raise BlockingIOError(error.errno, error.strerror) from error
                time.sleep(_PAUSE)
            else:
                return
    else:
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        fcntl.flock(number, how if wait else how | fcntl.LOCK_NB)


def is_here(number: int, path: Path) -> bool:
    """Whether an open file is still the one of a path: it may have been deleted, or replaced, while it was locked."""
    try:
        return os.path.samestat(os.fstat(number), os.lstat(path))
    except FileNotFoundError:
        return False


def _take(path: Path, patience: float) -> int:
    end = time.monotonic() + patience
    while True:
        number = open_to_append(path)
        try:
            _lock(number, wait=patience == math.inf)
            if is_here(number, path):
                return number
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(number)
                raise Busy(path) from None
            time.sleep(_PAUSE)
        except BaseException:
            os.close(number)
            raise
        os.close(number)


@contextmanager
def held(path: Path, *, patience: float = math.inf) -> Iterator[int]:
    """Holds a lock; the descriptor of its file, which is made where it is not there, and stays.

    Args:
        path: of the file.
        patience: seconds to wait where another one holds it.

    Raises:
        Busy: another one holds it.
        ExperimentError: there is a link, say, of this name.
    """
    number = _take(path, patience)
    try:
        yield number
    finally:
        os.close(number)


def is_held(path: Path) -> bool:
    """Whether anyone holds a lock; nothing is written for it, or made."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with open_file(path) as file:
            _lock(file.fileno(), alone=False)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def beside(database: Path, name: str, kind: str) -> Path:
    """The lock of an experiment that is kept in a database file, whatever folder its trials are in."""
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return database.with_name(f"{database.name}.{mark}.{kind}.lock")


@final
class Running:
    """Who runs an experiment: one process at a time.

    It holds a lock in the folder, and where the ledger is a database file one beside that, so that two folders with one
    database share it.

    Args:
        folder: of the experiment; its name is the experiment's.
        database: the file of the database, where there is one.
        place: of the ledger, where that is neither a database file nor the journal in the folder.
    """

    def __init__(self, folder: Path, database: Path | None = None, *, place: str = "") -> None:
        self._folder = folder
        self.place = place or str(folder / "journal.log" if database is None else database)
        """Where the ledger is."""
        self._paths = [folder / "running.lock"]
        if database is not None:
            self._paths.append(beside(database, folder.name, "running"))
        self._held: Sequence[int] = ()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Keeps other processes out.

        Raises:
            ExperimentError: another one runs it.
        """
        with ExitStack() as stack:
            try:
                with _there(self._folder):
                    self._held = [stack.enter_context(held(path, patience=_PATIENCE)) for path in self._paths]
            except Busy as busy:
                raise ExperimentError(
                    explain(
                        f"another process runs the experiment {self._folder.name!r}",
                        got=str(busy.args[0].parent),
                        mend="wait for it",
                    )
                ) from None
            try:
                yield
            finally:
                self._held = ()

    def is_taken(self) -> bool:
        """Whether a process runs it; nothing is written for it."""
        return any(is_held(path) for path in self._paths)

    @contextmanager
    def briefly(self) -> Iterator[bool]:
        """Keeps other processes out; or, where one runs it, says False."""
        if self._held:
            yield True
            return
        with ExitStack() as stack:
            try:
                for path in self._paths:
                    stack.enter_context(held(path, patience=_PATIENCE))
            except Busy:
                yield False
                return
            yield True

    def make_sure(self) -> None:
        """That this process, where it runs the experiment, is still the only one which may.

        Raises:
            ExperimentError: the lock, or the folder, has been deleted or replaced.
        """
        for number, path in zip(self._held, self._paths, strict=False):
            if not is_here(number, path):
                gone = path if self._folder.is_dir() else self._folder
                raise ExperimentError(
                    explain(
                        f"{'the lock of a search' if gone is path else 'the folder of an experiment'} was deleted or "
                        "replaced while the search ran, and another process may run it by now; so this one stops, "
                        "and writes no more. What was written before is left as it is",
                        got=str(gone),
                        mend="look whether another process runs it; if none does, go on with it by resume=True, "
                        "or nas resume",
                    )
                )


@contextmanager
def queue_of(folder: Path, database: Path | None = None) -> Iterator[None]:
    """Keeps others from the queue of an experiment, and from what is asked of it; waits.

    Args:
        folder: of the experiment.
        database: the file of the database, where there is one.
    """
    with ExitStack() as stack:
        with _there(folder):
            stack.enter_context(held(folder / "queue.lock"))
            if database is not None:
                stack.enter_context(held(beside(database, folder.name, "queue")))
        yield


@contextmanager
def _there(folder: Path) -> Iterator[None]:
    """A lock is made where it is not there; its folder is not."""
    try:
        with told(folder):
            yield
    except ExperimentError:
        if folder.is_dir():
            raise
        raise ExperimentError(
            explain(
                "the folder of the experiment is not there any more",
                got=str(folder),
                mend="restore it from a copy, or make the experiment anew",
            )
        ) from None
