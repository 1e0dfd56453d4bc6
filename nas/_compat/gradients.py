"""Names of torch's own: what the nodes of the graph of gradients are called, and who holds the memory of a gradient."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

__all__ = [
    "are_followed",
    "differentiates_once",
    "edge_of",
    "gradient_of",
    "holders_of",
    "place_of",
    "set_gradient",
    "sole_end",
]

_ERROR = "torch::autograd::Error"
_MOST_NODES = 1000


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


def sole_end(result: Tensor, ends: Callable[[Any], bool]) -> Any | None:
    """The node of the graph of gradients that all ways from a tensor lead to; None where some end elsewhere.

    Args:
        result: what was computed.
        ends: whether a node is one to stop at.
    """
    found: Any | None = None
    pending: list[Any] = [result.grad_fn]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or len(seen) == _MOST_NODES:
            return None
        if node in seen:
            continue
        seen.add(node)
        if ends(node):
            found = node
            continue
        following = [next_node for next_node, _ in node.next_functions if next_node is not None]
        if not following:
            return None
        pending += following
    return found


def edge_of(node: Any, number: int) -> Any:
    """Stands, where a gradient is asked for, for a result of a node of the graph: the node need not hold it."""
    return GradientEdge(node, number)


def are_followed(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether somebody may be told when torch has added up a gradient: by a hook, or by the node that adds it up.

    A hook of such a node is called as long as something holds the node, as graphs of gradients do; so this is to be
    asked when none is there. Before torch 2.12 it sees those who hold the node itself, as one has to who registers such
    a hook for good.
    """
    nobody = _holders_of_node(nn.Parameter(torch.empty(0)))
    return any(
        bool(parameter._post_accumulate_grad_hooks)
        or (parameter.requires_grad and _holders_of_node(parameter) > nobody)
        for parameter in parameters
    )


def _holders_of_node(parameter: Tensor) -> int:
    with torch.enable_grad():
        return sys.getrefcount(parameter.view_as(parameter).grad_fn.next_functions[0][0])  # type: ignore[union-attr]  # it wants a gradient


gradient_of: Callable[[Tensor], Tensor | None] = attrgetter("grad")
"""Of a tensor; as a function, for thousands of them."""
set_gradient: Callable[[Tensor, Tensor | None], None] = attrgetter("__set__")(vars(torch._C.TensorBase)["grad"])
"""Sets it."""


def place_of(tensor: Tensor) -> int:
    """Names the memory that a tensor lies in: equal for its views, and as long as one of them lives."""
    return int(tensor.untyped_storage()._cdata)


holders_of = torch._C._storage_Use_Count
"""How many hold a place: tensors, and what torch keeps for gradients. Only its changes mean anything.

A function of the place of a tensor that lives. There are thousands to ask about in each step, so nothing is around it.
"""
