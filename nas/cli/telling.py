"""What the command line says in plain lines."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from nas.cli.catalogue import Catalogue
from nas.plain_text import printable, without_passwords


def of_goal(finished: int, goal: int | None) -> str:
    """How many trials have finished, of how many."""
    return str(finished) if goal is None else f"{finished}/{goal}"


def values(trial: dict[str, Any] | None, names: Iterable[str]) -> str:
    """The values of a trial with their names, short; a lone number that has none stands alone."""
    if trial is None or trial["values"] is None:
        return ""
    named = zip(names, trial["values"], strict=True)
    return ", ".join(f"{value:.6g}" if name == "value" else f"{name} {value:.6g}" for name, value in named)


def leading(found: dict[str, Any]) -> str:
    """The value of the best trial of an experiment, or how many are on its front."""
    front = found["pareto_front"]
    return values(found["best"], found["objective"]) if front is None else f"front of {len(front)}"


def retried(catalogue: Catalogue, name: str, numbers: Collection[int] | None) -> str:
    """Puts FAILED trials of an experiment in its queue again, and says which."""
    found = catalogue.retry(name, numbers)
    if not found:
        return "No trial is FAILED that has not been tried again."
    several = (
        f"samples of trials {', '.join(map(str, found))} are" if len(found) > 1 else f"sample of trial {found[0]} is"
    )
    then = "next" if catalogue.is_running(name) else f"by: nas resume {shlex.quote(name)}"
    return f"The {several} in the queue, and tried again {then}."


def tell(found: dict[str, Any]) -> str:
    """An experiment, as `Catalogue.describe` describes it."""
    from datetime import timedelta

    from nas.search import failures_text, sample_text

    counts = ", ".join(f"{number} {state.lower()}" for state, number in found["trials"].items() if number)
    lines = [
        f"{found['name']}: {found['state']}, {of_goal(found['finished'], found['max_trials'])} trials finished "
        f"({counts})"
    ]
    if found["outdated"]:
        lines.append(f"{found['outdated']} earlier trials, from before the supernet was trained on, do not count")
    if found["seconds_left"] is not None:
        lines.append(f"time left: about {timedelta(seconds=round(found['seconds_left']))}")
    for title, best in [("best", found["best"]), *(("Pareto front", t) for t in found["pareto_front"] or ())]:
        if best is not None:
            lines.append(
                f"{title}: {values(best, found['objective'])} (trial {best['number']}: {sample_text(best['sample'])})"
            )
    lines += failures_text(found["failures"], Path(found["path"]))
    for number, changes in enumerate(found["changes"], 1):
        lines += [f"change {number}, accepted: {change}" for change in changes]
    file = shlex.join([str(found["file"]), *found["arguments"]])
    lines.append(f"strategy {found['strategy']}, seed {found['seed']}, file {file}, folder {found['path']}")
    return "\n".join(map(printable, lines))


def say(text: object, *, err: bool = False, ends: bool = True) -> None:
    """Prints a text, which may be a stranger's.

    Args:
        text: of any lines.
        err: whether to the standard error.
        ends: whether the line ends with it.
    """
    typer.echo(without_passwords(printable(text, lines=True)), err=err, nl=ends)


def say_json(text: str) -> None:
    """Prints JSON, which has escapes of its own for whatever is no plain character, save one."""
    typer.echo(text.replace("\x7f", "\\u007f"))


def listed(found: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows of experiments, as `Catalogue.row` describes them."""
    rows = [
        [
            e["name"],
            e["state"] if e["link"] is None else f"{e['state']} (a link to {e['link']})",
            of_goal(e["finished"], e["max_trials"]),
            str(e["trials"]["FAILED"]),
            leading(e) if e["error"] is None else e["error"],
        ]
        for e in found
    ]
    return ["name", "state", "finished", "failed", "best"], rows


def table(columns: list[str], rows: list[list[str]]) -> None:
    """Prints rows under their titles."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(Text(printable(column)))
    for row in rows:
        table.add_row(*(Text(without_passwords(printable(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def trial_table(found: Sequence[dict[str, Any]], names: Collection[str]) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows of trials, as `describe_trial` describes them; a column for each objective."""
    from nas.search import sample_text

    rows = [
        [
            str(t["number"]),
            t["state"],
            *([f"{value:.6g}" for value in t["values"] or ()] or [""] * len(names)),
            "" if t["duration"] is None else f"{t['duration']:.2f}",
            sample_text(t["sample"]),
            t["error"] or "",
            *([] if t["supernet_steps"] is None else [str(t["supernet_steps"])]),
        ]
        for t in found
    ]
    more = ["steps of the supernet"] if any(t["supernet_steps"] is not None for t in found) else []
    return ["trial", "state", *names, "seconds", "sample", "error", *more], rows


@contextmanager
def encodable() -> Iterator[None]:
    """Inside, what the standard streams cannot encode is printed escaped: no name of a label is an error."""
    before = [(s, s.errors) for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    for stream, errors in before:
        if errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in before:
            if not stream.closed:
                stream.reconfigure(errors=errors)
