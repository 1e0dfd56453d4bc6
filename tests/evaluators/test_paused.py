"""Trainings that pause at a rung go on as if they had not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from torch import nn
from torch.utils.data import TensorDataset

from nas import Experiment, Hyperband, TrialState, ValueChoice
from nas.evaluators import Classification, LightningEvaluator
from nas.strategies import GridSearch

SEEN: list[tuple[int, float]] = []
"""The epoch, and the learning rate in it."""


class Watch(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        SEEN.append((trainer.current_epoch, trainer.optimizers[0].param_groups[0]["lr"]))


def data(length: int = 12) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(length, 4, generator=generator), torch.arange(length) % 3)


class Fit(LightningModule):
    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        if self.kind == "plateau":
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


def space() -> nn.Module:
    return nn.Linear(4, ValueChoice([3, 4, 5], label="width"))


def searched(folder: Path, evaluator: Any, rule: Hyperband | None) -> Experiment:
    SEEN.clear()
    name = "whole" if rule is None else "paused"
    experiment = Experiment(space, evaluator, GridSearch(), name=name, directory=folder, early_stopping=rule)
    experiment.run(3, progress="silent")
    return experiment


COMMON: dict[str, Any] = {"callbacks": [Watch()], "accelerator": "cpu", "max_epochs": 3, "num_sanity_val_steps": 1}


@pytest.mark.parametrize("kind", ["plateau", "steps"])
def test_a_training_that_pauses_ends_with_the_same_weights(tmp_path: Path, kind: str) -> None:
    held = data()
    # One batch, whose order does not matter: what goes on draws other orders than the first epochs.
    evaluator = LightningEvaluator(Fit, held, held, metric="val_loss", kind=kind, batch_size=12, **COMMON)
    whole = searched(tmp_path, evaluator, None)
    rates = copy.copy(SEEN[:3])
    paused = searched(tmp_path, evaluator, Hyperband(max_resource=3, pauses=True))
    assert [epoch for epoch, _ in SEEN] == [0, 0, 0, 1, 2]
    assert SEEN[3:] == rates[1:]
    states = [trial.state for trial in paused.trials]
    assert sorted(states) == [TrialState.COMPLETE, TrialState.STOPPED, TrialState.STOPPED]
    best = paused.best_trial
    twin = whole.trials[best.number]
    assert best.sample == twin.sample
    assert best.metrics == pytest.approx(twin.metrics, rel=1e-5)
    assert best.intermediate == pytest.approx(twin.intermediate, rel=1e-5)
    assert best.checkpoint is not None
    assert twin.checkpoint is not None
    mine, theirs = (torch.load(path, weights_only=True) for path in (best.checkpoint, twin.checkpoint))
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-6) for name in theirs)
    assert not [*(tmp_path / "paused").glob("trials/*/checkpoint-*")]
    for trial in paused.trials:
        assert len(trial.intermediate) == (3 if trial.number == best.number else 1)


def test_several_trainings_of_a_trial_pause_in_the_first(tmp_path: Path) -> None:
    held = data()
    evaluator = Classification(held, folds=2, batch_size=6, **COMMON)
    searched(tmp_path, evaluator, Hyperband(max_resource=3, pauses=True))
    assert [epoch for epoch, _ in SEEN] == [0, 0, 0, 1, 2, 0, 1, 2]


class Odd:
    pass


class Unreadable(Fit):
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["odd"] = Odd()


def test_a_checkpoint_that_is_code_is_not_read_and_that_is_said(tmp_path: Path) -> None:
    held = data()
    evaluator = LightningEvaluator(Unreadable, held, held, metric="val_loss", kind="steps", **COMMON)
    with pytest.warns(UserWarning, match="cannot be read without executing code, so the trial begins anew"):
        experiment = searched(tmp_path, evaluator, Hyperband(max_resource=3, pauses=True))
    assert [epoch for epoch, _ in SEEN] == [0, 0, 0, 0, 1, 2]
    assert len(experiment.best_trial.intermediate) == 3
