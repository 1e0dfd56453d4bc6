"""Names of torch's own: what the nodes of the graph of gradients are called."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

__all__ = ["differentiates_once"]

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
