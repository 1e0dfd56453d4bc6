"""Which channels, heads and blocks of a model can go, found by following a forward pass; and how they are removed."""

from nas.compress.dependencies.attention import ThinAttention, with_thin_attention
from nas.compress.dependencies.blocks import Passage, droppable, innermost
from nas.compress.dependencies.fitting import Fitting
from nas.compress.dependencies.groups import Group, Groups, Slot, find_groups
from nas.compress.dependencies.ordering import reorder, wrongly_ordered
from nas.compress.dependencies.thinning import Thinning
from nas.compress.dependencies.tracing import Trace, named_tensors, new_trace, run

__all__ = [
    "Fitting",
    "Group",
    "Groups",
    "Passage",
    "Slot",
    "ThinAttention",
    "Thinning",
    "Trace",
    "droppable",
    "find_groups",
    "innermost",
    "named_tensors",
    "new_trace",
    "reorder",
    "run",
    "with_thin_attention",
    "wrongly_ordered",
]
