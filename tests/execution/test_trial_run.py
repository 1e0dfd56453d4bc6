"""What is kept of a trial: bounded, whatever an evaluator says; and a full disk, which is no fault of the trial's."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nas
from nas import Experiment, ExperimentError, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch
from tests.conftest import files_up_to

LONG = "x" * 20_000_000


def search(folder: Path, evaluate: Callable[..., Any], **options: Any) -> Experiment:
    return Experiment(
        lambda: nn.Linear(2, ValueChoice([1, 2], label="width")),
        FunctionalEvaluator(evaluate),
        GridSearch(),
        name="bounded",
        directory=folder,
        **options,
    )


def _an_error(model: nn.Module) -> float:
    raise ValueError(LONG)


def _an_error_of_another(model: nn.Module) -> float:
    try:
        raise KeyError(LONG)
    except KeyError as error:
        raise ValueError(LONG) from error


def _a_note(model: nn.Module) -> float:
    error = ValueError("short")
    error.add_note(LONG)
    raise error


def _many_errors(model: nn.Module) -> float:
    raise ExceptionGroup("many", [ValueError("x" * 1000) for _ in range(3000)])


def _an_exit(model: nn.Module) -> float:
    raise SystemExit(LONG)


def _a_name(model: nn.Module) -> Any:
    return {LONG: 1.0}


def _names(model: nn.Module) -> Any:
    return {f"metric {number}": 1.0 for number in range(20_000)}


def _no_number(model: nn.Module) -> Any:
    return LONG


def _a_report(model: nn.Module) -> float:
    nas.report(LONG)  # type: ignore[arg-type]  # on purpose
    return 1.0


EVALUATIONS = (_an_error, _an_error_of_another, _a_note, _many_errors, _an_exit, _a_name, _names, _no_number, _a_report)


@pytest.mark.parametrize("evaluate", EVALUATIONS, ids=lambda function: function.__name__.removeprefix("_"))
def test_what_is_kept_of_a_failed_trial_is_bounded(
    evaluate: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = search(tmp_path, evaluate)
    experiment.run(progress="plain")
    for trial in experiment.trials:
        assert trial.state is TrialState.FAILED
        assert trial.error is not None
        assert len(trial.error) <= 20_000
        assert 0 < len(trial.error_line) <= 500
    sizes = {path.name: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 100_000, sizes
    assert len(capsys.readouterr().out) < 10_000


def test_a_long_text_that_a_model_is_called_with_is_not_kept(tmp_path: Path) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = ValueChoice([1, 2], label="width")

        def forward(self, x: torch.Tensor, text: str) -> torch.Tensor:
            return x

    def evaluate(model: nn.Module) -> float:
        model(torch.zeros(1), LONG)
        return 1.0

    experiment = Experiment(Reader, FunctionalEvaluator(evaluate), GridSearch(), name="bounded", directory=tmp_path)
    experiment.run(progress="silent")
    assert (experiment.path / "journal.log").stat().st_size < 100_000


def test_a_full_disk_ends_the_search_and_not_the_trial(tmp_path: Path) -> None:
    def evaluate(model: nn.Linear) -> float:
        model.register_buffer("large", torch.zeros(100_000))
        nas.save_checkpoint({"model": model.state_dict()})
        return float(model.out_features)

    experiment = search(tmp_path, evaluate)
    with files_up_to(100_000), pytest.raises(ExperimentError, match=r"no space left.*resume=True"):
        experiment.run(progress="silent")
    assert [trial.state for trial in experiment.trials] == [TrialState.RUNNING]
    again = search(tmp_path, evaluate, resume=True)
    again.run(progress="silent")
    assert [trial.value for trial in again.trials] == [1.0, 2.0]


def test_another_disk_that_is_full_is_the_trials_own_fault(tmp_path: Path) -> None:
    def evaluate(model: nn.Linear) -> float:
        if model.out_features == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/data")
        return float(model.out_features)

    experiment = search(tmp_path, evaluate)
    experiment.run(progress="silent")
    assert [trial.state for trial in experiment.trials] == [TrialState.FAILED, TrialState.COMPLETE]


def test_a_report_that_the_ledger_cannot_take_is_no_point_of_the_curve(tmp_path: Path) -> None:
    def evaluate(model: nn.Linear) -> float:
        size = os.stat(tmp_path / "bounded" / "journal.log").st_size
        if not (tmp_path / "again").exists():
            with files_up_to(size + 10):
                nas.report(0.5, 0)
        return float(model.out_features)

    experiment = search(tmp_path, evaluate)
    with pytest.raises(ExperimentError, match="no space left"):
        experiment.run(progress="silent")
    (tmp_path / "again").touch()
    again = search(tmp_path, evaluate, resume=True)
    again.run(progress="silent")
    assert [(trial.value, trial.intermediate) for trial in again.trials] == [(1.0, {}), (2.0, {})]


def test_a_trial_that_begins_in_an_old_folder_writes_in_it_alone(tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")

    def evaluate(model: nn.Linear) -> float:
        (nas.trial_directory() / "notes.txt").write_text("the evaluator's own")
        nas.keep_weights(model)
        return float(model.out_features)

    experiment = search(tmp_path, evaluate)
    (folder := experiment.path / "trials" / "0").mkdir(parents=True)
    for name in ("notes.txt", "weights.pt", "sample.json", "metrics.json", "log.txt"):
        (folder / name).symlink_to(victim)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        experiment.run(progress="silent")
    assert any("removed from it" in str(warning.message) for warning in said)
    assert victim.read_text() == "mine"
    assert [trial.value for trial in experiment.trials] == [1.0, 2.0]
    assert all(trial.checkpoint is not None for trial in experiment.trials)
