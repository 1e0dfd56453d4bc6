"""Checkpoints of trials: what an evaluation goes on from that was paused at a rung, or killed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas.calls import explained
from nas.errors import ExperimentError, NasTypeError, NasValueError, explain
from nas.protocols.evaluation import current_job
from nas.protocols.trained_weights import read_state, save_state
from nas.protocols.weight_files import files_below


@explained()
def save_checkpoint(state: Mapping[str, Any]) -> None:
    """Keeps how far the evaluation of a trial has come, in place of what it kept before.

    When the trial is run again, since it was paused at a rung or its process was killed, `load_checkpoint` gives it
    back. Save before you report, for at a report a trial may end; and say the `step` of each report. When the trial has
    ended, the checkpoint is removed. Outside a trial nothing happens, so that the same function serves retraining.

    Args:
        state: dicts, lists, tensors, numbers and texts: state dicts of the model and the optimizer, say, and the epoch.

    Raises:
        NasTypeError: it is no dict.
        NasValueError: something in it could only be read by executing code.

    Example:
        >>> def train(model, epochs=3):
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     begin = 0
        ...     if (state := load_checkpoint()) is not None:
        ...         model.load_state_dict(state["model"])
        ...         optimizer.load_state_dict(state["optimizer"])
        ...         begin = state["epoch"] + 1
        ...     for epoch in range(begin, epochs):
        ...         ...  # train, and validate
        ...         save_checkpoint(
        ...             {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        ...         )
        ...         nas.report(0.5, step=epoch)
        ...     return 0.5
    """
    if not isinstance(state, Mapping):
        raise NasTypeError(explain("a checkpoint is a dict", got=state, where="save_checkpoint"))
    job = current_job()
    directory = None if job is None else job.directory
    if job is None or directory is None:
        return
    if not save_state(checkpoint_file(directory, job.identity), {"state": dict(state)}):
        raise NasValueError(
            explain(
                "a checkpoint holds dicts, lists, tensors, numbers and texts, which are read without executing code",
                got=sorted(map(str, state)),
                where="save_checkpoint",
                mend="give state dicts, not the objects themselves",
            )
        )


@explained()
def load_checkpoint() -> dict[str, Any] | None:
    """What `save_checkpoint` has kept of this very trial; None where there is nothing, and outside a trial.

    Example:
        >>> load_checkpoint() is None
        True
    """
    job = current_job()
    if job is None or job.directory is None:
        return None
    file = checkpoint_file(job.directory, job.identity)
    if not os.path.lexists(file):
        return None
    try:
        state = read_state(file).get("state")
        if isinstance(state, dict):
            return state
        problem = "it holds no state"
    except ExperimentError as error:
        problem = str(error)
    warnings.warn(f"The checkpoint {file} cannot be read, so the trial begins anew: {problem}", stacklevel=2)
    return None


def checkpoint_file(folder: Path, identity: str) -> Path:
    """Where the checkpoint of an evaluation is kept.

    Args:
        folder: of the trial, or of one training of it.
        identity: of the evaluation.
    """
    return folder / f"checkpoint-{identity}.pt"


def forget_checkpoints(folder: Path) -> None:
    """Removes those in a trial's folder, and in the folders of its trainings."""
    for path in files_below(folder, "checkpoint-*.pt"):
        with suppress(OSError):
            path.unlink()
