"""Which modules a fresh process finds, and where in a module an object is."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import final

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations

_PROBE = """
import importlib.util, json, sys
found = None
try:
    found = importlib.util.find_spec(sys.argv[1])
except (ImportError, ValueError):
    pass
places = [] if found is None else [found.origin, *(found.submodule_search_locations or ())]
print(json.dumps([place for place in places if place]))
"""


def _roots() -> list[str]:
    """The folders of what is installed, and of Python's own modules."""
    folders = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    return [os.path.realpath(folder) for folder in folders]


_ROOTS = tuple(_roots())


def is_installed(name: str) -> bool:
    """Whether a module is Python's own, lies in a folder of installed packages, or belongs to this library."""
    top = name.partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return True
    return any(Path(place).is_relative_to(root) for place in _places_of(sys.modules.get(top)) for root in _ROOTS)


def _places_of(module: ModuleType | None) -> set[str]:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return {os.path.realpath(place) for place in places if place}


@final
class Places:
    """Finds modules as a fresh process in another folder would; each is looked for once."""

    def __init__(self) -> None:
        self._found: dict[str, bool] = {}

    def can_import(self, module: ModuleType) -> bool:
        """Whether a fresh process imports this very module by its name, and importing it runs no experiment."""
        name = module.__name__
        if name == "__main__" or name in cloudpickle.list_registry_pickle_by_value():  # what its user sends whole
            return False
        top = name.partition(".")[0]
        if not all(part.isidentifier() for part in name.split(".")) or sys.modules.get(name) is not module:
            return False
        if top not in self._found:
            self._found[top] = self._is_found(top)
        return self._found[top]

    def _is_found(self, top: str) -> bool:
        places = _places_of(sys.modules.get(top))
        if is_installed(top) or not places:  # without a place it was made by a program
            return is_installed(top)
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, top], capture_output=True, text=True, cwd=folder, check=False
            )
        found = {os.path.realpath(place) for place in (json.loads(done.stdout) if done.returncode == 0 else [])}
        return bool(found & places)


def home_of(value: object) -> tuple[ModuleType, str] | None:
    """The module that an object is in, and the dotted name under which it is there; None where there is none."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    for module in _homes(value, name):
        if lookup(module, name) is value:
            return _door(module, name, value), name
        for other, found in list(vars(module).items()):
            if found is value and other.isidentifier():
                return module, other
    return None


def _door(module: ModuleType, name: str, value: object) -> ModuleType:
    """The outermost package that shows what one of its modules defines: `torch.nn` for its layers."""
    if not is_installed(module.__name__):  # where the source is needed, it is that of the module itself
        return module
    parts = module.__name__.split(".")
    for length in range(1, len(parts)):
        package = sys.modules.get(".".join(parts[:length]))
        if package is not None and lookup(package, name) is value:
            return package
    return module


def _homes(value: object, name: str) -> Iterator[ModuleType]:
    home = getattr(value, "__module__", None)
    if isinstance(home, str):
        if home in sys.modules:
            yield sys.modules[home]
        return
    # Functions written in C often do not say: torch.relu is found by its name alone.
    for known in sorted(sys.modules, key=lambda known: (known.count("."), "_" in known, known)):
        module = sys.modules[known]
        if isinstance(module, ModuleType) and vars(module).get(name.rpartition(".")[2]) is value:
            yield module


def lookup(module: ModuleType, name: str) -> object:
    """What a dotted name stands for in a module; None where it stands for nothing."""
    found: object = module
    for part in name.split("."):
        if not part.isidentifier():
            return None
        found = getattr(found, part, None)
    return found
