"""Activation checkpoints of torch: what surrounded a call when it was made surrounds it when it is computed again."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, final

import torch
from torch.utils import checkpoint as torch_checkpoint

MakeContext: TypeAlias = Callable[[], AbstractContextManager[None]]
Moment: TypeAlias = Callable[[], MakeContext]
"""Notes how things are; what it returns makes a context in which they are so again, to compute a part once more in."""

_MOMENTS: ContextVar[tuple[Moment, ...]] = ContextVar("nas_moments", default=())
_PART: ContextVar[object | None] = ContextVar("nas_checkpointed_part", default=None)
_PATCHING = threading.Lock()
_PATCHED: dict[str, Any] = {}
_INSIDE = 0


def checkpointed_part() -> object | None:
    """What is the same for all that is called in one checkpoint, and other for each; None outside of checkpoints."""
    return _PART.get()


@contextmanager
def noticing_checkpoints(moment: Moment) -> Iterator[None]:
    """Inside, `torch.utils.checkpoint` computes parts again as things were when they were called, in both variants.

    The reentrant variant runs as the other does, which yields the same gradients: where it re-enters the autograd
    engine, nothing but its inputs and the leaves of the graph would get any.

    Args:
        moment: is asked at each checkpoint.
    """
    token = _MOMENTS.set((*_MOMENTS.get(), moment))
    _patch(1)
    try:
        yield
    finally:
        _patch(-1)
        _MOMENTS.reset(token)


def _patch(more: int) -> None:
    global _INSIDE
    with _PATCHING:
        _INSIDE += more
        if more > 0 and _INSIDE == 1:
            name = _generator_name()
            own = getattr(torch_checkpoint, name)
            _PATCHED[name] = own
            setattr(torch_checkpoint, name, _with_contexts(own))
            torch_checkpoint.CheckpointFunction.apply = staticmethod(_without_reentry)
        elif _INSIDE == 0:
            for name, own in _PATCHED.items():
                setattr(torch_checkpoint, name, own)
            _PATCHED.clear()
            del torch_checkpoint.CheckpointFunction.apply  # that of its base again


def _generator_name() -> str:
    """What runs around a part that is checkpointed; newer versions of torch call it by another name."""
    newer = "_checkpoint_without_reentrant_generator_impl"
    return newer if hasattr(torch_checkpoint, newer) else "_checkpoint_without_reentrant_generator"


@functools.cache
def _with_contexts(own: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(own)

    def noticed(*args: Any, **kwargs: Any) -> Any:
        moments = _MOMENTS.get()
        if not moments or torch.compiler.is_compiling():
            return own(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments.get("context_fn", torch_checkpoint.noop_context_fn)
        bound.arguments["context_fn"] = lambda: _contexts(given, moments)
        return own(*bound.args, **bound.kwargs)

    return noticed


def _contexts(given: Callable[[], Any], moments: tuple[Moment, ...]) -> tuple[Any, Any]:
    """The contexts of the first and of the second computation, those that were given inside."""
    first, second = given()
    states = [moment() for moment in moments]
    return _in_part(first), Again(lambda: _as_then(second, moments, states))


@contextmanager
def _in_part(inside: AbstractContextManager[Any]) -> Iterator[None]:
    token = _PART.set(object())
    try:
        with inside:
            yield
    finally:
        _PART.reset(token)


@contextmanager
def _as_then(
    inside: AbstractContextManager[Any], moments: tuple[Moment, ...], states: list[MakeContext]
) -> Iterator[None]:
    """Perhaps in another thread, and with checkpoints inside of the part."""
    token = _MOMENTS.set(())
    try:
        with ExitStack() as stack:
            for state in states:
                stack.enter_context(state())
            for moment in moments:
                stack.enter_context(noticing_checkpoints(moment))
            stack.enter_context(_in_part(inside))
            yield
    finally:
        _MOMENTS.reset(token)


@final
class Again(AbstractContextManager[None]):
    """A context that can be entered any number of times: a part is computed again for each backward pass.

    Args:
        make: makes the context of one time.
    """

    def __init__(self, make: MakeContext) -> None:
        self._make, self._entered = make, list[AbstractContextManager[None]]()

    def __enter__(self) -> None:
        """Makes and enters one."""
        self._entered.append(self._make())
        self._entered[-1].__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        """Leaves the last one."""
        return self._entered.pop().__exit__(*error)


def _without_reentry(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    """In the place of `CheckpointFunction.apply`."""
    if not _MOMENTS.get():
        return super(torch_checkpoint.CheckpointFunction, torch_checkpoint.CheckpointFunction).apply(
            function, preserve_rng_state, *args
        )
    return torch_checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)
