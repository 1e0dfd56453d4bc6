"""Who holds the memory of tensors: torch counts it, but says so by a private name alone."""

from __future__ import annotations

import torch
from torch import Tensor


def place_of(tensor: Tensor) -> int:
    """Names the memory that a tensor lies in: equal for its views, and as long as one of them lives."""
    return int(tensor.untyped_storage()._cdata)


def holders_of(place: int) -> int:
    """How many hold it: tensors, and what torch keeps for gradients. Only its changes mean anything.

    Args:
        place: of a tensor that lives.

    Example:
        >>> tensor = torch.zeros(2)
        >>> before = holders_of(place_of(tensor))
        >>> kept = tensor[:1]
        >>> holders_of(place_of(tensor)) - before
        1
    """
    return int(torch._C._storage_Use_Count(place))
