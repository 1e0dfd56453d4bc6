"""The Optuna storage of an experiment, opened to look into it or to write: a journal in its folder, or a URL."""

from __future__ import annotations

import atexit
import os
import shutil
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast, final

from nas._compat.optuna_internals import backend_of
from nas.durations import check_seconds
from nas.errors import ExperimentError, MissingDependency, NasError, NasTypeError, explain
from nas.plain_text import secrets_of
from nas.records.attributes import wrong_attribute
from nas.records.disk import (
    Running,
    brief,
    copy_if_torn,
    database_file,
    has_tables,
    in_place,
    queue_of,
    to_look,
    told,
)
from nas.whole_process import SharedSetting

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

HEARTBEAT = "NAS_HEARTBEAT"
"""The environment variable with the time between the heartbeats of the processes that share a server, in seconds."""
_TABLES = 7_269_837_411
"""A number for the lock that is held while tables are made."""


_CUTS = 5
"""So many times in a row a connection may be cut while the storage is opened."""


@final
class Store:
    """Where the ledger of an experiment is kept: looked into, or opened to be written.

    Looking makes, mends and changes nothing, and needs no right to write.

    Args:
        storage: None for a journal in the folder, the URL of an Optuna storage, or one itself.
        folder: of the experiment; its name is the experiment's.

    Raises:
        NasTypeError: the storage is something else.
    """

    def __init__(self, storage: object, folder: Path) -> None:
        import optuna

        if not (storage is None or isinstance(storage, str | optuna.storages.BaseStorage)):
            raise NasTypeError(
                explain(
                    "storage is a URL or an Optuna storage; None keeps a journal in the folder",
                    got=type(storage).__name__ if "://" in str(storage) else storage,
                    mend='storage="sqlite:///folder/file.db"',
                )
            )
        self._storage, self._folder = storage, folder
        self._database = _database_of(storage)
        is_elsewhere = storage is not None and self._database is None
        self.running = Running(folder, self._database, place="the storage" if is_elsewhere else "")
        """The lock of who runs the experiment."""
        self._opened: dict[bool, BaseStorage] = {}

    def queueing(self) -> AbstractContextManager[None]:
        """Keeps others from the queue of the experiment, and from what is asked of it; waits."""
        return queue_of(self._folder, self._database)

    @property
    def has_journal(self) -> bool:
        """Whether it is a journal, of this experiment alone."""
        return self._storage is None

    def look(self) -> BaseStorage | None:
        """The storage, to be read; None where there is nothing yet.

        Raises:
            ExperimentError: what is there is damaged, or something else.
        """
        return self._open(to_write=False)

    def write(self) -> BaseStorage:
        """The storage, to be read and written; it is made where it is not there, and so is the folder.

        Raises:
            ExperimentError: what is there is damaged, or something else; or it cannot be made.
        """
        if True not in self._opened:  # Else it has been deleted since.
            with told(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
        storage = self._open(to_write=True)
        assert storage is not None
        return storage

    def _open(self, *, to_write: bool) -> BaseStorage | None:
        import optuna

        # A journal is opened anew whenever it is read or written: it is the same for both.
        key = to_write or self._database is None
        if key in self._opened:
            return self._opened[key]
        if self._storage is None:
            found: BaseStorage | None = _replayed(self._folder / "journal.log", self.running)
        elif isinstance(self._storage, str):
            found = _of_url(self._storage, to_write=to_write)
        else:
            assert isinstance(self._storage, optuna.storages.BaseStorage)
            is_database = isinstance(self._storage, optuna.storages.RDBStorage)
            found = optuna.storages.get_storage(self._storage) if is_database else self._storage
        if found is not None:
            self._opened[key] = found
        return found


def _database_of(storage: object) -> Path | None:
    if isinstance(storage, str):
        return database_file(storage)
    if storage is None:
        return None
    from optuna.storages import RDBStorage

    backend = backend_of(cast("BaseStorage", storage))
    return database_file(str(backend.engine.url)) if isinstance(backend, RDBStorage) else None


def _replayed(path: Path, running: Running) -> BaseStorage:
    import optuna

    from nas.records.disk import JournalFile

    journal = JournalFile(path, running, attribute=wrong_attribute)
    try:
        return optuna.storages.JournalStorage(journal)
    except NasError:
        raise
    except Exception as error:  # Optuna raises what it likes on what it does not expect.
        raise ExperimentError(
            explain(
                f"the journal is damaged: Optuna cannot take this line ({type(error).__name__}: {brief(str(error))})",
                got=str(journal),
                mend=f"restore the file from a copy; or keep its first {journal.lines - 1} lines alone, and what they "
                "hold is gone on with",
            )
        ) from error


def _of_file(url: str, file: Path, *, to_write: bool) -> BaseStorage | None:
    import optuna

    copy = copy_if_torn(file)
    if copy is not None:
        atexit.register(shutil.rmtree, copy.parent, ignore_errors=True)
    there = has_tables(copy or file)  # One of something else is left alone.
    if to_write:
        return optuna.storages.get_storage(in_place(url))
    if not there:
        return None
    # Else it would make tables, and write into them which version of Optuna has.
    storage = optuna.storages.RDBStorage(to_look(url, copy or file), skip_table_creation=True)
    weakref.finalize(storage, storage.engine.dispose)
    return optuna.storages.get_storage(storage)


def _of_url(url: str, *, to_write: bool) -> BaseStorage | None:
    import optuna

    file = database_file(url)
    try:
        with quiet_optuna():
            if file is not None:
                return _of_file(url, file, to_write=to_write)
            if _is_server(url):
                found = _patiently_on_server(url, to_write=to_write)
                return None if found is None else optuna.storages.get_storage(found)
            return optuna.storages.get_storage(url)
    except NasError:
        raise
    except Exception as error:
        raise _not_opened(url, error, file) from (None if _tells_secrets(url, error) else error)


def _not_opened(url: str, error: BaseException, file: Path | None) -> ExperimentError:
    """SQLAlchemy, its drivers and Optuna raise what they like, and a part of a password may stand in it."""
    said = "" if _tells_secrets(url, error) else f": {error}"
    rule = f"the storage cannot be opened ({type(error).__name__}{said})"
    mend = "check storage=, the URL of an Optuna storage such as sqlite:///folder/file.db"
    if not said:
        mend += '; in a password, write what urllib.parse.quote(password, safe="") makes of it'
    return ExperimentError(
        explain(rule, got=f"a URL of {len(url)} characters" if file is None else str(file), mend=mend)
    )


def _tells_secrets(url: str, error: BaseException | None) -> bool:
    """Whether a piece of the URL's password is in what an error, or one that it came from, says."""
    secrets, seen = secrets_of(url), set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if any(secret in f"{error} {error.args!r}" for secret in secrets):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_server(url: str) -> bool:
    return url.startswith(("postgresql:", "postgresql+"))


def _patiently_on_server(url: str, *, to_write: bool) -> RDBStorage | None:
    """Again where a connection that stood was cut: then the server is there, and no address is wrong."""
    for _ in range(_CUTS):
        try:
            return _on_server(url) if to_write or _has_tables(url) else None
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


def _by_driver(url: str) -> str:
    """Which driver SQLAlchemy takes for a bare URL depends on its version."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def _has_tables(url: str) -> bool:
    """Whether a database of a server has the tables of Optuna."""
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(_by_driver(url))
    except ImportError as error:
        raise _without_driver() from error
    try:
        return bool(sqlalchemy.inspect(engine).has_table("studies"))
    finally:
        engine.dispose()


def _without_driver() -> MissingDependency:
    return MissingDependency("psycopg", purpose="a PostgreSQL storage", extra="postgres")


def _on_server(url: str) -> RDBStorage:
    """A PostgreSQL database for several processes: with heartbeats, and connections that are tried before use."""
    import optuna

    written = os.environ.get(HEARTBEAT, "20")
    seconds = max(1, round(check_seconds(HEARTBEAT, written, above=0, bare=True, where="the environment")))
    url = _by_driver(url)
    try:
        with warnings.catch_warnings(), _first_on(url):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.RDBStorage(
                url, heartbeat_interval=seconds, grace_period=3 * seconds, engine_kwargs={"pool_pre_ping": True}
            )
    except ImportError as error:
        raise _without_driver() from error
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
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging: our own lines tell the story; Optuna's would tell it twice."""
    with _quiet().held():
        yield


@cache
def _quiet() -> SharedSetting[int]:
    from optuna import logging

    return SharedSetting(logging.get_verbosity, logging.set_verbosity, logging.WARNING)
