"""Names of a door that are loaded when they are first asked for, as what they need is heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def late(door: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package.

    They are to be hidden from type checkers, for whom a package with a `__getattr__` has whatever name one writes.

    Args:
        door: the name of the package.
        names: each of its late names, and the module that has it; or, as `nas.export`, is it.
    """

    def get(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {door!r} has no attribute {name!r}", name=name, obj=sys.modules[door])
        module = import_module(names[name])
        found = module if names[name] == f"{door}.{name}" else getattr(module, name)
        vars(sys.modules[door])[name] = found  # The next time it is there.
        return found

    return get, lambda: sorted({*vars(sys.modules[door]), *names})
