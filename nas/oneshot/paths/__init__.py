"""Weights shared by name: each architecture is a path through one store of parameters."""

from nas.oneshot.paths.computed_buffers import computed_buffer, equal_tensors
from nas.oneshot.paths.extremes import has_values
from nas.oneshot.paths.inventory import changing_labels
from nas.oneshot.paths.naming import AllPaths, OnePath, answers_from, construct_without_weights
from nas.oneshot.paths.slicing import indexed, region, register_slicer
from nas.oneshot.paths.supernet import PathSupernet

__all__ = [
    "AllPaths",
    "OnePath",
    "PathSupernet",
    "answers_from",
    "changing_labels",
    "computed_buffer",
    "construct_without_weights",
    "equal_tensors",
    "has_values",
    "indexed",
    "region",
    "register_slicer",
]
