"""What the training code of users does under `Trainer.fit` it does in one-shot search: hooks, callbacks, the Trainer."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from pytorch_lightning.core.hooks import CheckpointHooks, DataHooks, ModelHooks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from nas import Experiment, LayerChoice, NasTypeError, NasValueError, ValueChoice
from nas.evaluators import Classification, LightningEvaluator
from nas.oneshot import DARTS, ENAS, GumbelDARTS, ProxylessNAS, RandomOneShot
from nas.strategies import Random

SHORT: Any = {"candidates": 2, "recalibration": 2, "checkpoint_every": 3}
QUIET: Any = {"accelerator": "cpu", "logger": False, "max_epochs": 2}
ALGORITHMS: dict[str, Callable[..., Any]] = {
    "DARTS": DARTS,
    "Gumbel": GumbelDARTS,
    "Proxyless": ProxylessNAS,
    "ENAS": functools.partial(ENAS, controller_steps=2, samples_per_step=2, draws=4),
    "RandomOneShot": functools.partial(RandomOneShot, evaluations=4),
}
some = pytest.mark.parametrize("algorithm", ["DARTS", "RandomOneShot"])
every = pytest.mark.parametrize("algorithm", ALGORITHMS)


def strategy(algorithm: str, **given: Any) -> Any:
    return ALGORITHMS[algorithm](**(SHORT | given))


def network() -> nn.Module:
    """(batch, 6) -> (batch, 3)"""
    width = ValueChoice([4, 8], label="width")
    kinds = {"linear": lambda: nn.Linear(8, 8), "tanh": nn.Tanh, "skip": nn.Identity}
    return nn.Sequential(nn.Linear(6, width), nn.Linear(width, 8), LayerChoice(kinds, label="kind"), nn.Linear(8, 3))


def pairs(length: int, seed: int = 0) -> TensorDataset:
    inputs = torch.randn(length, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


class Module(LightningModule):
    """As people write them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self.model(batch[0])
        self.log("val_acc", (scores.argmax(1) == batch[1]).float().mean())
        self.log("val_loss", cross_entropy(scores, batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(pairs(40), 8, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(pairs(24, 1), 8)


def searched(folder: Path, made: Any, factory: Any = Module, data: Any = None, run: Any = None, **given: Any) -> Experiment:
    arguments = QUIET | {"metric": "val_acc"} | given
    evaluator = LightningEvaluator(factory, Data() if data is None else data, **arguments)
    experiment = Experiment(network, evaluator, made, name="search", directory=folder, seed=3, resume=True)
    experiment.run(progress="silent", **(run or {}))
    return experiment


# Every hook that Lightning has.

NOT_IN_A_FIT = ("test", "predict")
"""Parts of the names of hooks that belong to other runs of a Trainer."""


def hooks_of(*kinds: type) -> list[str]:
    names = {name for kind in kinds for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
    return sorted(name for name in names if not any(part in name for part in NOT_IN_A_FIT))


MODULE_HOOKS = [
    *hooks_of(ModelHooks, DataHooks, CheckpointHooks),
    *("training_step", "validation_step", "forward", "configure_optimizers", "configure_callbacks"),
    *("configure_gradient_clipping", "backward", "optimizer_step", "optimizer_zero_grad", "lr_scheduler_step"),
]
DATA_HOOKS = [name for name in hooks_of(DataHooks, CheckpointHooks) if hasattr(LightningDataModule, name)]
DATA_HOOKS += ["state_dict", "load_state_dict", "on_exception"]
CALLBACK_HOOKS = [name for name in hooks_of(Callback)]


def counting(kind: Any, hooks: list[str], counts: Counter[str], only: Callable[[Any], bool] = lambda _: True) -> Any:
    """The class, with every hook counted and then done as before."""

    def counted(name: str) -> Any:
        given = getattr(kind, name)

        @functools.wraps(given)
        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            if only(self):
                counts[name] += 1
            return given(self, *args, **kwargs)

        return hook

    return type(kind.__name__, (kind,), {name: counted(name) for name in hooks})


class Complete(Module):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


def test_every_hook_is_known() -> None:
    """A hook that a new Lightning has is in these lists by itself; these are the ones that there are today."""
    assert {"setup", "configure_model", "prepare_data", "on_after_backward", "transfer_batch_to_device"} <= set(MODULE_HOOKS)
    assert {"on_save_checkpoint", "on_fit_end", "teardown", "on_validation_model_zero_grad"} <= set(MODULE_HOOKS)
    assert {"setup", "teardown", "on_train_batch_start", "state_dict"} <= set(CALLBACK_HOOKS)
    assert {"setup", "teardown", "on_before_batch_transfer", "val_dataloader"} <= set(DATA_HOOKS)


def counts_of(run: Callable[[Any, Any, Any], Any], only: Callable[[Any], bool] = lambda _: True) -> dict[str, Counter[str]]:
    """How often each hook of module, data and callback is called in a run."""
    found: dict[str, Counter[str]] = {"module": Counter(), "data": Counter(), "callback": Counter()}
    module = counting(Complete, MODULE_HOOKS, found["module"], only)
    data = counting(Data, DATA_HOOKS, found["data"])
    callback = counting(Callback, CALLBACK_HOOKS, found["callback"])
    run(module, data(), callback())
    return found


@pytest.mark.filterwarnings("ignore")  # deprecated hooks are overridden, and Lightning says so
@every
def test_every_hook_that_a_trial_calls_is_called(algorithm: str, tmp_path: Path) -> None:
    def search(made: Any) -> dict[str, Counter[str]]:
        folder = tmp_path / type(made).__name__
        given = {"gradient_clip_val": 1.0, "enable_checkpointing": True}
        run = {"max_trials": 1} if isinstance(made, Random) else {}
        return counts_of(
            lambda module, data, callback: searched(folder, made, module, data, run, callbacks=[callback], **given)
        )

    trial, supernet = search(Random()), search(strategy(algorithm))
    for part, counts in trial.items():
        missing = {name for name, count in counts.items() if count and not supernet[part][name]}
        assert not missing, part
    steps = trial["module"]["training_step"]
    for name in ("on_after_backward", "on_before_zero_grad", "optimizer_step", "on_train_batch_end", "lr_scheduler_step"):
        assert supernet["module"][name] == trial["module"][name], name
    assert supernet["module"]["optimizer_step"] == steps
