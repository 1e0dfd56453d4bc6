"""A planted optimum: a linear task that one candidate alone can represent; every algorithm finds it on every seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Cell, Experiment, LayerChoice, Sample, Zero
from nas.evaluators import Regression
from nas.oneshot import DARTS, ENAS, PCDARTS, GumbelDARTS, ProxylessNAS, RandomOneShot, SupernetStrategy

pytestmark = pytest.mark.long

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]


Task: TypeAlias = tuple[TensorDataset, TensorDataset]


def linear_task() -> Task:
    """Pairs of (8,) and (8,) under a linear map, with some noise."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 8, generator=generator) / 8**0.5
    inputs = torch.randn(400, 8, generator=generator)
    return _task(inputs, inputs @ weight + 0.1 * torch.randn(400, 8, generator=generator))


def cell_task() -> Task:
    """Pairs of (16,) and (8,): half the channels of the two inputs of a cell under linear maps, half as they are."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 4, generator=generator) / 8**0.5
    inputs = torch.randn(400, 16, generator=generator)
    first, second = inputs.chunk(2, dim=1)
    mixed, kept = torch.cat([first[:, :4], second[:, :4]], dim=1) @ weight, (first[:, 4:] + second[:, 4:]) / 2
    return _task(inputs, torch.stack([mixed, kept], dim=2).flatten(1))


def _task(inputs: Tensor, targets: Tensor) -> Task:
    return TensorDataset(inputs[:256], targets[:256]), TensorDataset(inputs[256:], targets[256:])


def layers() -> nn.Module:
    """The targets have both signs and mix the inputs, so nothing but a Linear will do."""
    operations = {
        "skip": nn.Identity,
        "none": Zero,
        "relu": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
        "linear": lambda: nn.Linear(8, 8),
    }
    return nn.Sequential(LayerChoice(operations, label="operation"))


class OneNode(nn.Module):
    """A cell of one node with two edges: from the inputs, and not from noise between them."""

    def __init__(self) -> None:
        super().__init__()
        operations = {
            "none": lambda i: Zero(),
            "skip": lambda i: nn.Identity(),
            "relu": lambda i: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
            "linear": lambda i: nn.Conv2d(8, 8, 1),
        }
        self.cell = Cell(operations, nodes=1, distinct=True, output="all", label="cell", preprocess=[nn.Identity] * 3)

    def forward(self, inputs: Tensor) -> Tensor:
        first, second = inputs[:, :, None, None].chunk(2, dim=1)
        found: Tensor = self.cell(first, first.roll(1, 0), second).flatten(1)
        return found


LINEAR = {"operation": "linear"}
EDGES = {"cell/node0/inputs": [0, 2], "cell/node0/op0": "linear", "cell/node0/op2": "linear"}

SHORT: Any = {"epochs": 6, "learning_rate": 0.02}
ALGORITHMS: dict[str, tuple[Callable[[], SupernetStrategy], Callable[[], nn.Module], Callable[[], Task], Sample]] = {
    "darts": (lambda: DARTS(**SHORT), layers, linear_task, LINEAR),
    "unrolled": (lambda: DARTS(unrolled=True, **SHORT), layers, linear_task, LINEAR),
    "gumbel": (lambda: GumbelDARTS(**SHORT), layers, linear_task, LINEAR),
    "gdas": (lambda: GumbelDARTS(hard=True, **(SHORT | {"epochs": 15})), layers, linear_task, LINEAR),
    "pc-darts": (lambda: PCDARTS(warmup_epochs=2, partial_channels=2, **SHORT), OneNode, cell_task, EDGES),
    "proxyless": (lambda: ProxylessNAS(**(SHORT | {"epochs": 15})), layers, linear_task, LINEAR),
    "enas": (lambda: ENAS(epochs=6), layers, linear_task, LINEAR),
    "random": (lambda: RandomOneShot(epochs=6), layers, linear_task, LINEAR),
    "sandwich": (lambda: RandomOneShot(sampling="sandwich", distillation=None, epochs=6), layers, linear_task, LINEAR),
}


def find(name: str, seed: int, folder: Path) -> Sample:
    make, space, task, _ = ALGORITHMS[name]
    # The one candidate that GDAS computes tells something only as long as it is still being trained.
    rate = 0.2 if name == "gdas" else 1.0
    evaluator = Regression(*task(), batch_size=32, optimizer="SGD", learning_rate=rate, logger=False, accelerator="cpu")
    experiment = Experiment(space, evaluator, make(), name=f"{name}-{seed}", directory=folder, seed=seed)
    experiment.run(1, progress="silent")
    return experiment.best_trial.sample


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in ("enas", "proxyless") else ()) for n in ALGORITHMS]
)
def test_the_planted_optimum_is_found(name: str, seed: int, tmp_path: Path) -> None:
    assert find(name, seed, tmp_path) == ALGORITHMS[name][3]
