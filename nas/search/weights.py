"""Which weights an exported architecture has: fresh, a supernet's, or those that its trial was judged with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from nas.errors import ExperimentError, NasValueError, explain
from nas.protocols import Trial, weights_of_runs

Weights: TypeAlias = Literal["fresh", "inherit", "trained"]
WEIGHTS = get_args(Weights)


def chosen_weights(weights: str | None, inherit: bool) -> str:
    """The word for the weights that were asked for.

    Raises:
        NasValueError: the shared ones and others were.
    """
    if inherit and weights not in (None, "inherit"):
        raise NasValueError(
            explain(
                'inherit_weights=True is another way to write weights="inherit"',
                got=weights,
                where="weights",
                mend="leave inherit_weights out",
            )
        )
    return "inherit" if inherit else "fresh" if weights is None else weights


def checkpoint_of(trial: Trial) -> Path:
    """The file of the weights that a trial was judged with.

    Raises:
        ExperimentError: there is none, and why.
    """
    if trial.checkpoint is not None:
        return trial.checkpoint
    where = f"trial {trial.number}"
    runs = [] if trial.judged_in is None else weights_of_runs(trial.judged_in)
    if runs or trial.repeats:
        raise ExperimentError(
            explain(
                "the value of this trial is the mean over several trainings (repeats, executions or folds), so no one "
                "set of weights was judged with it",
                got=[str(path) for path in runs],
                where=where,
                mend="take one of these files: model.load_state_dict(torch.load(FILE, weights_only=True))"
                if runs
                else "retrain the architecture: experiment.retrain()",
            )
        )
    raise ExperimentError(
        explain(
            "the weights that this trial was judged with are not in its folder, for its evaluator has kept none",
            got=str(trial.judged_in),
            where=where,
            mend="in a function, call nas.keep_weights(model) where the value is measured; for Classification, "
            "Regression and LightningEvaluator leave enable_checkpointing on, and let the LightningModule validate the "
            "model itself. experiment.retrain() trains the architecture again",
        )
    )
