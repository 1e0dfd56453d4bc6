"""What limits a run: how many trials, how long, how many at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from nas.checks import check_int
from nas.durations import check_seconds

LIMITS = ("max_trials", "timeout", "concurrency", "max_trial_time")


@final
@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one run; None for no limit."""

    max_trials: int | None = None
    """Of the whole experiment, those of earlier runs counted in."""
    timeout: float | None = None
    """Seconds from the beginning of the run after which no new trial starts."""
    concurrency: int | None = None
    """Trials at a time; None for as many as the executor has workers."""
    max_trial_time: float | None = None
    """Seconds from the beginning of a trial after which it is FAILED."""

    def changed(self, changes: Mapping[str, Any]) -> Limits:
        """These with others in their place.

        Example:
            >>> Limits(max_trials=20, timeout=60.0).changed({"timeout": None}).timeout is None
            True
        """
        return replace(self, **changes)


def check_limits(given: Mapping[str, object], *, where: str, possible: int | None = None) -> dict[str, Any]:
    """Limits, if they make sense: durations as seconds, and no limit, infinite or None, as None.

    Args:
        given: limit -> its value.
        where: whose arguments they are.
        possible: trials at a time at most, where that is known.

    Raises:
        NasTypeError, NasValueError: one of them makes no sense.

    Example:
        >>> check_limits({"max_trials": 20, "timeout": "1h30m", "concurrency": None}, where="run")
        {'max_trials': 20, 'timeout': 5400.0, 'concurrency': None}
    """
    by_executor = "" if possible is None else ", by this executor"
    checks: Mapping[str, Callable[[Any], float]] = {
        "max_trials": lambda value: check_int("max_trials", value, least=1, or_else="None", where=where),
        "timeout": lambda value: _seconds("timeout", value, where),
        "concurrency": lambda value: check_int(
            "concurrency",
            value,
            least=1,
            most=possible,
            or_else="None",
            where=where + by_executor,
            mend='for more trials at a time give another executor: Experiment(..., executor="process")',
        ),
        "max_trial_time": lambda value: _seconds("max_trial_time", value, where),
    }
    checked = {name: None if value is None else checks[name](value) for name, value in given.items()}
    return {name: None if value == math.inf else value for name, value in checked.items()}


def _seconds(name: str, value: object, where: str) -> float:
    return check_seconds(name, value, above=0, infinite=True, or_else="None", where=where)
