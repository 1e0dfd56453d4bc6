"""Real processes: Ctrl-C in the middle of a training, and one training on two processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

SCRIPT = """
import json, signal, sys
import torch
from torch import nn
from torch.utils.data import TensorDataset
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
    experiment.run(1, progress="plain" if name == "interrupted" else "silent")
    trial = experiment.trials[0]
    print(json.dumps([trial.state, trial.value, list(trial.intermediate.values()), trial.error]), flush=True)

if __name__ == "__main__":
    if sys.argv[2] == "interrupted":
        search("interrupted", max_epochs=100_000, callbacks=[Ready()], enable_checkpointing=False)
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    else:
        two = {"devices": 2, "accelerator": "cpu", "max_epochs": 2}
        search("stopped", Patience(1, min_delta=1.0), strategy="ddp_fork", **two)
        search("complete", strategy="ddp", precision="bf16-mixed", gradient_clip_val=1.0, **two)
"""


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    (tmp_path / "script.py").write_text(SCRIPT)
    return [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]


def start(command: list[str], *argument: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *argument], stdout=pipe, stderr=pipe, text=True, env=environment)


def test_an_interrupt_ends_the_search_and_not_only_the_trial(script: list[str]) -> None:
    process = start(script, "interrupted")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "interrupted; run it again" in out
    lines = out.splitlines()
    state, _, _, error = json.loads(lines[-2])
    assert (state, error) == ("RUNNING", None)  # so it runs again when the search is resumed
    assert lines[-1] == "True"  # Lightning had SIGINT ignored


def test_two_processes_train_one_model_report_and_are_stopped(script: list[str]) -> None:
    process = start(script, "two")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    # Older torch says between them who is connected.
    lines = [line for line in out.splitlines() if line.startswith('["')]
    (stopped, last, curve, _), (state, value, whole, error) = map(json.loads, lines)
    assert stopped == "STOPPED"
    assert [last] == curve[-1:]
    assert len(curve) == 2
    assert (state, error) == ("COMPLETE", None)
    assert len(whole) == 2
    assert whole[-1] == value
    assert value > 0.4
    assert err == ""
