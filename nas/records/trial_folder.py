"""A trial's folder, for people and scripts: its sample, metrics and curve beside its log and what the evaluator saved.

The ledger is the truth; these files are written from it, each whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.domains import Sample, dumps_sample

if TYPE_CHECKING:
    from nas.execution import Outcome


def folder_of(experiment: Path, number: int) -> Path:
    """The folder of a trial."""
    return experiment / "trials" / str(number)


def write_sample(folder: Path, sample: Sample) -> None:
    """`sample.json`, when a trial begins."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "sample.json", dumps_sample(sample, indent=2))


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """`metrics.json`, where the trial reported `intermediate.json`, and the sample again, by now complete."""
    write_sample(folder, outcome.sample)
    found = {
        "state": str(outcome.state),
        "values": outcome.values,
        "metrics": outcome.metrics,
        "repeats": outcome.repeats,
        "duration": outcome.duration,
        "error": outcome.error,
        "same_as": outcome.same_as,
    }
    if outcome.intermediate:
        _write_json(folder / "intermediate.json", {str(step): v for step, v in sorted(outcome.intermediate.items())})
    _write_json(folder / "metrics.json", {name: value for name, value in found.items() if value not in (None, ())})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2))


def _write(path: Path, text: str) -> None:
    draft = f"{path.parent}/.{path.name}.{os.getpid()}.tmp"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            os.unlink(draft)
        raise
