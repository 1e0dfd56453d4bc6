"""A trial's folder, for people and scripts: its sample, metrics and curve beside its log and what the evaluator saved.

The ledger is the truth; these files are written from it, each whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.domains import Sample, dumps_sample
from nas.errors import ExperimentError, explain, told_if_full
from nas.files import folder_in, own_folder, write_whole

if TYPE_CHECKING:
    from nas.execution import Outcome


def folder_of(experiment: Path, number: int) -> Path:
    """The folder of a trial."""
    return experiment / "trials" / str(number)


def begin_folder(experiment: Path, number: int, sample: Sample, *, is_own: bool = False) -> None:
    """Makes the folder of a trial that begins, with its `sample.json`: whatever is opened in it lies there.

    Args:
        experiment: the experiment's folder.
        number: of the trial.
        sample: of the trial.
        is_own: whether this very process has begun it before, so that all in it is this program's or the evaluator's.

    Raises:
        ExperimentError: it is not the experiment's own, or the experiment's folder is gone.
        DiskFull: there is no room for it.
    """
    folder = _made(experiment, number)
    if not is_own:
        own_folder(folder)
    _write_sample(folder, sample)


def _made(experiment: Path, number: int) -> Path:
    if not experiment.is_dir():
        raise ExperimentError(
            explain(
                "the folder of the experiment is gone, while the experiment runs",
                got=str(experiment),
                mend="bring it back and resume; what its ledger calls finished is not run again",
            )
        )
    with told_if_full(experiment, _RESUME):
        return folder_in(experiment, *folder_of(experiment, number).parts[-2:], make=True)


_RESUME = "make room, and run it again with resume=True"


def _write_sample(folder: Path, sample: Sample) -> None:
    _write(folder / "sample.json", dumps_sample(sample, indent=2))


def write_outcome(experiment: Path, number: int, outcome: Outcome) -> None:
    """`metrics.json`, where the trial reported `intermediate.json`, and the sample again, by now complete.

    Raises:
        ExperimentError: the folder cannot be made, or is not the experiment's own.
        DiskFull: there is no room.
    """
    folder = _made(experiment, number)
    _write_sample(folder, outcome.sample)
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
    with told_if_full(path, _RESUME):
        write_whole(path, text + "\n")
