"""A real script: Ctrl-C in the middle of a training, and one training on two processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

SCRIPT = """
import json, signal, sys
import torch
from torch import nn
from torch.utils.data import TensorDataset
from contextlib import suppress
from nas import Experiment, Patience, ValueChoice
from nas.evaluators import Classification
from nas.strategies import GridSearch
from pytorch_lightning import Callback

class Ready(Callback):
    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 3:
            print("ready", flush=True)

def space():
    width = ValueChoice([8, 16], label="width")
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

def load():
    x = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(1)
    return TensorDataset(x[:96], y[:96]), TensorDataset(x[96:], y[96:])

def search(name, early_stopping=None, **options):
    evaluator = Classification(load, learning_rate=0.02, **options)
    experiment = Experiment(space, evaluator, GridSearch(), name=name, directory=sys.argv[1],
                            early_stopping=early_stopping)
    with suppress(KeyboardInterrupt):
        experiment.run(1, progress="plain" if name == "interrupted" else "silent")
    trial = experiment.trials[0]
    print(json.dumps([trial.state, trial.value, list(trial.intermediate.values()), trial.error]), flush=True)

if __name__ == "__main__":
    two = {"devices": 2, "accelerator": "cpu", "max_epochs": 2}
    mixed = {"precision": "bf16-mixed", "gradient_clip_val": 1.0, **two}
    if sys.argv[2] == "ddp":  # Each process starts from nothing.
        search("complete", strategy="ddp", **mixed)
    else:
        search("interrupted", max_epochs=100_000, callbacks=[Ready()], enable_checkpointing=False)
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
        search("stopped", Patience(1, min_delta=1.0), strategy="ddp_fork", **two)
        search("complete", strategy="ddp_fork", **mixed)
"""


def start(folder: Path, launch: str) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "script.py"), str(folder), launch]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the script prints. It is run once, as loading Lightning takes longer than all its trainings."""
    process = start(tmp_path_factory.mktemp("script"), "ddp_fork")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    return finish(process)


def results(lines: list[str]) -> list[Any]:
    """Of the searches; older torch says between them who is connected."""
    return [json.loads(line) for line in lines if line.startswith('["')]


@pytest.mark.slow
def test_an_interrupt_ends_the_search_and_not_only_the_trial(lines: list[str]) -> None:
    assert any("interrupted; run it again" in line for line in lines)
    state, _, _, error = results(lines)[0]
    assert (state, error) == ("RUNNING", None)  # so it runs again when the search is resumed
    assert "True" in lines  # Lightning had SIGINT ignored


def check_complete(state: str, value: float, curve: list[float], error: str | None) -> None:
    assert (state, error) == ("COMPLETE", None)
    assert len(curve) == 2
    assert curve[-1] == value
    assert value > 0.4


@pytest.mark.slow
def test_two_processes_train_one_model_report_and_are_stopped(lines: list[str]) -> None:
    _, (stopped, last, curve, _), complete = results(lines)
    assert stopped == "STOPPED"
    assert [last] == curve[-1:]
    assert len(curve) == 2
    check_complete(*complete)


@pytest.mark.slow
def test_two_processes_that_start_from_nothing_train_one_model(tmp_path: Path) -> None:
    (complete,) = results(finish(start(tmp_path, "ddp")))
    check_complete(*complete)
