"""Numbers have the names of their metrics, wherever the command line shows them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

from nas import Experiment, ValueChoice
from nas.cli.catalogue import _seconds_left
from nas.cli.commands import app
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch


def searched(folder: Path, metrics: Any, **options: Any) -> str:
    def judge(model: nn.Linear) -> Any:
        return metrics(model.out_features)

    experiment = Experiment(
        lambda: nn.Linear(4, ValueChoice([1, 2, 3], label="width")),
        FunctionalEvaluator(judge),
        GridSearch(),
        name="search",
        directory=folder,
        **options,
    )
    experiment.run(progress="plain")
    return str(folder)


def said(*arguments: str) -> str:
    found = CliRunner().invoke(app, [*arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_name_of_a_metric_stands_with_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = searched(tmp_path, lambda width: {"accuracy": width / 4, "size": width})
    progress = capsys.readouterr().out
    assert "3/3 trials, best accuracy 0.75 (trial 2)" in progress
    assert "accuracy (max)" in progress
    assert "best: accuracy 0.75 (trial 2: width=3)" in said("show", "search", "-d", folder)
    assert "accuracy 0.75" in said("list", "-d", folder)
    for verb in ("top", "trials"):
        table = said(verb, "search", "-d", folder)
        assert "accuracy" in table
        assert "value" not in table


def test_so_it_is_on_a_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def metrics(width: int) -> dict[str, float]:
        if width == 2:
            raise ValueError("two is right out")
        return {"size": width, "accuracy": width / 4}

    folder = searched(tmp_path, metrics, objective={"accuracy": "maximize", "size": "minimize"})
    progress = capsys.readouterr().out
    assert "3/3 trials, 2 complete, front of 2" in progress
    assert "3 trials: 2 complete, 1 failed" in progress
    shown = said("show", "search", "-d", folder)
    assert "Pareto front: accuracy 0.25, size 1 (trial 0: width=1)" in shown
    assert "front of 2" in said("list", "-d", folder)
    rows = [line.split("│")[1:-1] for line in said("trials", "search", "-d", folder).splitlines() if "│" in line]
    assert [[cell.strip() for cell in row[:4]] for row in rows] == [
        ["0", "COMPLETE", "0.25", "1"],
        ["1", "FAILED", "", ""],
        ["2", "COMPLETE", "0.75", "3"],
    ]


def test_a_lone_number_has_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = searched(tmp_path, float)
    assert "3/3 trials, best 3 (trial 2)" in capsys.readouterr().out
    assert "best: 3 (trial 2: width=3)" in said("show", "search", "-d", folder)


def test_the_time_left_is_that_of_the_trials_that_there_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1010.0)
    run = {"began": 1000.0, "finished": 2}
    assert _seconds_left(run, 7) is None
    assert _seconds_left({**run, "max_trials": 100}, 7) == 186.0
    assert _seconds_left({**run, "max_trials": 100, "size": 12}, 7) == 10.0
    assert _seconds_left({**run, "size": 12}, 7) == 10.0
    assert _seconds_left({**run, "max_trials": 100, "size": 3}, 7) == 186.0  # samples are tried again
    assert _seconds_left({**run, "max_trials": 100, "size": 12}, 2) is None
