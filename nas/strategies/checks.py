"""Checks of what a user hands to a strategy."""

from __future__ import annotations

from nas.errors import NasTypeError, NasValueError, explain
from nas.protocols import Task


def check_count(name: str, number: object, *, least: int = 1) -> None:
    """Refuses anything but an int from `least` on."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise NasTypeError(explain(f"{name} must be an int", got=number))
    if number < least:
        raise NasValueError(explain(f"{name} must be at least {least}", got=number))


def check_number(name: str, number: object, *, low: float, high: float) -> None:
    """Refuses anything but a number between `low` and `high`, both included."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise NasTypeError(explain(f"{name} must be a number", got=number))
    if not low <= number <= high:
        raise NasValueError(explain(f"{name} must lie between {low:g} and {high:g}", got=number))


def check_single(task: Task, name: str) -> None:
    """Refuses several objectives."""
    if len(task.directions) > 1:
        raise NasValueError(
            explain(
                f"{name} searches for one objective",
                got=f"{len(task.directions)} objectives",
                mend="use RegularizedEvolution, TPE, Random or OptunaStrategy(optuna.samplers.NSGAIISampler()), or "
                "make one of them by nas.objectives.weighted_product",
            )
        )
