"""When two classes are one kind, although a program has made each of them anew."""

from __future__ import annotations

from types import CodeType
from typing import Any


def same_kind(a: type, b: type) -> bool:
    """Whether two classes are made of the same: one class, or two that the same lines have made.

    A class that stands in a constructor is another object each time that it runs, and torch makes a class for each
    module that it gives a parametrization. Such classes have a module, a name, bases and the code of methods in common.
    What their methods hold on to (a width from around them) may differ, as the arguments of a constructor may.

    Example:
        >>> def made(scale):
        ...     class Scale:
        ...         def forward(self, x):
        ...             return scale * x
        ...     return Scale
        >>> made(2) is made(3), same_kind(made(2), made(3)), same_kind(made(2), int)
        (False, True, False)
    """
    if a is b:
        return True
    if (a.__module__, a.__qualname__) != (b.__module__, b.__qualname__) or len(a.__bases__) != len(b.__bases__):
        return False
    return all(map(same_kind, a.__bases__, b.__bases__)) and _codes(a) == _codes(b)


def _codes(cls: type) -> dict[str, list[CodeType]]:
    """The code of each method that stands in the class itself."""
    found = {name: _code_of(value) for name, value in vars(cls).items()}
    return {name: code for name, code in found.items() if code}


def _code_of(value: Any) -> list[CodeType]:
    """Of a function, of those of a property, of one that is wrapped as a static or class method or by a decorator."""
    parts = [getattr(value, name, None) for name in ("__func__", "fget", "fset", "fdel", "__wrapped__")]
    own = getattr(value, "__code__", None)
    inside = [code for part in parts if part is not None for code in _code_of(part)]
    return [own, *inside] if isinstance(own, CodeType) else inside
