"""What the command line has set while it opens a file that holds an experiment: what the experiment asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final


@final
@dataclass(frozen=True, kw_only=True)
class Opening:
    """What is to be otherwise than the file says, where it is not None."""

    directory: str | None = None
    storage: str | None = None
    executor: str | None = None
    resume: bool | None = None
    accept_changes: bool | None = None

    def apply(self, **given: Any) -> tuple[Any, ...]:
        """The arguments of an experiment as they are to be, in the order of the fields here."""
        return tuple(given[name] if getattr(self, name) is None else getattr(self, name) for name in given)


_OPENING: ContextVar[Opening | None] = ContextVar("nas_opening", default=None)
_HOW: ContextVar[Mapping[str, str | None]] = ContextVar("nas_how", default=MappingProxyType({}))


@final
class Handed(BaseException):
    """Carries an experiment out of a file that would run it; no Exception, lest the file catches it."""

    def __init__(self, experiment: Any, arguments: Mapping[str, Any]) -> None:
        self.experiment, self.arguments = experiment, dict(arguments)


def opened(**given: Any) -> tuple[Any, ...]:
    """The arguments of an experiment, those that the command line sets replaced."""
    opening = _OPENING.get()
    return tuple(given.values()) if opening is None else opening.apply(**given)


def hand_over(experiment: Any, **arguments: Any) -> None:
    """Called by `run`: ends the file there when it is only being opened."""
    if _OPENING.get() is not None:
        raise Handed(experiment, arguments)


def opened_how() -> dict[str, str | None]:
    """FILE[:NAME] that the command line has opened last, as an absolute path, and the executor it has set."""
    return dict(_HOW.get())


def remember_how(file: str, executor: str | None) -> None:
    """Takes note of what `opened_how` is to tell."""
    _HOW.set({"file": file, "executor": executor})


@contextmanager
def opening_by(opening: Opening) -> Iterator[None]:
    """Inside, an experiment that is made is made as `opening` says, and one that is run is handed over."""
    token = _OPENING.set(opening)
    try:
        yield
    finally:
        _OPENING.reset(token)
