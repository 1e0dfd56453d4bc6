"""Modules that a user's functions and classes build; and what is wrong where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from nas._compat.called_modules import is_unfinished
from nas.calls import misfit
from nas.copying import own
from nas.errors import NasTypeError, explain


def make_module(factory: Callable[..., nn.Module], where: Callable[[], str], *position: int) -> nn.Module:
    """Calls a factory and checks that it built a module.

    Args:
        factory: builds it.
        where: says what it is part of.
        *position: what the factory is called with: nothing, or an index.

    Raises:
        NasTypeError: it built something else, or takes other arguments.
    """
    try:
        module: object = factory(*position)
    except Exception as error:
        wrong = _misfit(factory, where, position, error) if isinstance(error, TypeError) else unfinished(error)
        if wrong is None:
            error.add_note(f"nas: while building {where()}")
            raise
        raise wrong from error
    if not isinstance(module, nn.Module):
        raise NasTypeError(
            explain("a factory must return an nn.Module", got=module, where=where(), mend="return the module it builds")
        )
    if is_unfinished(module):
        raise without_super(type(module))
    return own(module)


def unfinished(error: Exception) -> NasTypeError | None:
    """What is wrong where an error comes of a module whose constructor does not call that of torch first, else None."""
    trace = error.__traceback__
    while isinstance(error, AttributeError) and trace is not None:
        code, values = trace.tb_frame.f_code, trace.tb_frame.f_locals
        first = values.get(code.co_varnames[0]) if code.co_argcount else None
        if is_unfinished(first):
            return without_super(type(first))
        trace = trace.tb_next
    return None


@contextmanager
def begun() -> Iterator[None]:
    """Says what is wrong where a module is constructed inside whose constructor does not call that of torch first.

    Raises:
        NasTypeError: there is one.
    """
    try:
        yield
    except AttributeError as error:
        if (wrong := unfinished(error)) is None:
            raise
        raise wrong from error


def without_super(kind: type) -> NasTypeError:
    """The error that a constructor of this class does not call that of torch."""
    return NasTypeError(
        explain(
            "the constructor of a module calls that of nn.Module before it assigns anything",
            got=f"{kind.__name__}.__init__, which does not",
            where=kind.__name__,
            mend="begin it with super().__init__()",
        )
    )


def _inherited_misfit(factory: object, error: Exception) -> tuple[str, object, str] | None:
    """The same for a class that hands all its arguments on to its base, as `nn.LSTM` does."""
    bases = factory.__mro__ if isinstance(factory, type) else ()
    if any(str(error).startswith(f"{base.__qualname__}.__init__() missing ") for base in bases):
        return "needs " + str(error).partition("arguments: ")[2].replace(", and ", " and "), None, ""
    return None


def _misfit(factory: Any, where: Callable[[], str], position: tuple[int, ...], error: Exception) -> NasTypeError | None:
    """What is wrong with a factory that cannot be called as factories are; None where the fault is inside of it."""
    found = misfit(factory, position) or _inherited_misfit(factory, error)
    if found is None:
        return None
    name = getattr(factory, "__name__", type(factory).__name__)
    if position:
        rule, mend = f"is built by its index, but {name} {found[0]}", f"lambda i: {name}(...)"
    else:
        rule, mend = f"is built without arguments, but {name} {found[0]}", f"lambda: {name}(...), with its arguments"
    return NasTypeError(explain(f"{where()} {rule}", got=factory, mend=mend))
