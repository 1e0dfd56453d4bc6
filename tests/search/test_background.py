"""Searches in threads of one process: `run(background=True)`, and several experiments at the same time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest
import torch
from torch import nn

from nas import Experiment, ExperimentError, NasError, Real, ValueChoice, trial_directory
from nas.evaluators import FunctionalEvaluator
from nas.strategies import TPE, GaussianProcess, Random
from nas.testing import fork, wait_until


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice(list(range(1, 9)), label="width"))


def make(folder: Path, function: Any, strategy: Any = None, **given: Any) -> Experiment:
    evaluator = FunctionalEvaluator(function, rate=Real(0, 1))
    return Experiment(space, evaluator, strategy or Random(), name="e", directory=folder, **given)


def short(model: Any, rate: float) -> float:
    time.sleep(0.01)
    return float(model.out_features * rate)


def endless(model: Any, rate: float) -> float:
    end = time.monotonic() + 1000
    while time.monotonic() < end:
        time.sleep(0.005)
    return rate


def begun(experiment: Experiment, number: int = 1) -> Callable[[], bool]:
    return lambda: len(experiment.trials) >= number


def test_it_goes_on_by_itself_and_can_be_changed(tmp_path: Path) -> None:
    experiment = make(tmp_path, short)
    run = experiment.run(max_trials=10_000, background=True)
    assert run.state == "running"
    assert not run.wait(0.01)
    wait_until(begun(experiment, 3))
    experiment.enqueue({"width": 8, "rate": 0.875})
    wait_until(lambda: {"width": 8, "rate": 0.875} in [trial.sample for trial in experiment.trials])
    run.set(max_trials=4)
    assert run.wait("1m")
    assert (run.state, experiment.ending) == ("done", "all trials done")
    assert Experiment.load(tmp_path / "e").trials == experiment.trials
    assert Experiment.load(tmp_path / "e").run["max_trials"] == 4
    again = experiment.run(max_trials=len(experiment.trials) + 2, background=True)
    assert again.wait()
    assert experiment.best_trial.state.is_finished


def test_it_is_stopped_and_its_trials_are_killed(tmp_path: Path) -> None:
    experiment = make(tmp_path, endless)
    run = experiment.run(background=True)
    wait_until(begun(experiment))
    begin = time.monotonic()
    run.kill(0)
    wait_until(begun(experiment, 2))
    run.stop()
    experiment.kill([1])
    assert run.wait(60)
    assert time.monotonic() - begin < 5
    assert run.state == "stopped"
    assert "stopped by request" in experiment.ending
    assert [trial.state.name for trial in experiment.trials] == ["FAILED", "FAILED"]
    assert "TrialKilled: somebody has asked" in experiment.trials[1].error_line
    with pytest.raises(NasError, match="trial 1 is FAILED"):
        run.kill(1)


def test_a_limit_of_time_holds_there_too(tmp_path: Path) -> None:
    experiment = make(tmp_path, endless)
    run = experiment.run(1, max_trial_time=0.1, background=True)
    assert run.wait(60)
    assert "TrialTimeout: the trial ran longer than max_trial_time, 0.1 s" in experiment.trials[0].error_line


def test_its_error_comes_out_of_wait(tmp_path: Path) -> None:
    def fails(model: Any, rate: float) -> float:
        raise OSError("no disk")

    experiment = make(tmp_path, fails)
    run = experiment.run(background=True)
    for _ in range(2):
        with pytest.raises(ExperimentError, match="The first 10 trials all failed"):
            run.wait()
    assert run.state == "failed"


def test_what_cannot_begin_is_refused_at_once(tmp_path: Path) -> None:
    experiment = make(tmp_path, short)
    run = experiment.run(background=True)
    with pytest.raises(ExperimentError, match="run already, in another thread"):
        experiment.run(background=True)
    with pytest.raises(ExperimentError, match="another process runs the experiment"):
        make(tmp_path, short, resume=True).run(background=True)
    with pytest.raises(NasError, match="run: background must be True or False"):
        experiment.run(background="yes")  # type: ignore[call-overload]
    with pytest.raises(NasError, match="set changes one limit at least"):
        run.set()
    with pytest.raises(NasError, match="set, by this executor: concurrency must be an int from 1 to 1, or None"):
        run.set(concurrency=2)
    with pytest.raises(NasError, match="wait: timeout must be a number of seconds"):
        run.wait("soon")
    run.stop()
    assert run.wait()


def draws(model: Any, rate: float) -> float:
    """A number that hangs on all global generators, before and after others have had the time to draw."""
    first = torch.rand(1).item() + random.random() + numpy.random.rand()
    print("drawing in", threading.current_thread().name)
    time.sleep(0.002)
    return float(first + torch.rand(1).item() + random.random() + numpy.random.rand() + rate)


def test_experiments_in_threads_find_what_they_find_alone(tmp_path: Path) -> None:
    strategies: list[Callable[[], Any]] = [Random, TPE, lambda: GaussianProcess(initial=3)]
    alone = [make(tmp_path / f"alone-{n}", draws, s(), seed=n) for n, s in enumerate(strategies)]
    for experiment in alone:
        experiment.run(12, progress="silent")
    before = torch.get_num_threads(), optuna.logging.get_verbosity(), list(warnings.filters), sys.stdout
    states = torch.get_rng_state(), random.getstate()
    together = [make(tmp_path / f"together-{n}", draws, s(), seed=n) for n, s in enumerate(strategies)]
    runs = [experiment.run(12, background=True) for experiment in together]
    print("of nobody's trial")
    for run in runs:
        assert run.wait()
    for one, other in zip(alone, together, strict=True):
        assert [(t.sample, t.value) for t in one.trials] == [(t.sample, t.value) for t in other.trials]
    logs = [path.read_text() for path in tmp_path.glob("together-*/e/trials/*/log.txt")]
    assert logs == ["drawing in nas-run\n"] * 36
    assert before == (torch.get_num_threads(), optuna.logging.get_verbosity(), list(warnings.filters), sys.stdout)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def test_a_trial_that_waits_for_its_turn_can_be_killed(tmp_path: Path) -> None:
    first, second = make(tmp_path / "1", endless), make(tmp_path / "2", endless)
    runs = [experiment.run(2, background=True) for experiment in (first, second)]
    wait_until(lambda: begun(first)() and begun(second)())
    for experiment in (second, first):
        experiment.set(max_trials=1)
        experiment.kill(0)
    for run in runs:
        assert run.wait(60)
    assert [e.trials[0].state.name for e in (first, second)] == ["FAILED", "FAILED"]


def script(folder: Path) -> None:
    """Waits for a search, as a script does; for Ctrl-C alone does it end."""

    def evaluate(model: Any, rate: float) -> float:
        (trial_directory() / "begun").touch()
        return endless(model, rate)

    run = make(folder, evaluate).run(background=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    (folder / "waits").touch()
    run.wait()


def test_ctrl_c_ends_a_script_that_waits(tmp_path: Path) -> None:
    process = fork(script, tmp_path, output=tmp_path / "output")
    wait_until((tmp_path / "e" / "trials" / "0" / "begun").exists)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    wait_until(lambda: "nas:stops" in (tmp_path / "e" / "journal.log").read_text())
    time.sleep(0.3)
    assert process.is_alive(), "its trial is let finish"
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert [trial.state.name for trial in Experiment.load(tmp_path / "e").trials] == ["RUNNING"]


def forget(folder: Path, executor: Any) -> None:
    """A script that does not wait."""

    def evaluate(model: Any, rate: float) -> float:
        (folder / "begun").touch()
        return endless(model, rate)

    make(folder, evaluate, executor=executor).run(30, background=True)
    wait_until((folder / "begun").exists)


@pytest.mark.parametrize("executor", ["inline", pytest.param("process", marks=pytest.mark.slow)])
def test_it_ends_with_a_script_that_does_not_wait(executor: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pathlib, test_background\ntest_background.forget(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, str(script), str(tmp_path), executor]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert "has ended with the script, before its end: run.wait() waits for it" in done.stderr
    assert "Traceback" not in done.stderr
    assert [trial.state.name for trial in Experiment.load(tmp_path / "e").trials] == ["RUNNING"]
