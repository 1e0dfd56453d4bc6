"""Where an experiment lies does not change with the working directory, nor what ends a search with its output."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from nas import Experiment, ValueChoice, load_sample, save_sample
from nas.evaluators import FunctionalEvaluator
from nas.protocols import TrialState
from nas.strategies import GridSearch


def make(evaluate: Callable[[nn.Module], float], directory: str | Path, **options: str) -> Experiment:
    space = lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="width"))  # noqa: E731
    return Experiment(space, FunctionalEvaluator(evaluate), GridSearch(), name="e", directory=directory, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", [{}, {"storage": "sqlite:///ledger.db"}], ids=["journal", "sqlite"])
def test_the_working_directory_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: dict[str, str]
) -> None:
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def evaluate(model: nn.Module) -> float:
        os.chdir(tmp_path / "elsewhere")
        print("a line")
        return 1.0

    experiment = make(evaluate, "kept", **storage)
    os.chdir(tmp_path / "there")
    experiment.run(progress="silent")
    assert [trial.state for trial in experiment.trials] == [TrialState.COMPLETE] * 3
    assert experiment.path == tmp_path / "here" / "kept" / "e"
    assert (experiment.path / "trials" / "2" / "log.txt").read_text() == "a line\n"
    assert not list((tmp_path / "there").iterdir()) + list((tmp_path / "elsewhere").iterdir())
    os.chdir(tmp_path / "here")
    read = Experiment.load("kept/e", **storage)  # type: ignore[call-overload]
    os.chdir(tmp_path)
    assert read.trials == experiment.trials
    assert read.path == experiment.path


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    experiment = make(lambda model: 1.0, "~/kept", storage="sqlite:///~/ledger.db")
    assert experiment.path == tmp_path / "kept" / "e"
    experiment.run(1, progress="silent")
    assert (tmp_path / "ledger.db").exists()
    save_sample(experiment.trials[0].sample, "~/best.json")
    assert load_sample(tmp_path / "best.json") == load_sample("~/best.json") == {"width": 1}


def test_what_ends_a_task_of_asyncio_fails_the_trial_alone(tmp_path: Path) -> None:
    def evaluate(model: nn.Linear) -> float:
        if model.out_features == 2:
            raise asyncio.CancelledError
        if model.out_features == 3:
            raise GeneratorExit
        return 1.0

    experiment = make(evaluate, tmp_path)  # type: ignore[arg-type]
    experiment.run(progress="silent")
    assert [trial.state.name for trial in experiment.trials] == ["COMPLETE", "FAILED", "FAILED"]
    assert "CancelledError" in (experiment.trials[1].error or "")
