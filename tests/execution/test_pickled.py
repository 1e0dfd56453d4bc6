"""What a trial finds in a worker process: torch as it is here, and every way of starting more processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas.execution.pickled import apply, settings
from nas.testing import PATIENCE

SCRIPT = """
import multiprocessing, sys, tempfile
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from nas import Experiment, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch

def double(number):
    return 2 * number

def put(rank, shared):
    shared[rank] = rank + 1

def evaluate(model):
    assert model.weight.dtype == torch.float64
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.get_float32_matmul_precision() == "medium" and torch.backends.cudnn.benchmark
    loader = DataLoader(TensorDataset(torch.ones(8)), batch_size=2, num_workers=2)
    assert sum(float(batch.sum()) for batch, in loader) == 8
    with multiprocessing.Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
    shared = torch.zeros(1).share_memory_()
    torch.multiprocessing.spawn(put, (shared,), nprocs=1)
    return float(shared.sum())

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    experiment = Experiment(lambda: nn.Linear(2, ValueChoice([1, 2], label="width")), FunctionalEvaluator(evaluate),
                            GridSearch(), name="e", directory=tempfile.mkdtemp(), executor="process")
    experiment.run(1, progress="silent")
    assert experiment.trials[0].value == 1.0, experiment.trials[0].error
"""


@pytest.mark.slow
def test_a_trial_starts_processes_as_in_a_script_and_finds_its_torch(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr


def test_settings_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.deterministic = True
        other = settings()
        assert other != before
        apply(before)
        assert settings() == before
        apply(other)
        assert settings() == other
    finally:
        apply(before)
