"""What evaluators return and report, as finite numbers by name."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

from torch import Tensor

from nas.checks import check_label
from nas.errors import NasTypeError, NasValueError, explain

_MOST = 10_000
"""Metrics of a trial."""


def as_number(value: object, where: str) -> float:
    """A finite float of anything that is one number.

    Raises:
        NasTypeError: it is None, a str, a container, ...
        NasValueError: it is NaN or infinite.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise NasTypeError(
            explain(
                "the result must be a number, or a dict of numbers", got=value, where=where, mend="return float(...)"
            )
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NasValueError(
            explain("the result must be finite", got=number, where=where, mend="return a finite number")
        )
    return number


def as_metrics(result: object) -> dict[str, float]:
    """What an evaluator returned, as name -> number; a lone number is called "value".

    Raises:
        NasTypeError, NasValueError: as `as_number`; or an empty dict, or a name that cannot be shown.
    """
    if not isinstance(result, Mapping):
        return {"value": as_number(result, "evaluator")}
    if not result or not all(isinstance(name, str) for name in result):
        raise NasTypeError(
            explain("the metrics must be a dict name -> number with at least one entry", got=result, where="evaluator")
        )
    if len(result) > _MOST:
        rule = f"the metrics of a trial are at most {_MOST:,}, for each is kept with each trial"
        mend = "return what trials are compared by, and save the others in nas.trial_directory()"
        raise NasValueError(explain(rule, got=f"{len(result):,} metrics", where="evaluator", mend=mend))
    for name in result:
        check_label(name, what="the name of a metric", where="evaluator")
    return {name: as_number(value, f"evaluator, metric {name!r}") for name, value in result.items()}
