"""What the command line has to do with the experiments of a file that it opens."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Opening(ABC):
    """A file that is being opened: hears of the experiments that it makes, and takes over their runs."""

    @property
    @abstractmethod
    def how(self) -> Mapping[str, Any]:
        """How the file is opened again: what is noted of it beside the limits of a run."""

    @abstractmethod
    def otherwise(self, number: int, name: str, *, is_loaded: bool) -> Mapping[str, Any]:
        """The arguments of an experiment that are to be otherwise than the file says.

        Args:
            number: how many experiments the file has begun to make before this one.
            name: that the file gives it.
            is_loaded: whether the file says in which folder it lies, by `Experiment.load`.
        """

    @abstractmethod
    def made(self, experiment: Any, *, is_loaded: bool) -> None:
        """An experiment has been made."""

    @abstractmethod
    def run(self, experiment: Any, arguments: Mapping[str, Any]) -> bool:
        """An experiment is to be run.

        Args:
            experiment: to be run.
            arguments: those of its `run`.

        Returns:
            Whether that has been seen to; else it runs as the file says.
        """


_OPENING: ContextVar[Opening | None] = ContextVar("nas_opening", default=None)
_BEGUN: ContextVar[int] = ContextVar("nas_begun", default=0)
"""How many experiments this process, or the file that is being opened, has begun to make."""
_LOADS: ContextVar[bool] = ContextVar("nas_loads", default=False)


def opened(*, name: str, **given: Any) -> tuple[Any, ...]:
    """The arguments of an experiment that is being made, those that the command line sets replaced."""
    number, opening = _BEGUN.get(), _OPENING.get()
    _BEGUN.set(number + 1)
    otherwise = {} if opening is None else opening.otherwise(number, name, is_loaded=_LOADS.get())
    return tuple({**{"name": name, **given}, **otherwise}.values())


def opening_of(experiment: Any) -> Opening | None:
    """Says that an experiment has been made; by whom its runs are taken over, in whatever thread they are called."""
    opening = _OPENING.get()
    if opening is not None:
        opening.made(experiment, is_loaded=_LOADS.get())
    return opening


def opened_how() -> dict[str, Any]:
    """How the experiment that is being made can be made again: by a file, with arguments, as one of several."""
    opening, script = _OPENING.get(), getattr(sys.modules.get("__main__"), "__file__", None)
    how: dict[str, Any] = {}
    if opening is not None:
        how.update(opening.how)
    elif script is not None:
        how.update(file=os.path.abspath(script), arguments=sys.argv[1:])
        if (spec := getattr(sys.modules["__main__"], "__spec__", None)) is not None:
            how.update(module=spec.name)  # by `python -m`
    return {**how, "place": _BEGUN.get() - 1}


@contextmanager
def loading() -> Iterator[None]:
    """Inside, an experiment is made that lies where the file says."""
    token = _LOADS.set(True)
    try:
        yield
    finally:
        _LOADS.reset(token)


@contextmanager
def opening_by(opening: Opening | None) -> Iterator[None]:
    """Inside, experiments that are made belong to a file that is being opened; to none of these where it is None."""
    opening_token, begun_token = _OPENING.set(opening), _BEGUN.set(0)
    try:
        yield
    finally:
        _OPENING.reset(opening_token)
        _BEGUN.reset(begun_token)
