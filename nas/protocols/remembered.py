"""What strategies and evaluators were made with: their arguments, remembered by their base classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, TypeVar, final

from nas.brief import call_text
from nas.calls import explain_construction

R = TypeVar("R", bound="Remembers")


@final
class _Given:
    """The arguments of a constructor; a copy or a pickle of what they have made need not carry them along."""

    def __init__(self, args: tuple[Any, ...] = (), keywords: Mapping[str, Any] | None = None) -> None:
        self.args, self.keywords = args, keywords or {}

    def __reduce__(self) -> tuple[type[_Given], tuple[()]]:
        return _Given, ()

    def __deepcopy__(self, memo: object) -> _Given:
        return self


class Remembers:
    """Remembers the arguments of its construction, for whoever asks later whether it is made as it was before.

    Those that its constructor does not take are refused in words.

    Any class below it does so by itself; what is set by hand later is not looked at.
    """

    may_change: ClassVar[frozenset[str]] = frozenset()
    """Arguments that decide no result: a search may be gone on with under others."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            explain_construction(cls)
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]  # it is called the same way

    def __repr__(self) -> str:
        """How it was made, in one line."""
        return call_text(type(self).__name__, given_arguments(self) or {})

    def omitted(self) -> Mapping[str, Any]:
        """What arguments are that were left out or None, where the signature does not say: those of `**keywords`."""
        return {}

    def decisive(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the arguments that decide results: all but those that `may_change`."""
        return {name: value for name, value in arguments.items() if name not in self.may_change}


def arguments_of(thing: Remembers) -> dict[str, Any]:
    """The arguments by name: positional ones too, and those that were left out by their defaults.

    Example:
        >>> class Wide(Remembers):
        ...     def __init__(self, width, *, depth=3, **others):
        ...         pass
        ...     def omitted(self):
        ...         return {"rate": 0.1}
        >>> arguments_of(Wide(4, size=2))
        {'width': 4, 'depth': 3, 'size': 2, 'rate': 0.1}
    """
    given: _Given | None = vars(thing).get(_KEPT_AS)
    made: Any = thing
    if given is None and is_dataclass(made):
        found = {field.name: getattr(made, field.name) for field in fields(made) if field.init}
        return {**thing.omitted(), **found}
    given = given or _Given()
    named = bound_arguments(type(thing), given.args, given.keywords)
    omitted = thing.omitted()
    return {**named, **omitted, **{name: value for name, value in named.items() if value is not None}}


def given_arguments(thing: Remembers) -> dict[str, Any] | None:
    """The arguments that were given, by name, without those that are None; None where that is not known any more.

    Example:
        >>> class Wide(Remembers):
        ...     def __init__(self, width, *, depth=3, rate=0.1):
        ...         pass
        >>> given_arguments(Wide(4, rate=0.1))
        {'width': 4, 'rate': 0.1}
    """
    given: _Given | None = vars(thing).get(_KEPT_AS)
    if given is None or not (given.args or given.keywords):
        return None
    signature = inspect.signature(type(thing))
    named: dict[str, Any] = {}
    for name, value in signature.bind_partial(*given.args, **given.keywords).arguments.items():
        named |= value if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return {name: value for name, value in named.items() if value is not None}


def made_again(thing: R, more: Mapping[str, Any]) -> R:
    """Another one, made with the same arguments and these besides.

    Example:
        >>> class Wide(Remembers):
        ...     def __init__(self, width, *, depth=3):
        ...         self.depth = depth
        >>> made_again(Wide(4), {"depth": 5}).depth
        5
    """
    given: _Given = vars(thing)[_KEPT_AS]
    return type(thing)(*given.args, **{**given.keywords, **more})


def bound_arguments(
    function: Callable[..., object], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """What a function is called with, by name: positional arguments too, and those left out by their defaults.

    Example:
        >>> bound_arguments(lambda width, depth=3, *rest, **others: None, (1, 2, 5), {"size": 4})
        {'width': 1, 'depth': 2, 'rest': (5,), 'size': 4}
    """
    signature = inspect.signature(function)
    bound = signature.bind_partial(*args, **keywords)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        named |= value if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


_KEPT_AS = "_remembered_arguments"


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def remember(self: Any, *args: Any, **keywords: Any) -> None:
        if _KEPT_AS not in vars(self):  # else a class below has remembered its own
            object.__setattr__(self, _KEPT_AS, _Given(args, keywords))
        init(self, *args, **keywords)

    return remember
