"""A judgement that a device may still be at, and the place where it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, final

from nas.oneshot.judged.lanes import Lane
from nas.oneshot.judged.passes import JudgedPasses

T = TypeVar("T")


@final
@dataclass(eq=False)
class Place:
    """Where one model of several is judged at a time."""

    lane: Lane
    number: int
    begun: Begun[Any] | None = field(default=None, repr=False)
    """The judgement that was begun here, and not asked for yet."""


@final
class Begun(Generic[T]):
    """What was begun in a place, and takes it until it is asked for.

    Args:
        place: where.
        read: reads what was found, when the device is done.
        checks: whether that is right; may read too.
        passes: of the model.
        again: finds it in another way, where it is not right.
    """

    def __init__(
        self,
        place: Place,
        read: Callable[[], T],
        checks: Sequence[Callable[[], bool]],
        passes: JudgedPasses,
        *,
        again: Callable[[], T],
    ) -> None:
        self._place, self._passes, self._checks = place, passes, checks
        self._ways: tuple[Callable[[], T], Callable[[], T]] | None = read, again
        self._found: list[T] = []
        place.begun = self

    def __call__(self) -> T:
        """What was found; waits for the device."""
        if self._ways is not None:
            (read, again), self._ways = self._ways, None
            self._place.lane.wait()
            self._place.begun = None
            self._passes.forget()
            self._found.append(read() if all(check() for check in self._checks) else again())
        return self._found[0]
