"""Opening a file that holds an experiment: what the command line does in place of running it as a script."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations

from nas.errors import NasValueError, close_names, explain

if TYPE_CHECKING:
    from nas.experiment import Experiment


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


class _Handed(BaseException):
    """Carries an experiment out of a file that would run it; no Exception, lest the file catches it."""

    def __init__(self, experiment: Experiment, arguments: Mapping[str, Any]) -> None:
        self.experiment, self.arguments = experiment, dict(arguments)


def opened(**given: Any) -> tuple[Any, ...]:
    """The arguments of an experiment, those that the command line sets replaced."""
    opening = _OPENING.get()
    return tuple(given.values()) if opening is None else opening.apply(**given)


def hand_over(experiment: Experiment, **arguments: Any) -> None:
    """Called by `run`: ends the file there when it is only being opened."""
    if _OPENING.get() is not None:
        raise _Handed(experiment, arguments)


def opened_how() -> dict[str, str | None]:
    """FILE[:NAME] that the command line has opened last, as an absolute path, and the executor it has set."""
    return dict(_HOW.get())


@contextmanager
def _opening(opening: Opening) -> Iterator[None]:
    token = _OPENING.set(opening)
    try:
        yield
    finally:
        _OPENING.reset(token)


def open_file(target: str, opening: Opening) -> tuple[Experiment, dict[str, Any]]:
    """The experiment that a file holds, and what it would run it with.

    Args:
        target: FILE, or FILE:NAME where it holds several; NAME may be a function that returns one.
        opening: what is to be otherwise.

    Raises:
        NasValueError: there is no such file, or no experiment in it, or several.
    """
    path, _, name = target.rpartition(":") if ":" in target and not Path(target).exists() else (target, "", "")
    file = Path(path)
    if not file.is_file():
        near = close_names(file.name, (p.name for p in file.parent.glob("*.py"))) if file.parent.is_dir() else ""
        raise NasValueError(explain(f"there is no such file; {near}" if near else "there is no such file", got=path))
    _HOW.set({"file": f"{file.resolve()}:{name}" if name else str(file.resolve()), "executor": opening.executor})
    with _opening(opening):
        try:
            module = _import(file)
            return _choose(vars(module), name, path), {}
        except _Handed as handed:
            return handed.experiment, handed.arguments


def _import(file: Path) -> Any:
    name = file.stem if file.stem not in sys.modules else f"{file.stem}_opened"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise NasValueError(explain("an experiment is held by a Python file", got=str(file)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    cloudpickle.register_pickle_by_value(module)  # Workers know nothing of this file.
    spec.loader.exec_module(module)
    return module


def _choose(names: Mapping[str, Any], name: str, path: str) -> Experiment:
    from nas.experiment import Experiment

    found = {key: value for key, value in names.items() if isinstance(value, Experiment)}
    if name:
        chosen = names.get(name)
        if callable(chosen) and not isinstance(chosen, Experiment | type):
            chosen = chosen()
        if not isinstance(chosen, Experiment):
            raise NasValueError(
                explain(f"{path} holds no experiment of this name; {close_names(name, found)}", got=name)
            )
        return chosen
    if len({id(value) for value in found.values()}) != 1:
        mend = f"say which: {path}:{next(iter(found))}" if found else "assign it to a variable, outside any `if`"
        raise NasValueError(explain(f"{path} must hold one experiment", got=sorted(found), mend=mend))
    return next(iter(found.values()))
