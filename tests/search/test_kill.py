"""A real process, killed at random instants: nothing finished is lost or run again, and the search is the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import json, os, sys, time
from torch import nn
from nas import Experiment, LayerChoice, Real, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

log = open(sys.argv[2], "a", buffering=1)

def space():
    return nn.Sequential(nn.Linear(2, ValueChoice(list(range(1, 40)), label="width")),
                         LayerChoice([nn.ReLU, nn.Tanh], label="act"))

def evaluate(model, rate):
    log.write(json.dumps(["begin", model[0].out_features, rate]) + "\\n")
    time.sleep(0.005)
    log.write(json.dumps(["end", model[0].out_features, rate]) + "\\n")
    return model[0].out_features * rate

experiment = Experiment(space, FunctionalEvaluator(evaluate, rate=Real(0, 1)), Random(), name="killed",
                        directory=sys.argv[1], seed=9, resume=True)
print("ready", flush=True)
experiment.run(int(sys.argv[3]), progress="silent")
print(json.dumps([[t.sample["width"], t.sample["rate"], t.value, str(t.state)] for t in experiment.trials]))
"""

KILLS, TRIALS = 20, 400


def start(folder: Path, log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(folder / "script.py"), str(folder), str(log), str(TRIALS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> list[list[object]]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out)  # type: ignore[no-any-return]


def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "script.py").write_text(SCRIPT)
    expected = finish(start(tmp_path / "whole", tmp_path / "whole.log"))

    rng = random.Random(1)
    for _ in range(KILLS):
        process = start(tmp_path / "killed", tmp_path / "killed.log")
        time.sleep(rng.uniform(0, 0.15))
        assert process.poll() is None, "the search ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert finish(start(tmp_path / "killed", tmp_path / "killed.log")) == expected

    events = [json.loads(line) for line in (tmp_path / "killed.log").read_text().splitlines() if line.endswith("]")]
    begun: dict[str, int] = {}
    for kind, *sample in events:
        if kind == "begin":
            begun[json.dumps(sample)] = begun.get(json.dumps(sample), 0) + 1
    assert len(begun) == TRIALS
    again = sum(number - 1 for number in begun.values())
    assert 0 < again <= KILLS  # each kill repeats at most the one trial that was running
