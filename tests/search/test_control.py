"""A search that is changed while it runs, from other threads of its process."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import Experiment, ExperimentError, Real, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random, RegularizedEvolution


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice(list(range(1, 9)), label="width"))


def make(folder: Path, function: Any, strategy: Any = None, **given: Any) -> Experiment:
    evaluator = FunctionalEvaluator(function, rate=Real(0, 1))
    return Experiment(space, evaluator, strategy or Random(), name="e", directory=folder, **given)


def slow(model: Any, rate: float) -> float:
    time.sleep(0.004)
    return float(model.out_features * rate)


def fails_below(model: Any, rate: float) -> float:
    time.sleep(0.004)
    if rate < 0.2:
        raise ValueError("too low")
    return float(model.out_features * rate)


def test_what_is_enqueued_meanwhile_is_run_and_nothing_is_lost(tmp_path: Path) -> None:
    experiment = make(tmp_path, fails_below, RegularizedEvolution(population_size=10), seed=3)
    given = [{"width": 1 + n % 8, "rate": 0.5 + n / 100} for n in range(30)]
    begun, seen, retried = threading.Event(), [], []

    def disturb() -> None:
        begun.wait()
        for sample in given:
            assert experiment.enqueue(sample)
            seen.append(len(experiment.trials))
            retried.extend(experiment.retry())

    thread = threading.Thread(target=disturb)
    thread.start()
    begun.set()
    experiment.run(120, progress="silent")
    thread.join()
    counted = len(experiment.trials) - len(retried)
    assert 120 - len(retried) <= counted <= 120
    assert seen == sorted(seen)
    stored = Experiment.load(tmp_path / "e")
    assert stored.trials == experiment.trials, "what is in memory is what is on disk"
    experiment.run(200, progress="silent")
    run = [trial.sample for trial in experiment.trials]
    assert all(sample in run for sample in given)
    again = make(tmp_path, fails_below, RegularizedEvolution(population_size=10), seed=3, resume=True)
    assert again.trials == experiment.trials


def test_one_object_is_run_by_one_thread_at_a_time(tmp_path: Path) -> None:
    experiment = make(tmp_path, slow)
    thread = threading.Thread(target=lambda: experiment.run(100, progress="silent"))
    thread.start()
    while len(experiment.trials) < 3:
        time.sleep(0.005)
    with pytest.raises(ExperimentError, match="run already, in another thread"):
        experiment.run(5)
    thread.join()
    assert len(experiment.trials) == 100


def noted(folder: Path) -> object:
    return Experiment.load(folder / "e").run.get("max_trials")


def test_a_limit_below_what_there_is_changes_none_that_is_noted(tmp_path: Path) -> None:
    experiment = make(tmp_path, slow)
    experiment.run(20, progress="silent")
    experiment.run(5, progress="silent")
    assert (len(experiment.trials), noted(tmp_path)) == (20, 20)
    experiment.run(30, timeout=1e-9, progress="silent")
    experiment.run(12, progress="silent")
    assert (len(experiment.trials), noted(tmp_path)) == (20, 30)
    experiment.run(25, progress="silent")
    assert (len(experiment.trials), noted(tmp_path)) == (25, 25)
    experiment.run(timeout=1e-9, progress="silent")
    assert noted(tmp_path) is None


def test_how_to_have_more_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = make(tmp_path, slow)
    experiment.run(7, progress="silent")
    experiment.run(5, progress="plain")
    said = " ".join(capsys.readouterr().out.split())
    assert "7 trials have begun already, and max_trials counts the whole experiment: for 5 more, max_trials=12" in said
