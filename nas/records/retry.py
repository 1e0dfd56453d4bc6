"""Waiting for a database that is away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from nas.errors import ExperimentError, NasError, explain
from nas.records.disk import brief, of_disk

T = TypeVar("T")

_PAUSES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 30, 30, 60, 60, 60)
"""Seconds between tries: five minutes in all."""


def patiently(action: Callable[[], T], place: str = "the ledger") -> T:
    """Does something that may be done twice, again and again while the connection to the database is broken.

    Args:
        action: what is done.
        place: where the database is, for messages.

    Raises:
        ExperimentError: the disk is full, or the database file cannot be used.
        Exception: what else the last try raised.

    Example:
        >>> patiently(lambda: 3)
        3
    """
    for pause in (*_PAUSES, None):
        try:
            return action()
        except Exception as error:
            if pause is None or not is_broken_connection(error):
                if (found := of_disk(error, place)) is not None:
                    raise found from error
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def read_patiently(action: Callable[[], T], place: str) -> T:
    """Reads from a storage, patiently; whatever Optuna raises on what it does not expect is one kind of error.

    Args:
        action: reads.
        place: where the storage is, for messages.

    Raises:
        ExperimentError: what is there is damaged, or cannot be read.
    """
    return patiently(lambda: read_once(action, place), place)


def read_once(action: Callable[[], T], place: str) -> T:
    """The same, or an error at once where a database is away."""
    try:
        return action()
    except NasError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise ExperimentError(
            explain(
                f"the ledger is damaged: Optuna cannot read it ({type(error).__name__}: {brief(str(error))})",
                got=place,
                mend="restore it from a copy",
            )
        ) from error


def is_broken_connection(error: BaseException | None) -> bool:
    """Whether an error says that the database cannot be reached, and not that it refuses what it was asked."""
    while error is not None:
        if type(error).__module__.startswith("sqlalchemy.") and type(error).__name__ in (
            "OperationalError",
            "InterfaceError",
            "PendingRollbackError",
        ):
            return "sqlite" not in str(error)
        if getattr(error, "connection_invalidated", False):
            return True
        error = error.__cause__ or error.__context__
    return False
