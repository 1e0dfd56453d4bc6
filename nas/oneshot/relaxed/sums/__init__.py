"""The weighted sums that mixtures are, as operators with kernels of their own."""

from nas.oneshot.relaxed.sums.operator import weighted_sum
from nas.oneshot.relaxed.sums.spread import Plan, total, weighted_sums

__all__ = ["Plan", "total", "weighted_sum", "weighted_sums"]
