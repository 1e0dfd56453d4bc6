"""What a run came to, in words: the best trials, why others failed, and where everything is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.plain_text import printable, without_passwords
from nas.protocols import Trial, causes
from nas.search.progress import Progress, count_text
from nas.search.results import Results

_SHOWN_CAUSES = 3


def failures_text(failures: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
    """A line for each of the commonest causes of failed trials, and how to read more of one.

    Args:
        failures: the causes, as `describe_failures` gives them.
        path: of the experiment.
    """
    lines = []
    for failure in failures[:_SHOWN_CAUSES]:
        number, place = failure["count"], failure["place"]
        times = "once" if number == 1 else f"{number} times"
        lines.append(f"failed {times}: {failure['reason']}{f' (raised at {place})' if place else ''}")
    if len(failures) > _SHOWN_CAUSES:
        lines.append(f"and for {len(failures) - _SHOWN_CAUSES} more causes")
    if failures:
        lines.append(f"what a trial has printed, and its traceback: {_command('log', path, failures[0]['trials'][0])}")
        lines.append(f"when the cause is mended, try them again: {_command('retry', path)} (or experiment.retry())")
    return [*map(printable, lines)]


def describe_failures(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """The causes of failed trials as JSON, that of the most trials first."""
    return [
        {
            "reason": without_passwords(cause.first.reason),
            "place": cause.first.place or None,
            "count": len(cause.trials),
            "trials": list(cause.trials),
        }
        for cause in causes(trials)
    ]


def _command(verb: str, path: Path, *arguments: object) -> str:
    """A command line, for an experiment in any folder."""
    words = ["nas", verb, path.name, *map(str, arguments)]
    if os.path.abspath(path.parent) != os.path.abspath("nas-experiments"):
        words += ["-d", str(path.parent)]
    return shlex.join(words)


def tell_if_enough(max_trials: int | None, begun: int, shown: Progress) -> None:
    """Says what is to be said where there are as many trials as a run is to come to: many mean so many more."""
    if max_trials is not None and 0 < max_trials <= begun:
        shown.note(
            f"{begun} trials have begun already, and max_trials counts the whole experiment: for {max_trials} more, "
            f"max_trials={begun + max_trials}"
        )


def conclude(shown: Progress, results: Results, ending: str, seconds: float) -> None:
    """Shows what a run came to.

    Args:
        shown: where.
        results: after it.
        ending: why it ended.
        seconds: that it took.
    """
    text = f"{count_text(results.trials)} in {seconds:.1f} s ({ending}). Everything is in {printable(results.path)}"
    text += "".join(f"\n{line}" for line in failures_text(describe_failures(results.trials), results.path))
    shown.summary(text, results.leaders, results.objectives)
