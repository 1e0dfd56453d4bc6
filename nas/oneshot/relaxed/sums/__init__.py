"""The weighted sum that every mixture is: one operator, and its kernels."""

from nas.oneshot.relaxed.sums.operator import weighted_sum

__all__ = ["weighted_sum"]
