"""A search that runs in another process obeys the command line within a second, inline and with processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from torch import nn
from typer.testing import CliRunner

from nas import Experiment, Real, ValueChoice
from nas.cli.commands import app
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random
from nas.testing import ended_well, fork, wait_until

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Server

SOON = 1.0 + float(os.environ.get("NAS_TEST_SLACK", "3"))
"""Seconds: what is promised, and what a busy machine takes more."""


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice(list(range(1, 9)), label="width"))


def search(folder: Path, executor: Any, limits: dict[str, Any], seconds: float) -> None:
    def evaluate(model: Any, rate: float) -> float:
        (folder / f"begun-{time.time()}").touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (folder / "go").exists():
            time.sleep(0.01)
        return float(model.out_features * rate)

    evaluator = FunctionalEvaluator(evaluate, rate=Real(0, 1))
    experiment = Experiment(space, evaluator, Random(), name="live", directory=folder, executor=executor, resume=True)
    experiment.run(progress="silent", **limits)
    (folder / "ending").write_text(experiment.ending)


def nas(folder: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments, "-d", str(folder)])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join((result.output + (result.stderr if code else "")).split())


@contextmanager
def live(folder: Path, executor: Any, seconds: float, **limits: Any) -> Iterator[BaseProcess]:
    """A search whose first trial has begun."""
    process = fork(search, folder, executor, limits, seconds, output=folder / "output")
    try:
        wait_until(lambda: begun(folder) > 0 or not process.is_alive())
        yield process
    finally:
        process.kill()
        process.join()


def begun(folder: Path) -> int:
    return len(list(folder.glob("begun-*")))


def states(folder: Path) -> str:
    return "".join(trial.state.name[0] for trial in Experiment.load(folder / "live").trials)


def within_a_second(condition: Callable[[], bool]) -> None:
    begin = time.monotonic()
    wait_until(condition)
    assert time.monotonic() - begin < SOON


EXECUTORS = pytest.mark.parametrize("executor", ["inline", pytest.param("process", marks=pytest.mark.slow)])


@EXECUTORS
def test_a_trial_is_killed(executor: str, tmp_path: Path) -> None:
    with live(tmp_path, executor, 1000.0, max_trials=2) as process:
        assert nas(tmp_path, "kill", "live", "0") == "Trial 0 is being ended, and FAILED."
        within_a_second(lambda: states(tmp_path).startswith("F"))
        failed = Experiment.load(tmp_path / "live").trials[0]
        assert failed.error_line.endswith("TrialKilled: somebody has asked for the end of this trial")
        assert "trial 0 is FAILED" in nas(tmp_path, "kill", "live", "0", code=2)
        assert "trial 7 is not there" in nas(tmp_path, "kill", "live", "7", code=2)
        (tmp_path / "go").touch()
        ended_well(process, tmp_path / "output")
    assert states(tmp_path) == "FC"
    assert (tmp_path / "ending").read_text() == "all trials done"


@EXECUTORS
def test_it_stops_when_its_running_trial_has_ended(executor: str, tmp_path: Path) -> None:
    with live(tmp_path, executor, 1000.0) as process:
        assert nas(tmp_path, "stop", "live") == "live ends when its running trials have."
        time.sleep(0.5)
        (tmp_path / "go").touch()
        within_a_second(lambda: not process.is_alive())
        ended_well(process, tmp_path / "output")
    assert states(tmp_path) == "C"
    assert "stopped by request" in (tmp_path / "ending").read_text()


@EXECUTORS
def test_a_limit_of_time_reaches_the_trial_that_runs(executor: str, tmp_path: Path) -> None:
    with live(tmp_path, executor, 2.0, max_trials=2, max_trial_time=1.5) as process:
        assert nas(tmp_path, "set", "live", "--max-trial-time", "none") == "live: max trial time none, now."
        wait_until(lambda: states(tmp_path).startswith("C"))
        nas(tmp_path, "set", "live", "--max-trial-time", "0.05")
        within_a_second(lambda: states(tmp_path).startswith("CF"))
        ended_well(process, tmp_path / "output")
    trial = Experiment.load(tmp_path / "live").trials[1]
    assert "TrialTimeout: the trial ran longer than max_trial_time, 0.05 s" in trial.error_line


@EXECUTORS
def test_the_number_of_trials_goes_up_and_down(executor: str, tmp_path: Path) -> None:
    with live(tmp_path, executor, 0.1, max_trials=1000) as process:
        assert nas(tmp_path, "set", "live", "-n", "none") == "live: max trials none, now."
        shown = json.loads(nas(tmp_path, "show", "live", "--json"))
        assert (shown["max_trials"], shown["state"]) == (None, "running")
        nas(tmp_path, "set", "live", "--max-trials", "1")
        within_a_second(lambda: not process.is_alive())
        ended_well(process, tmp_path / "output")
    count = len(states(tmp_path))
    assert nas(tmp_path, "set", "live", "-n", str(count + 3)) == (
        f"live: max trials {count + 3}, when it goes on by: nas resume live."
    )
    assert json.loads(nas(tmp_path, "show", "live", "--json"))["max_trials"] == count + 3


@EXECUTORS
def test_the_time_of_a_run_is_changed(executor: str, tmp_path: Path) -> None:
    with live(tmp_path, executor, 0.1, timeout=1000) as process:
        nas(tmp_path, "set", "live", "--timeout", "none")
        nas(tmp_path, "set", "live", "--timeout", "0.01s")
        within_a_second(lambda: not process.is_alive())
        ended_well(process, tmp_path / "output")
    assert (tmp_path / "ending").read_text() == "the time is up"


@pytest.mark.slow
def test_more_and_fewer_trials_at_a_time(tmp_path: Path) -> None:
    with live(tmp_path, "process", 1000.0, concurrency=1) as process:
        nas(tmp_path, "set", "live", "--concurrency", "3")
        wait_until(lambda: begun(tmp_path) == 3)  # processes take a while to start
        nas(tmp_path, "set", "live", "--concurrency", "1")
        time.sleep(0.6)
        nas(tmp_path, "kill", "live", "1")
        wait_until(lambda: states(tmp_path) == "RFR")
        time.sleep(0.6)
        assert states(tmp_path) == "RFR", "two run still, and one is enough"
        nas(tmp_path, "stop", "live")
        (tmp_path / "go").touch()
        ended_well(process, tmp_path / "output")
    assert states(tmp_path) == "CFC"


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    search(tmp_path, "inline", {"max_trials": 1}, 0.0)
    for arguments, words in (
        (["set", "live"], "set changes one limit at least"),
        (["set", "live", "--timeout", "soon"], 'a text such as "12h"'),
        (["set", "live", "--timeout", "-1"], "must be a number of seconds above 0"),
        (["set", "live", "-n", "0"], "max_trials must be an int from 1 on"),
        (["set", "live", "-n", "many"], "must be a whole number"),
        (["set", "live", "-c", "2"], "concurrency must be an int from 1 to 1"),
        (["set", "life", "-n", "2"], "did you mean 'live'?"),
        (["kill", "live", "0"], "trial 0 is COMPLETE"),
    ):
        assert words in nas(tmp_path, *arguments, code=2).replace("│ ", ""), arguments
    assert nas(tmp_path, "stop", "live") == "live is not running here."


def controlled(folder: Path, url: str, executor: str) -> None:
    os.environ["NAS_HEARTBEAT"] = "1"

    def evaluate(model: Any, rate: float) -> float:
        (folder / f"begun-{os.getpid()}-{rate}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        return float(model.out_features * rate)

    evaluator = FunctionalEvaluator(evaluate, rate=Real(0, 1))
    where, given = folder / executor, {"executor": executor, "storage": url, "resume": True}
    experiment = Experiment(space, evaluator, Random(), name="control", directory=where, **given)  # type: ignore[arg-type]
    experiment.run(1000, progress="silent", concurrency=1)
    (folder / f"ending-{executor}").write_text(experiment.ending)


@pytest.mark.slow
def test_processes_that_share_it_obey_within_a_second(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("control")
    processes = [
        fork(controlled, tmp_path, url, executor, output=tmp_path / "output") for executor in ("inline", "process")
    ]

    def states_there() -> list[str]:
        return [trial.state.name for trial in Experiment.load(tmp_path / "here" / "control", storage=url).trials]

    wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
    there = ["--storage", url]
    nas(tmp_path / "here", "kill", "control", "0", "1", *there)
    nas(tmp_path / "here", "set", "control", "--max-trials", "3", *there)
    within_a_second(lambda: states_there()[:2] == ["FAILED", "FAILED"])
    assert nas(tmp_path / "here", "stop", "control", *there) == "control ends when its running trials have."
    (tmp_path / "go").touch()
    for process in processes:
        ended_well(process, tmp_path / "output")
    assert states_there() in (["FAILED"] * 2 + ["COMPLETE"], ["FAILED"] * 2 + ["COMPLETE"] * 2)
    endings = {(tmp_path / f"ending-{executor}").read_text() for executor in ("inline", "process")}
    assert endings <= {"all trials done", "stopped by request; resume it to go on"}
    noted = Experiment.load(tmp_path / "here" / "control", storage=url).run
    assert noted["max_trials"] == 3
