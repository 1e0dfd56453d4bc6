"""Judging by Lightning's validation: data is loaded once, steps get what they get in a fit, and nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from nas.evaluators import LightningEvaluator
from nas.oneshot.training.judging import Judging
from tests.oneshot.conftest import TapeRecorder


class Counted(Dataset[Any]):
    """Numbers, which knows how often it is asked."""

    def __init__(self, length: int) -> None:
        self.length, self.asked = length, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return {"x": torch.full((2,), float(index)), "y": torch.tensor(float(index))}


class Data(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.train, self.validation = Counted(12), Counted(10)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, 4)

    def val_dataloader(self) -> Any:
        return DataLoader(self.validation, 4)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {name: tensor + 100 for name, tensor in batch.items()}


class Module(LightningModule):
    """Changes its batches in place, as careless code does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return mse_loss(self.model(input=batch["x"])[:, 0], batch["y"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(float(batch["y"].sum()))
        self.log("val_loss", mse_loss(self.model(batch.pop("x"))[:, 0], batch["y"]))
        batch["y"] -= 1e3

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))


class Named(nn.Module):
    """Is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = network()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inside(input)
        return out


def judging(**given: Any) -> tuple[Judging, LightningEvaluator, Data]:
    data = Data()
    evaluator = LightningEvaluator(Module, data, metric="val_loss", accelerator="cpu", logger=False, **given)
    return Judging(evaluator, seed=0), evaluator, data


def test_data_is_loaded_once_and_handed_on_as_it_was() -> None:
    judge, evaluator, data = judging()
    modules: list[Any] = [evaluator.module(network()) for _ in range(3)]
    found = [judge.measure(module) for module in modules]
    assert data.validation.asked == 10
    assert found[0] == found[1] == found[2]
    assert modules[0].seen == modules[1].seen == modules[2].seen == [sum(range(100, 104)), sum(range(104, 108)), 217]


def test_fewer_batches_are_the_first_ones() -> None:
    judge, evaluator, data = judging()
    few: Any = evaluator.module(network())
    judge.measure(few, batches=1)
    assert few.seen == [sum(range(100, 104))]
    judge.measure(few, batches=2)
    judge.measure(few, batches=1)
    assert few.seen[1:] == [*few.seen[:1], sum(range(104, 108)), *few.seen[:1]]
    assert data.validation.asked == 4 + 8


@pytest.mark.parametrize(("limit", "batches"), [(1, 1), (1.0, 3), (0.7, 2)])
def test_limits_of_the_trainer_hold(limit: float, batches: int) -> None:
    judge, evaluator, _ = judging(limit_val_batches=limit)
    for asked, expected in ((None, batches), (9, batches), (1, 1), (None, batches)):
        module: Any = evaluator.module(network())
        judge.measure(module, batches=asked)
        assert len(module.seen) == expected


def test_batch_statistics_are_those_of_what_the_training_step_calls_the_network_with() -> None:
    judge, evaluator, data = judging()
    for _ in range(3):
        model = Named()
        norm: Any = model.inside[0]
        judge.inside(evaluator.module(model), judge.recalibration(model, 20))
        assert norm.running_mean.tolist() == pytest.approx([105.5, 105.5], abs=1e-4)
        assert norm.num_batches_tracked == 3
    assert data.train.asked == 4 + 12, "loaded once, though an epoch has fewer than 20 batches"


def test_nothing_stays_in_the_module() -> None:
    judge, evaluator, _ = judging()
    module = evaluator.module(network())
    before = set(vars(module))
    for _ in range(2):
        judge.measure(module)
    assert not {"setup", "log", "_on_before_batch_transfer", "backward"} & set(vars(module))
    assert set(vars(module)) - before <= {"_trainer", "_hparams"}, "as after any validation"


@pytest.mark.parametrize("limit", [None, 9])
def test_recorded_passes_judge_alike(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's own steps run as ever; the network's passes are replayed, batch statistics too."""
    found = []
    made: list[TapeRecorder] = []

    def recorder_of(device: torch.device) -> TapeRecorder:
        made.append(TapeRecorder())
        return made[-1]

    for recorded in (False, True):
        if recorded:
            monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", recorder_of)
        judge, evaluator, data = judging()
        data.train.length, data.validation.length = 48, 38
        values = []
        for number in range(3):
            model = network().requires_grad_(number == 0)
            module: Any = evaluator.module(model)
            before = judge.recalibration(model, 9)
            values.append((judge.measure(module, model=model, before=before, batches=limit), module.seen))
            assert "forward" not in vars(model)
            assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm1d))
        found.append(values)
        assert judge.unrecorded is None
    assert len(made) == 1
    assert made[0].replays == 3 * (8 + 8)
    for (metrics, seen), (expected, steps) in zip(found[1], found[0], strict=True):
        assert metrics == pytest.approx(expected, rel=1e-5)
        assert seen == steps


def test_why_passes_are_not_recorded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", lambda device: TapeRecorder())

    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.rand(())

    judge, evaluator, data = judging()
    data.validation.length = 38
    model = Noisy(2, 1)
    judge.measure(evaluator.module(model))  # the loader of this one draws random numbers too
    expected = judge.measure(evaluator.module(model))
    assert judge.unrecorded is None
    assert judge.measure(evaluator.module(model), model=model) == expected
    assert "random numbers" in str(judge.unrecorded)
