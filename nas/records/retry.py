"""Waiting for a database that is away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 30, 30, 60, 60, 60)
"""Seconds between tries: five minutes in all."""


def patiently(action: Callable[[], T]) -> T:
    """Does something that may be done twice, again and again while the connection to the database is broken.

    Raises:
        Exception: what the last try raised.

    Example:
        >>> patiently(lambda: 3)
        3
    """
    for pause in _PAUSES:
        try:
            return action()
        except Exception as error:
            if not is_broken_connection(error):
                raise
            time.sleep(pause)
    return action()


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
