"""Names of torch's own: what the nodes of the graph of gradients are called, and who holds the memory of a gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["differentiates_once", "holders_of", "place_of"]

_ERROR = "torch::autograd::Error"


def differentiates_once(ends: Iterable[Tensor]) -> bool:
    """Whether a function that is marked with `once_differentiable` lies on the way to these gradients.

    Asked for gradients with respect to some tensors, torch passes over it: it raises only where all are taken.
    """
    pending = [end.grad_fn for end in ends]
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == _ERROR:
            return True
        pending += [following for following, _ in node.next_functions]
    return False


def place_of(tensor: Tensor) -> int:
    """Names the memory that a tensor lies in: equal for its views, and as long as one of them lives."""
    return int(tensor.untyped_storage()._cdata)


holders_of = torch._C._storage_Use_Count
"""How many hold a place: tensors, and what torch keeps for gradients. Only its changes mean anything.

A function of the place of a tensor that lives. There are thousands to ask about in each step, so nothing is around it.
"""
