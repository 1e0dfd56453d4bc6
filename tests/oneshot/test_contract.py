"""The contract of one-shot search, for each algorithm."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Cell, Evaluator, ModelSpace, OneShotStrategy, Zero
from nas.evaluators import Classification
from nas.oneshot import DARTS, ENAS, PCDARTS, GumbelDARTS, ProxylessNAS, RandomOneShot
from nas.testing import OneShotContract

pytestmark = pytest.mark.long
variant = pytest.mark.slow
"""Of another one below, by the same learner: the ordinary run has only its planted optimum, in test_planted.py."""

SHORT: Any = {"epochs": 2, "checkpoint_every": 3, "candidates": 3, "recalibration": 2}


class Small(OneShotContract):
    onnx = False

    def evaluator(self, **arguments: Any) -> Evaluator:
        generator = torch.Generator().manual_seed(0)
        inputs, noise = torch.randn(64, 6, generator=generator), torch.randn(64, 3, generator=generator)
        labels = (inputs[:, :3] + 0.3 * noise).argmax(1)
        train, validation = TensorDataset(inputs[:40], labels[:40]), TensorDataset(inputs[40:], labels[40:])
        given = {"batch_size": 8, "learning_rate": 0.05, "accelerator": "cpu", "logger": False}
        return Classification(train, validation, optimizer="SGD", **(given | arguments))


class TestDARTS(Small):
    onnx = True

    def make(self) -> OneShotStrategy:
        return DARTS(**SHORT)

    @pytest.mark.slow
    def test_kills_change_nothing(self, tmp_path: Path) -> None:
        super().test_kills_change_nothing(tmp_path)

    @pytest.mark.slow
    def test_exports(self, tmp_path: Path) -> None:
        super().test_exports(tmp_path)


@variant
class TestUnrolledDARTS(Small):
    def make(self) -> OneShotStrategy:
        return DARTS(unrolled=True, warmup_epochs=1, **SHORT)


@variant
class TestGumbelDARTS(Small):
    def make(self) -> OneShotStrategy:
        return GumbelDARTS(**SHORT)


@variant
class TestHardGumbelDARTS(Small):
    def make(self) -> OneShotStrategy:
        return GumbelDARTS(hard=True, **SHORT)


class Cells(nn.Module):
    """(batch, 6) -> (batch, 3) by a cell of 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        operations = {
            "none": lambda i: Zero(),
            "skip": lambda i: nn.Identity(),
            "conv": lambda i: nn.Conv2d(8, 8, 1, bias=False),
        }
        self.cell = Cell(operations, nodes=2, distinct=True, output="all", label="cell")
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        images = nn.functional.pad(inputs, (0, 2))[:, :, None, None].expand(-1, -1, 2, 2)
        found: Tensor = self.head(self.cell(images, images).mean((2, 3)))
        return found


@pytest.mark.slow
class TestPCDARTS(Small):
    weights = False

    def make(self) -> OneShotStrategy:
        return PCDARTS(warmup_epochs=1, partial_channels=2, **SHORT)

    def space(self) -> ModelSpace:
        return ModelSpace(Cells)


@pytest.mark.slow
class TestProxylessNAS(Small):
    def make(self) -> OneShotStrategy:
        return ProxylessNAS(**SHORT)


@pytest.mark.slow
class TestENAS(Small):
    def make(self) -> OneShotStrategy:
        return ENAS(controller_steps=3, samples_per_step=2, draws=5, **SHORT)


@variant
class TestRandomOneShot(Small):
    onnx = True

    def make(self) -> OneShotStrategy:
        return RandomOneShot(evaluations=8, population=4, **SHORT)


@variant
class TestSandwich(Small):
    def make(self) -> OneShotStrategy:
        return RandomOneShot(sampling="sandwich", evaluations=8, population=4, **SHORT)
