"""A real process, killed at random instants: nothing finished is lost or run again, and the search is the same."""

from __future__ import annotations

import json
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch import nn

from nas import Experiment, LayerChoice, Real, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random
from nas.testing import ended_well, fork, wait_until

pytestmark = pytest.mark.long

TRIALS = 250


def space() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, ValueChoice(list(range(1, 40)), label="width")), LayerChoice([nn.ReLU, nn.Tanh], label="act")
    )


def search(folder: Path) -> None:
    with (folder / "log").open("a", buffering=1) as log:

        def evaluate(model: nn.Sequential, rate: float) -> float:
            width = int(model[0].out_features)  # type: ignore[arg-type]  # it is a Linear
            log.write(json.dumps(["begin", width, rate]) + "\n")
            time.sleep(0.005)
            log.write(json.dumps(["end", width, rate]) + "\n")
            return width * rate

        experiment = Experiment(
            space,
            FunctionalEvaluator(evaluate, rate=Real(0, 1)),
            Random(),
            name="killed",
            directory=folder,
            seed=9,
            resume=True,
        )
        (folder / "ready").touch()
        experiment.run(TRIALS, progress="silent")
        found = [[t.sample["width"], t.sample["rate"], t.value, str(t.state)] for t in experiment.trials]
        (folder / "found").write_text(json.dumps(found))


def start(folder: Path) -> BaseProcess:
    (folder / "ready").unlink(missing_ok=True)
    process = fork(search, folder, output=folder / "output")
    wait_until(lambda: (folder / "ready").exists() or not process.is_alive())
    return process


def finish(folder: Path) -> list[list[object]]:
    ended_well(start(folder), folder / "output")
    return json.loads((folder / "found").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("kills", [pytest.param(5, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)])
def test_kills_change_nothing(kills: int, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = finish(whole)

    rng = random.Random(1)
    for _ in range(kills):
        process = start(killed)
        time.sleep(rng.uniform(0, 0.1))
        assert process.is_alive(), "the search ended before it could be killed"
        process.kill()
        process.join()
    assert finish(killed) == expected

    events = [json.loads(line) for line in (killed / "log").read_text().splitlines() if line.endswith("]")]
    begun: dict[str, int] = {}
    for kind, *sample in events:
        if kind == "begin":
            begun[json.dumps(sample)] = begun.get(json.dumps(sample), 0) + 1
    assert len(begun) == TRIALS
    again = sum(number - 1 for number in begun.values())
    assert 0 < again <= kills  # each kill repeats at most the one trial that was running
