"""Who holds the memory of tensors: torch counts it, but says so by a private name alone."""

from __future__ import annotations

import torch
from torch import Tensor


def place_of(tensor: Tensor) -> int:
    """Names the memory that a tensor lies in: equal for its views, and as long as one of them lives."""
    return int(tensor.untyped_storage()._cdata)


holders_of = torch._C._storage_Use_Count
"""How many hold a place: tensors, and what torch keeps for gradients. Only its changes mean anything.

A function of the place of a tensor that lives. There are thousands to ask about in each step, so nothing is around it.
"""
