"""Weights that get no gradients for a while: what is computed for these is neither computed nor kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(module: nn.Module, really: bool = True) -> Iterator[None]:
    """Inside, the parameters of a module need no gradient; afterwards those that did need one again.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with frozen(layer):
        ...     layer.weight.requires_grad
        False
    """
    parameters = [p for p in module.parameters() if p.requires_grad] if really else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
