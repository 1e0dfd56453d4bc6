"""Weights that get no gradients for a while: what is computed for these is neither computed nor kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(parameters: Iterable[nn.Parameter], really: bool = True) -> Iterator[None]:
    """Inside, these parameters need no gradient; afterwards those that did need one again.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with frozen(layer.parameters()):
        ...     layer.weight.requires_grad
        False
    """
    changed = [p for p in parameters if p.requires_grad] if really else []
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)
