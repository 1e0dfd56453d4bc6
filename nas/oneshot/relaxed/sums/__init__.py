"""The weighted sums that mixtures are, as operators with kernels of their own."""

from nas.oneshot.relaxed.sums.operator import kernels_for, weighted_sum
from nas.oneshot.relaxed.sums.spread import Plan, total, weighted_sums

__all__ = ["Plan", "kernels_for", "total", "weighted_sum", "weighted_sums"]
