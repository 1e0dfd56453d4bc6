"""Calls that do not fit a signature, said in words: which argument is not known, too much, or missing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeVar

from nas.errors import NasTypeError, close_names, explain, nearest

F = TypeVar("F", bound=Callable[..., Any])

CALLS = __file__
"""The file of the frames that stand between a caller and a function that explains wrong calls."""

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def explained(*, too_many: str = "", methods: bool = False) -> Callable[[F], F]:
    """Decorates a function or a class: a call that does not fit its signature is a NasTypeError with a mend.

    What is raised inside the function passes as it is.

    Args:
        too_many: how to mend a call with too many arguments by position.
        methods: of a class, whether calls of its public methods are explained too.

    Example:
        >>> @explained()
        ... def train(model, *, learning_rate=0.1):
        ...     return learning_rate
        >>> train(None, lr=0.2)
        Traceback (most recent call last):
        ...
        nas.errors.NasTypeError: train has no argument 'lr'; did you mean 'learning_rate'? Received {'lr': 0.2}. To ...
    """

    def decorate(thing: F) -> F:
        if not isinstance(thing, type):
            made: F = _explaining(thing, thing.__qualname__, too_many)  # type: ignore[assignment]  # called the same way
            return made
        explain_construction(thing, too_many=too_many)
        for name, method in list(vars(thing).items()) if methods else ():
            if isinstance(method, FunctionType) and not name.startswith("_"):
                setattr(thing, name, _explaining(method, name, ""))
            elif isinstance(method, classmethod):
                setattr(thing, name, classmethod(_explaining(method.__func__, name, "")))
        return thing

    return decorate


def explain_construction(cls: type, *, too_many: str = "") -> None:
    """Makes a class say what is wrong with the arguments of its constructor; see `explained`."""
    kind: Any = cls
    if kind.__init__ is object.__init__:

        def construct(self: Any) -> None:
            super(kind, self).__init__()

        kind.__init__ = _explaining(construct, kind.__name__, too_many)
    elif not hasattr(kind.__init__, _EXPLAINS):
        kind.__init__ = _explaining(kind.__init__, kind.__name__, too_many)


_EXPLAINS = "_nas_explains_calls"


def _explaining(function: Callable[..., Any], name: str, too_many: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        wrong = None
        try:
            return function(*args, **keywords)
        except TypeError as error:
            # The first entry is this frame; where a second one is there, the call fitted, and something in it failed.
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            wrong = _wrong(function, args, keywords, name, too_many)
            if wrong is None:
                raise
        raise wrong

    setattr(call, _EXPLAINS, True)
    return call


def _wrong(
    function: Callable[..., Any], args: tuple[Any, ...], keywords: Mapping[str, Any], name: str, too_many: str
) -> NasTypeError | None:
    found = misfit(function, args, keywords)
    if found is None:
        return None
    words, got, mend = found
    label = keywords.get("label")
    where = f"{name} {label!r}" if isinstance(label, str) else name
    if too_many and isinstance(got, tuple):
        mend = too_many
    return NasTypeError(explain(f"{where} {words}", got=got, mend=mend))


def misfit(
    function: Callable[..., Any], args: tuple[Any, ...] = (), keywords: Mapping[str, Any] | None = None
) -> tuple[str, object, str] | None:
    """What is wrong with a call, by the signature of what is called.

    Returns:
        What the function does not take or lacks, in words that go behind its name; what was given; and how to mend it.
        None where the call fits, or the function has no signature to look at.

    Example:
        >>> misfit(lambda width, depth: None, (1,))
        ("needs 'depth'", (1,), 'depth=...')
        >>> misfit(lambda width: None, (1,), {"dept": 2})[0]
        "has no argument 'dept'; there are none"
    """
    keywords = dict(keywords or {})
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # Some of C have none.
        return None
    try:
        signature.bind(*args, **keywords)
    except TypeError as error:
        reason = str(error)
    else:
        return None
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in ("self", "cls") and args:
        parameters, args = parameters[1:], args[1:]
    places = [p for p in parameters if p.kind in _BY_POSITION]
    names = [p.name for p in parameters if p.kind in _BY_NAME]
    kinds = {p.kind for p in parameters}
    taken = [p.name for p in places[: len(args)]]
    unknown = [name for name in keywords if name not in names]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        free = [name for name in names if name not in taken and name not in keywords]
        near = nearest(unknown[0], free)
        words = f"has no argument {unknown[0]!r}; {close_names(unknown[0], free)}"
        mend = f"{near[0]}=..." if near else f"leave {unknown[0]} out"
        return words, {name: keywords[name] for name in unknown}, mend
    if len(args) > len(places) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        first = ", ".join(p.name for p in places)
        others = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        words = f"takes {_count(len(places))} by position{f' ({first})' if first else ''}"
        words += f", the others by name ({', '.join(others)})" if others else ""
        mend = f"say which argument it is: {others[0]}=..." if others else "leave the others out"
        return words, args, mend
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind in (*_BY_POSITION, p.KEYWORD_ONLY)
        and p.name not in taken
        and p.name not in keywords
    ]
    if missing:
        given: object = args if args and not keywords else {**dict(zip(taken, args, strict=False)), **keywords}
        words = f"needs {' and '.join(map(repr, missing))}"
        return words, given if given else "no arguments", ", ".join(f"{name}=..." for name in missing)
    return f"cannot be called like this ({reason})", {**keywords}, "give each argument once"


def _count(number: int) -> str:
    return f"{number or 'no'} argument{'' if number == 1 else 's'}"
