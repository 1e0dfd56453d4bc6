"""What is set for a whole process and belongs to nobody: several experiments may run in threads of one process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class SharedSetting(Generic[T]):
    """A setting of the process that is another one for a while, for as long as any thread needs it.

    Each thread by itself would put back what another one has set.

    Args:
        get: the setting as it is.
        put: sets it.
        value: what it is for that while.

    Example:
        >>> settings = {"threads": 8}
        >>> alone = SharedSetting(lambda: settings["threads"], lambda value: settings.update(threads=value), 1)
        >>> with alone.held(), alone.held():
        ...     print(settings)
        {'threads': 1}
        >>> settings
        {'threads': 8}
    """

    def __init__(self, get: Callable[[], T], put: Callable[[T], object], value: T) -> None:
        self._get, self._put, self._value = get, put, value
        self._before: list[T] = []
        self._users, self._changing = 0, threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the setting has its value."""
        with self._changing:
            self._users += 1
            if self._users == 1:
                self._before = [self._get()]
                self._put(self._value)
        try:
            yield
        finally:
            with self._changing:
                self._users -= 1
                if self._users == 0:
                    self._put(self._before.pop())


_WARNINGS = threading.RLock()


@contextmanager
def own_warnings() -> Iterator[None]:
    """As `warnings.catch_warnings`, which one thread after the other may use; for moments alone."""
    with _WARNINGS, warnings.catch_warnings():
        yield


_GENERATORS = threading.RLock()
"""Of the global random generators: whoever seeds them has them for himself."""


@contextmanager
def generators_taken() -> Iterator[None]:
    """Inside, no other thread of ours seeds the global random generators or puts them back; waits for one that does."""
    with _GENERATORS:
        yield


@contextmanager
def generators_if_free(seconds: float = 0.0) -> Iterator[bool]:
    """The same, but waits so long at most; whether they are taken is what it yields."""
    taken = _GENERATORS.acquire(timeout=seconds) if seconds else _GENERATORS.acquire(blocking=False)
    try:
        yield taken
    finally:
        if taken:
            _GENERATORS.release()
