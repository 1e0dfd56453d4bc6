"""Who may write to a ledger, and whose trials are whose: one process alone, or several by a PostgreSQL server."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, final

from nas._compat.optuna_internals import backend_of, stale_trials, trials_with_heartbeat
from nas.records.disk import Running
from nas.records.retry import patiently

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

T = TypeVar("T")


class TurnLost(Exception):  # noqa: N818 - names the situation
    """The connection that held a process's turn was cut, so another process may have written meanwhile."""


class Sharing(ABC):
    """How the processes that run one experiment keep out of each other's way."""

    def in_turn(self, action: Callable[[], T]) -> T:
        """Does something in which no other process writes; again from its beginning where the turn was lost in it.

        Args:
            action: what it began to do before a turn was lost must not matter, but for what is written by then.

        Returns:
            What the action returned.
        """
        while True:
            try:
                with self.turn():
                    return action()
            except TurnLost:
                continue

    @property
    @abstractmethod
    def is_shared(self) -> bool:
        """Whether there may be other processes."""

    @abstractmethod
    def make_sure(self) -> None:
        """That this process may write.

        Raises:
            ExperimentError: the lock by which it was the only one is gone.
        """

    @abstractmethod
    def turn(self) -> Any:
        """A context in which no other process writes; what would be written after its loss raises TurnLost."""

    @abstractmethod
    def claim(self, trial_id: int) -> None:
        """Takes a trial as this process's own, and lets the others know that it lives."""

    @abstractmethod
    def release(self, trial_id: int) -> None:
        """The trial has ended."""

    @abstractmethod
    def orphans(self, running: Mapping[int, int]) -> list[int]:
        """Which of the running trials (number -> id) no living process runs, this one's own left out."""

    @abstractmethod
    def end(self) -> None:
        """This process runs no more trials."""


@final
class Alone(Sharing):
    """One process at a time: what it finds running belongs to one that was killed.

    Args:
        running: the lock of the process that runs the experiment, where there is one.
    """

    def __init__(self, running: Running | None = None) -> None:
        self._running = running
        self._own: set[int] = set()

    @property
    def is_shared(self) -> bool:
        """No."""
        return False

    def make_sure(self) -> None:
        """By the lock, where this process holds it."""
        if self._running is not None:
            self._running.make_sure()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Always, as long as the lock is there."""
        self.make_sure()
        yield

    def claim(self, trial_id: int) -> None:
        """Takes note."""
        self._own.add(trial_id)

    def release(self, trial_id: int) -> None:
        """Forgets it."""
        self._own.discard(trial_id)

    def orphans(self, running: Mapping[int, int]) -> list[int]:
        """All that this process does not run."""
        return sorted(number for number, trial_id in running.items() if trial_id not in self._own)

    def end(self) -> None:
        """What was its own is nobody's."""
        self._own.clear()


@final
class Joint(Sharing):
    """Any number of processes on any number of hosts.

    Turns are taken by a lock of the server, which frees it when the connection of its holder ends. The storage writes
    over other connections, so each of its transactions makes sure first that the turn has not been lost; and who takes
    a turn waits until no transaction of the one before is under way. The life of each trial is told by Optuna's
    heartbeat.

    Args:
        backend: the storage, with a heartbeat interval.
        name: of the experiment.
        study: finds the id of its study.
    """

    def __init__(self, backend: RDBStorage, name: str, study: Callable[[], int]) -> None:
        self._backend, self._study = backend, study
        self._key, self._writing = _number(name), _number(f"{name}: a transaction")
        self._own: set[int] = set()
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._heart: threading.Thread | None = None
        _guard(backend.engine)

    @property
    def is_shared(self) -> bool:
        """Yes."""
        return True

    def make_sure(self) -> None:
        """Each transaction does."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until no other process has its turn."""
        connection, holder = patiently(self._lock)
        token = _turn.set(_Turn(self._backend.engine, self._key, self._writing, holder))
        try:
            yield
        finally:
            _turn.reset(token)
            with suppress(Exception):  # A connection that was cut has freed the lock.
                connection.exec_driver_sql(f"SELECT pg_advisory_unlock({self._key})")
            with suppress(Exception):
                connection.close()

    def _lock(self) -> tuple[Any, int]:
        connection = self._backend.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({self._key})")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._writing})")
            holder: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection, holder

    def claim(self, trial_id: int) -> None:
        """Its heart beats for this trial from now on."""
        patiently(lambda: self._backend.record_heartbeat(trial_id))
        with self._changing:
            self._own.add(trial_id)
        if self._heart is None:
            self._over.clear()
            self._heart = threading.Thread(target=self._beat, name="nas-heartbeat", daemon=True)
            self._heart.start()

    def _beat(self) -> None:
        interval = self._backend.get_heartbeat_interval()
        while not self._over.wait(interval):
            with self._changing:
                own = list(self._own)
            for trial_id in own:
                with suppress(Exception):  # The server may be away; the next beat comes soon.
                    self._backend.record_heartbeat(trial_id)

    def release(self, trial_id: int) -> None:
        """Its heart beats for it no more."""
        with self._changing:
            self._own.discard(trial_id)

    def orphans(self, running: Mapping[int, int]) -> list[int]:
        """Those whose heartbeat has stopped; or never began, for who starts a trial claims it in the same turn."""
        if not running:
            return []
        stale = patiently(lambda: stale_trials(self._backend, self._study()))
        begun = patiently(lambda: trials_with_heartbeat(self._backend))
        return sorted(
            number
            for number, trial_id in running.items()
            if trial_id not in self._own and (trial_id in stale or trial_id not in begun)
        )

    def end(self) -> None:
        """Its heart stops: what it leaves unfinished is the others'."""
        self._over.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        self._own.clear()


@dataclass(frozen=True)
class _Turn:
    """What is held of the server while a process has its turn."""

    engine: Any
    """Of the storage."""
    key: int
    """Of the lock."""
    writing: int
    """Of the lock that each transaction of the turn shares."""
    holder: int
    """The server's process of the connection that holds the lock."""


_turn: ContextVar[_Turn | None] = ContextVar("_turn", default=None)
"""The turn that this thread has."""

_HELD = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND pid = {holder} AND (classid::bigint << 32 | objid::bigint) = {key}
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _guard(engine: Any) -> None:
    """Every transaction that begins in a turn makes sure of it."""
    from sqlalchemy import event

    if not event.contains(engine, "begin", _make_sure):
        event.listen(engine, "begin", _make_sure)


def _make_sure(connection: Any) -> None:
    turn = _turn.get()
    if turn is None or turn.engine is not connection.engine:
        return
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({turn.writing})")
    if not connection.exec_driver_sql(_HELD.format(holder=turn.holder, key=turn.key)).scalar_one():
        raise TurnLost


def _number(name: str) -> int:
    """A key for a lock of the server, which takes 64 bits."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def share(storage: BaseStorage, name: str, running: Running | None = None) -> Sharing:
    """How the experiment of this name is shared in this storage.

    Args:
        storage: of the ledger.
        name: of the experiment.
        running: the lock of the process that runs it, where that is one alone.

    Raises:
        ExperimentError: a wrapper around what several processes may share, and it cannot be looked into.
    """
    from optuna.storages import RDBStorage

    backend = backend_of(storage)
    if not isinstance(backend, RDBStorage) or backend.engine.dialect.name != "postgresql":
        return Alone(running)
    if backend.get_heartbeat_interval() is None:
        return Alone(running)
    return Joint(backend, name, lambda: backend.get_study_id_from_name(name))
