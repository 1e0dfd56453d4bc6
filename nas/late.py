"""Names of a door that are loaded when they are first asked for, as what they need is heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def late(door: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package.

    Args:
        door: the name of the package.
        names: each of its late names, and the module that has it.
    """

    def get(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {door!r} has no attribute {name!r}")
        return getattr(import_module(names[name]), name)

    return get, lambda: sorted({*vars(sys.modules[door]), *names})
