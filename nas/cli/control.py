"""Changing a search that runs: `nas set` and `nas kill`; and how limits are written on the command line."""

from __future__ import annotations

import math
import shlex

import typer

from nas.cli.catalogue import Catalogue
from nas.errors import NasError, NasValueError, explain


def seconds(text: str) -> float:
    """A duration; infinite where there is to be none.

    Example:
        >>> seconds("1h30m"), seconds("90"), seconds("none")
        (5400.0, 90.0, inf)
    """
    from nas.durations import check_seconds

    if text.strip().lower() == "none":
        return math.inf
    try:
        return check_seconds("it", text, above=0, bare=True, or_else='"none"')
    except NasError as error:
        raise typer.BadParameter(str(error)) from error


def count(text: str) -> float:
    """A whole number; infinite where there is to be no limit.

    Example:
        >>> count("12"), count("none")
        (12, inf)
    """
    if text.strip().lower() == "none":
        return math.inf
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(explain('it must be a whole number, or "none"', got=text)) from None


def change(catalogue: Catalogue, name: str, **given: float | None) -> str:
    """Changes limits of an experiment, those of the run that is under way; in words.

    Args:
        catalogue: where it is.
        name: of the experiment.
        **given: limit -> its value; infinite for no limit, None where it stays.

    Raises:
        NasError: a limit that makes no sense, or none at all.
    """
    from nas.search import check_limits

    said = {key: None if value == math.inf else value for key, value in given.items() if value is not None}
    if not said:
        raise NasValueError(
            explain(
                "set changes one limit at least",
                where="nas set",
                mend=f"nas set {shlex.quote(name)} --max-trials 100, say",
            )
        )
    ledger = catalogue.ledger(name)
    changes = check_limits(said, where="nas set", possible=ledger.notes().run.get("most"))
    catalogue.change_limits(name, changes)
    words = ", ".join(f"{key} {'none' if value is None else f'{value:g}'}" for key, value in changes.items())
    when = "now" if catalogue.is_running(name) else f"when it goes on by: nas resume {shlex.quote(name)}"
    return f"{name}: {words.replace('_', ' ')}, {when}."


def kill(catalogue: Catalogue, name: str, numbers: list[int]) -> str:
    """Ends running trials of an experiment at once; in words."""
    catalogue.kill(name, numbers)
    which = f"Trial {numbers[0]} is" if len(numbers) == 1 else f"Trials {', '.join(map(str, numbers))} are"
    if catalogue.is_running(name):
        return f"{which} being ended, and FAILED."
    return f"Nobody runs {name}; {which.lower()} FAILED when it goes on by: nas resume {shlex.quote(name)}."
