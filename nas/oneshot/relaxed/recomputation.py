"""Activation checkpoints in a supernet: what is computed again in a backward pass is what was computed before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.checkpoints import MakeContext, noticing_checkpoints
from nas._compat.torch_internals import own_buffers, own_parameters
from nas.oneshot.relaxed.architecture import Mixing


def recomputing_as_before(module: nn.Module, mixing: Mixing) -> AbstractContextManager[None]:
    """Inside, `torch.utils.checkpoint` computes parts of a module again with what they read the first time.

    That is the weights of the mixtures, the tensors that were in the place of parameters and buffers (masked ones,
    those of an unrolled step), and which of the parameters wanted gradients. Only forward passes have to be inside; the
    reentrant variant runs as the other does.

    Args:
        module: whose parts they are.
        mixing: where the mixtures of it read their weights.
    """
    return noticing_checkpoints(_Moment(module, mixing))


@final
class _Moment:
    """Notes what a module computes with."""

    def __init__(self, module: nn.Module, mixing: Mixing) -> None:
        self._module, self._mixing = module, mixing
        self._dicts: list[dict[str, Any]] | None = None

    def __call__(self) -> MakeContext:
        """The context in which it is in place again."""
        if self._dicts is None:
            self._dicts = [find(part) for part in self._module.modules() for find in (own_parameters, own_buffers)]
        tensors = [(place, dict(place)) for place in self._dicts if place]
        wanting = {
            tensor: tensor.requires_grad
            for _, found in tensors
            for tensor in found.values()
            if isinstance(tensor, Tensor) and tensor.is_leaf and tensor.is_floating_point()
        }
        weights, active = dict(self._mixing.weights), dict(self._mixing.active)
        return partial(_as_noted, self._mixing, weights, active, tensors, wanting)


@contextmanager
def _as_noted(
    mixing: Mixing,
    weights: dict[str, Tensor],
    active: dict[str, tuple[int, ...]],
    tensors: list[tuple[dict[str, Any], dict[str, Any]]],
    wanting: dict[Tensor, bool],
) -> Iterator[None]:
    kept = [(place, dict(place)) for place, _ in tensors]
    wanted = {tensor: tensor.requires_grad for tensor in wanting if tensor.is_leaf}
    mixed = mixing.weights, mixing.active
    try:
        mixing.weights, mixing.active = weights, active
        for place, found in tensors:
            place.update(found)
        for tensor in wanted:
            tensor.requires_grad_(wanting[tensor])
        yield
    finally:
        mixing.weights, mixing.active = mixed
        for place, found in kept:
            place.update(found)
        for tensor, flag in wanted.items():
            tensor.requires_grad_(flag)


@final
class RemembersCheckpoints:
    """Hooks of a supernet, or of a copy of one, that make its own checkpoints safe.

    Args:
        mixing: where its mixtures read their weights.
    """

    def __init__(self, mixing: Mixing) -> None:
        self._mixing = mixing
        self._open: dict[int, list[ExitStack]] = {}  # by thread, as contexts are left where they were entered

    def __deepcopy__(self, memo: dict[int, Any]) -> RemembersCheckpoints:
        return RemembersCheckpoints(self._mixing)

    def before(self, module: nn.Module, args: Any) -> None:
        """Of a forward pass."""
        if torch.compiler.is_compiling():
            return
        stack = ExitStack()
        self._open.setdefault(threading.get_ident(), []).append(stack)
        if torch.is_grad_enabled():
            stack.enter_context(recomputing_as_before(module, self._mixing))

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """The end of it, also where it failed."""
        if torch.compiler.is_compiling():
            return
        mine = self._open.get(threading.get_ident(), [])
        if mine:
            mine.pop().close()
        if not mine:
            self._open.pop(threading.get_ident(), None)
