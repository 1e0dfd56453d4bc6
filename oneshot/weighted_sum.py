"""The weighted sum of candidates' outputs: what every mixture of a relaxed supernet computes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nas.errors import NasValueError, explain


def weighted_sum(outputs: Sequence[Tensor | None], weights: Tensor) -> Tensor:
    """The sum of what was computed, each times its weight.

    Args:
        outputs: of the candidates, each (batch, ...) of one shape; None for those that were not computed.
        weights: (candidates,).

    Returns:
        A tensor of that shape; its gradient reaches the computed outputs and their weights.

    Raises:
        NasValueError: nothing was computed.

    Example:
        >>> import torch
        >>> weighted_sum([torch.ones(2), None, torch.ones(2)], torch.tensor([0.5, 0.0, 2.0]))
        tensor([2.5000, 2.5000])
    """
    total: Tensor | None = None
    for output, weight in zip(outputs, weights.unbind(), strict=True):
        if output is not None:
            total = output * weight if total is None else total + output * weight
    if total is None:
        raise NasValueError(explain("a mixture needs a candidate that is computed", got=weights.tolist()))
    return total
