"""Opening the Optuna storage of an experiment: a journal in its folder, mended where a kill has torn it, or a URL."""

from __future__ import annotations

import json
import os
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas.checks import absolute
from nas.durations import check_seconds
from nas.errors import ExperimentError, MissingDependency, NasTypeError, explain
from nas.whole_process import SharedSetting

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

HEARTBEAT = "NAS_HEARTBEAT"
"""The environment variable with the time between the heartbeats of the processes that share a server, in seconds."""
_TABLES = 7_269_837_411
"""A number for the lock that is held while tables are made."""


_CUTS = 5
"""So many times in a row a connection may be cut while the storage is opened."""


def open_storage(storage: object, folder: Path) -> BaseStorage:
    """The Optuna storage of an experiment: a journal in its folder, a URL, or a storage object.

    Raises:
        NasTypeError: something else.
    """
    import optuna

    if storage is None:
        path = folder / "journal.log"
        folder.mkdir(parents=True, exist_ok=True)
        from nas.records.journal import JournalFile, JournalLock

        lock = JournalLock(f"{path}.lock")
        lock.acquire()
        try:
            mend_journal(path)
        finally:
            lock.release()
        return optuna.storages.JournalStorage(JournalFile(str(path), lock))
    if isinstance(storage, str):
        try:
            with quiet_optuna():
                if _is_server(storage):
                    return optuna.storages.get_storage(_patiently_on_server(storage))
                return optuna.storages.get_storage(_in_place(storage))
        except MissingDependency:
            raise
        except Exception as error:
            # SQLAlchemy, its drivers and Optuna raise what they like. The URL may hold a password: do not repeat it.
            raise ExperimentError(
                explain(
                    f"the storage cannot be opened ({type(error).__name__}: {error})",
                    got=f"a URL of {len(storage)} characters",
                    mend="check storage=, the URL of an Optuna storage such as sqlite:///folder/file.db",
                )
            ) from error
    if isinstance(storage, optuna.storages.RDBStorage):
        return optuna.storages.get_storage(storage)
    if isinstance(storage, optuna.storages.BaseStorage):
        return storage
    raise NasTypeError(
        explain(
            "storage is a URL or an Optuna storage; None keeps a journal in the folder",
            got=storage,
            mend='storage="sqlite:///folder/file.db"',
        )
    )


def _in_place(url: str) -> str:
    """The URL of a database file with its whole path, for connections are opened one by one, wherever one is then."""
    prefix, separator, path = url.partition(":///")
    if not separator or not prefix.startswith("sqlite") or not path or path.startswith((":memory:", "file:")):
        return url
    path, mark, options = path.partition("?")
    return f"{prefix}:///{absolute(path)}{mark}{options}"


def _is_server(url: str) -> bool:
    return url.startswith(("postgresql:", "postgresql+"))


def _patiently_on_server(url: str) -> RDBStorage:
    """Again where a connection that stood was cut: then the server is there, and no address is wrong."""
    for _ in range(_CUTS):
        try:
            return _on_server(url)
        except Exception as error:
            if not _was_cut(error):
                raise
            time.sleep(0.5)
    return _on_server(url)


def _was_cut(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__name__ == "AdminShutdown" or getattr(error, "connection_invalidated", False):
            return True
        error = error.__cause__ or error.__context__
    return False


def _on_server(url: str) -> RDBStorage:
    """A PostgreSQL database for several processes: with heartbeats, and connections that are tried before use."""
    import optuna

    written = os.environ.get(HEARTBEAT, "20")
    seconds = max(1, round(check_seconds(HEARTBEAT, written, above=0, bare=True, where="the environment")))
    # Which driver SQLAlchemy takes for a bare URL depends on its version.
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        with warnings.catch_warnings(), _first_on(url):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.RDBStorage(
                url, heartbeat_interval=seconds, grace_period=3 * seconds, engine_kwargs={"pool_pre_ping": True}
            )
    except ImportError as error:
        raise MissingDependency("psycopg", purpose="a PostgreSQL storage", extra="postgres") from error
    weakref.finalize(storage, storage.engine.dispose)
    return storage


@contextmanager
def _first_on(url: str) -> Iterator[None]:
    """Optuna creates its tables when it finds none, and fails where two processes do so at once."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_TABLES})")
            yield
    finally:
        engine.dispose()


@contextmanager
def exclusively(folder: Path, *, patient: bool = False, name: str = "running.lock") -> Iterator[None]:
    """One process at a time runs an experiment that is kept in a folder.

    Args:
        folder: of the experiment.
        patient: whether to wait for the other one.
        name: of the lock.

    Raises:
        ExperimentError: another one runs it.
    """
    import filelock

    lock = filelock.FileLock(str(folder / name))
    try:
        lock.acquire(timeout=-1 if patient else 0)
    except filelock.Timeout as error:
        raise ExperimentError(
            explain(f"another process runs the experiment {folder.name!r}", got=str(folder), mend="wait for it")
        ) from error
    try:
        yield
    finally:
        lock.release()


def queueing(folder: Path) -> AbstractContextManager[None]:
    """Keeps others from the queue of an experiment that is kept in a folder, and from what is asked of it; waits."""
    return exclusively(folder, patient=True, name="queue.lock")


def mend_journal(path: Path) -> int:
    """Cuts off what a killed process or a full disk left of a last line; nothing that was finished is in it.

    Returns:
        How many bytes it cut.
    """
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        whole = 0
        for line in file:
            if not line.endswith(b"\n") or not _is_json(line):
                break
            whole += len(line)
        torn = file.seek(0, os.SEEK_END) - whole
        file.seek(whole)
        if torn and b"\n" in file.read().rstrip(b"\n\0"):
            raise ExperimentError(
                explain(
                    "a line in the middle of the journal is damaged, so more than the last record is at stake",
                    got=f"{path}, byte {whole}",
                    mend="restore the file from a copy, or delete the damaged lines by hand",
                )
            )
        if torn:
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
    return torn


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging: our own lines tell the story; Optuna's would tell it twice."""
    with _quiet().held():
        yield


@cache
def _quiet() -> SharedSetting[int]:
    from optuna import logging

    return SharedSetting(logging.get_verbosity, logging.set_verbosity, logging.WARNING)
