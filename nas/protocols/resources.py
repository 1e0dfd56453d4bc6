"""What a trial has used by a report: the number of its step, counted from 1."""

from __future__ import annotations

from collections.abc import Mapping


def arrival(reports: Mapping[int, float], resource: int) -> int | None:
    """The step of the first report by which a trial has used so much of a resource; None while there is none.

    Example:
        >>> arrival({0: 0.1, 1: 0.2}, 2), arrival({1: 0.1}, 2), arrival({5: 0.2, 10: 0.3}, 7)
        (1, None, 10)
    """
    ahead = 1 if reports and min(reports) == 0 else 0  # a trial that counts from 0 has used 1 by its first report
    return min((step for step in reports if step + ahead >= resource), default=None)
