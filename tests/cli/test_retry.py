"""`nas retry`: failed trials are put in the queue again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

from nas import Experiment, ValueChoice
from nas.cli.commands import app
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice([1, 2, 3, 4, 5, 6], label="width"))


def evaluate(model: Any) -> float:
    if str(model.out_features) in os.environ["FAULTY_WIDTHS"].split():
        raise OSError(f"no room for {model.out_features}\nmake some")
    return float(model.out_features)


def make(folder: Path, **given: Any) -> Experiment:
    return Experiment(space, FunctionalEvaluator(evaluate), GridSearch(), name="e", directory=folder, **given)


def nas(folder: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments, "-d", str(folder)])
    assert result.exit_code == code, result.output
    return " ".join((result.output + (result.stderr if code else "")).split())


def test_what_failed_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULTY_WIDTHS", "2 3")
    experiment = make(tmp_path)
    experiment.run(6, progress="plain")
    said = " ".join(capsys.readouterr().out.split())
    assert "failed 2 times: OSError: no room for 2 (raised at test_retry.py:" in said
    assert f"try them again: nas retry e -d {tmp_path}" in said
    assert nas(tmp_path, "retry", "e", "1") == (
        "The sample of trial 1 is in the queue, and tried again by: nas resume e."
    )
    assert nas(tmp_path, "retry", "e") == "The sample of trial 2 is in the queue, and tried again by: nas resume e."
    assert nas(tmp_path, "retry", "e") == "No trial is FAILED that has not been tried again."
    assert "trial 0 is COMPLETE" in nas(tmp_path, "retry", "e", "0", code=2)
    assert "4/6 trials finished" in nas(tmp_path, "show", "e")
    monkeypatch.setenv("FAULTY_WIDTHS", "")
    resumed = make(tmp_path, resume=True)
    resumed.run(6, progress="silent")
    assert [trial.sample["width"] for trial in resumed.trials[6:]] == [2, 3]
    assert "6/6 trials finished" in nas(tmp_path, "show", "e")
