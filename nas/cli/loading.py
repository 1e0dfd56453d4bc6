"""Opening a file that holds an experiment: what the command line does in place of running it as a script."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations

from nas.errors import NasValueError, close_names, explain
from nas.opened import Handed, Opening, opening_by, remember_how
from nas.search import Experiment


def open_file(target: str, opening: Opening) -> tuple[Experiment, dict[str, Any]]:
    """The experiment that a file holds, and what it would run it with.

    Args:
        target: FILE, or FILE:NAME where it holds several; NAME may be a function that returns one.
        opening: what is to be otherwise.

    Raises:
        NasValueError: there is no such file, or no experiment in it, or several.
    """
    path, _, name = target.rpartition(":") if ":" in target and not Path(target).exists() else (target, "", "")
    file = Path(path).expanduser()
    if not file.is_file():
        near = close_names(file.name, (p.name for p in file.parent.glob("*.py"))) if file.parent.is_dir() else ""
        raise NasValueError(explain(f"there is no such file; {near}" if near else "there is no such file", got=path))
    remember_how(f"{file.resolve()}:{name}" if name else str(file.resolve()), opening.executor)
    with opening_by(opening):
        try:
            module = _import(file)
            return _choose(vars(module), name, path), {}
        except Handed as handed:
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
