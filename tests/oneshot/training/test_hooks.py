"""What the training code of users does under `Trainer.fit` it does in one-shot search: hooks, callbacks, loaders."""

from __future__ import annotations

import functools
import importlib
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
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from pytorch_lightning.core.hooks import CheckpointHooks, DataHooks, ModelHooks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from nas import Experiment, LayerChoice, ModelSpace, NasTypeError, NasValueError, ValueChoice
from nas.evaluators import Classification, LightningEvaluator, silenced
from nas.oneshot import DARTS, ENAS, GumbelDARTS, ProxylessNAS, RandomOneShot
from nas.strategies import Random
from nas.testing import differences

pytestmark = pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`:UserWarning")

SHORT: Any = {"candidates": 2, "recalibration": 2, "checkpoint_every": 3}
PLAIN: Any = {"accelerator": "cpu", "logger": False}
QUIET: Any = PLAIN | {"max_epochs": 2}
ALGORITHMS: dict[str, Callable[..., Any]] = {
    "DARTS": DARTS,
    "Gumbel": GumbelDARTS,
    "Proxyless": ProxylessNAS,
    "ENAS": functools.partial(ENAS, controller_steps=2, samples_per_step=2, draws=4),
    "RandomOneShot": functools.partial(RandomOneShot, evaluations=4),
}
MOST = ("DARTS", "RandomOneShot")
some = pytest.mark.parametrize("algorithm", MOST)
every = pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=[] if name in MOST else pytest.mark.slow) for name in ALGORITHMS]
)


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


def searched(
    folder: Path, made: Any, factory: Any = Module, data: Any = None, run: Any = None, **given: Any
) -> Experiment:
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
CALLBACK_HOOKS = hooks_of(Callback)


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
    assert {"setup", "configure_model", "prepare_data", "on_after_backward", "transfer_batch_to_device"} <= set(
        MODULE_HOOKS
    )
    assert {"on_save_checkpoint", "on_fit_end", "teardown", "on_validation_model_zero_grad"} <= set(MODULE_HOOKS)
    assert {"setup", "teardown", "on_train_batch_start", "state_dict"} <= set(CALLBACK_HOOKS)
    assert {"setup", "teardown", "on_before_batch_transfer", "val_dataloader"} <= set(DATA_HOOKS)


def counts_of(
    run: Callable[[Any, Any, Any], Any], only: Callable[[Any], bool] = lambda _: True
) -> dict[str, Counter[str]]:
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
    for name in (
        "on_after_backward",
        "on_before_zero_grad",
        "optimizer_step",
        "on_train_batch_end",
        "lr_scheduler_step",
    ):
        assert supernet["module"][name] == trial["module"][name], name
    assert supernet["module"]["optimizer_step"] == steps


# The Trainer, as a module sees it.


class Asking(Module):
    """Asks its Trainer, its data and its optimizers, and leaves out a batch."""

    seen: list[tuple[Any, ...]] = []  # noqa: RUF012 - of all objects

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        assert self.trainer.training
        assert not isinstance(self.optimizers(), list)
        assert not isinstance(self.lr_schedulers(), list)
        rate = self.optimizers().param_groups[0]["lr"]
        length = len(self.trainer.train_dataloader.dataset)
        steps = self.trainer.estimated_stepping_batches
        classes = self.trainer.datamodule.classes
        here = (self.current_epoch, batch_idx, self.global_step, steps, round(rate, 6), classes, length)
        self.seen.append(here)
        return None if batch_idx == 2 else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert self.trainer.validating or self.trainer.sanity_checking
        assert self.trainer.datamodule.classes == 3
        super().validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step", "strict": False}]


class Classes(Data):
    classes = 3


def distinct(seen: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(seen))


@every
def test_a_module_asks_its_trainer_as_under_fit(algorithm: str, tmp_path: Path) -> None:
    Asking.seen.clear()
    module = Asking(ModelSpace(network).build({"width": 8, "kind": "linear"}))
    with silenced():
        trainer = Trainer(max_epochs=2, enable_checkpointing=False, enable_progress_bar=False, **PLAIN)
        trainer.fit(module, datamodule=Classes())
    plain = distinct(Asking.seen)
    assert len(plain) == 10
    Asking.seen.clear()
    found = searched(tmp_path / "whole", strategy(algorithm), Asking, Classes())
    assert len(found.trials) == 2
    assert [here for here in distinct(Asking.seen) if here[3] == plain[0][3]] == plain
    Asking.seen.clear()
    for _ in range(12):
        searched(tmp_path / "broken", strategy(algorithm), Asking, Classes(), {"timeout": 1e-3})
    assert [here for here in distinct(Asking.seen) if here[3] == plain[0][3]] == plain, "interrupted at every step"


class Bytes(Data):
    """Images as bytes, which a hook of transfer divides."""

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(pairs(40)[:][0] * 255, pairs(40)[:][1]), 8, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(pairs(24)[:][0] * 255, pairs(24)[:][1]), 8)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] / 255, batch[1]


class Sizes(Module):
    seen: set[bool] = set()  # noqa: RUF012 - of all objects

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        model.register_forward_pre_hook(lambda module, inputs: self.seen.add(float(inputs[0].abs().mean()) > 10))


@every
def test_data_passes_the_hooks_of_transfer(algorithm: str, tmp_path: Path) -> None:
    Sizes.seen.clear()
    experiment = searched(tmp_path, strategy(algorithm), Sizes, Bytes())
    experiment.one_shot_report(k=2)
    assert Sizes.seen == {False}, "the network never sees bytes"


class SetUp(Module):
    """What its steps need is made in hooks that only a fit calls."""

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.weight = torch.ones(3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return cross_entropy(self.model(batch[0]), batch[1], self.weight)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert self.weight.sum() == 3
        super().validation_step(batch, batch_idx)


@some
def test_what_is_set_up_for_a_fit_is_there_when_subnets_are_judged(algorithm: str, tmp_path: Path) -> None:
    assert len(searched(tmp_path, strategy(algorithm), SetUp).trials) == 2


# Callbacks and arguments of the Trainer.


def test_checkpoints_of_the_user_are_written(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path / "kept", monitor="val_acc", mode="max", save_last=True, filename="{epoch}")
    searched(tmp_path, strategy("RandomOneShot"), callbacks=[kept])
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"last.ckpt"}
    state = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=False)
    assert any(name.startswith("model.") for name in state["state_dict"])


@pytest.mark.slow
@every
def test_moving_averages_of_weights_have_their_effect(algorithm: str, tmp_path: Path) -> None:
    weights, trials = [], []
    for name, average in (("plain", None), ("averaged", 0.5), ("gone on with", 0.5)):
        given = {} if average is None else {"callbacks": [EMAWeightAveraging(decay=average)]}
        if name == "gone on with":
            for _ in range(6):
                searched(tmp_path / name, strategy(algorithm), run={"timeout": 1e-3}, **given)
        experiment = searched(tmp_path / name, strategy(algorithm), **given)
        state = torch.load(experiment.path / "supernet" / "last.ckpt", weights_only=True)["state_dict"]
        weights.append(torch.cat([t.flatten() for t in state.values() if isinstance(t, Tensor)]))
        trials.append([(trial.sample, trial.metrics) for trial in experiment.trials])
    assert (weights[0] - weights[1]).abs().max() > 1e-3
    assert torch.equal(weights[1], weights[2])
    assert trials[1] == trials[2]


@pytest.mark.slow
def test_stochastic_weight_averaging_of_lightning(tmp_path: Path) -> None:
    found = []
    for name, callbacks in (("plain", []), ("swa", [StochasticWeightAveraging(0.05, swa_epoch_start=1)])):
        experiment = searched(tmp_path / name, strategy("RandomOneShot"), callbacks=callbacks, max_epochs=3)
        found.append(torch.load(experiment.path / "supernet" / "last.ckpt", weights_only=True)["state_dict"])
        assert len(experiment.trials) == 2
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])


class Epochs(Callback):
    seen: list[int] = []  # noqa: RUF012 - of all objects

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.seen.append(trainer.current_epoch)


def early() -> EarlyStopping:
    """Nothing is ever good enough for it."""
    return EarlyStopping("val_acc", mode="max", patience=1, min_delta=float("9"))


ENDS: dict[str, dict[str, Any]] = {
    "early stopping": {"callbacks": [early()]},
    "early stopping alone": {
        "callbacks": [early()],
        "max_epochs": -1,
    },
    "timer": {"callbacks": [Timer({"seconds": 1}, interval="step")], "max_epochs": -1},
    "max_time": {"max_time": {"seconds": 1}, "max_epochs": -1},
    "max_time alone": {"max_time": {"seconds": 1}, "max_epochs": None},
    "max_steps": {"max_steps": 7, "max_epochs": -1},
    "min_epochs": {"callbacks": [early()], "min_epochs": 4},
}


@pytest.mark.parametrize(
    "end", [pytest.param(name, marks=pytest.mark.slow if name in ("timer", "max_time") else ()) for name in ENDS]
)
@some
def test_what_ends_a_training_ends_that_of_the_supernet_and_subnets_are_ranked(
    end: str, algorithm: str, tmp_path: Path
) -> None:
    Epochs.seen.clear()
    given = {"max_epochs": 50} | ENDS[end]
    given["callbacks"] = [*given.get("callbacks", []), Epochs()]
    experiment = searched(tmp_path, strategy(algorithm), **given)
    assert len(experiment.trials) == 2
    assert 1 <= len(Epochs.seen) < 50 or end in ("timer", "max_time", "max_time alone")
    if end.startswith("early"):
        assert Epochs.seen == [0, 1]
    if end == "min_epochs":
        assert len(Epochs.seen) == 4
    if end == "max_steps":
        assert torch.load(experiment.path / "supernet" / "last.ckpt", weights_only=True)["global_step"] == 7
    before = list(Epochs.seen)
    searched(tmp_path, strategy(algorithm), **given)
    assert Epochs.seen == before, "it has ended for good"


def test_a_schedule_of_mixtures_needs_a_number_of_epochs(tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match="known number of epochs"):
        searched(tmp_path, strategy("Gumbel"), max_epochs=-1, max_time={"seconds": 5})


@some
def test_a_fast_run_for_development(algorithm: str, tmp_path: Path) -> None:
    assert len(searched(tmp_path, strategy(algorithm), fast_dev_run=True).trials) == 2


@some
def test_the_bar_of_the_user_is_shown(algorithm: str, tmp_path: Path, capsys: Any) -> None:
    searched(tmp_path, strategy(algorithm), enable_progress_bar=True)
    assert "Epoch 1" in capsys.readouterr().out


def test_steps_may_be_accumulated(tmp_path: Path) -> None:
    """Interrupted wherever gradients wait for others, it ends the same."""
    halves = {"batch_size": 4, "accumulate_grad_batches": 2}
    states = []
    for name, given in (("whole", {"batch_size": 8}), ("halves", halves), ("interrupted", halves)):
        for timeout in [1e-3] * (5 if name == "interrupted" else 0) + [None]:
            evaluator = Classification(pairs(40), pairs(24), optimizer="SGD", **QUIET, **given)
            made = RandomOneShot(sampling="sandwich", middle=1, evaluations=3, distillation=None, **SHORT)
            experiment = Experiment(network, evaluator, made, name=name, directory=tmp_path, seed=3, resume=True)
            experiment.run(progress="silent", timeout=timeout)
        states.append(torch.load(experiment.path / "supernet" / "last.ckpt", weights_only=True))
    assert [state["global_step"] for state in states] == [10, 10, 10]
    assert [state["nas"]["done"] for state in states] == [10, 20, 20]
    assert differences(states[2], states[1]) == []


def test_rates_are_monitored(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    monitor = LearningRateMonitor("step")
    given = {"callbacks": [monitor], "logger": CSVLogger(tmp_path / "curves"), "log_every_n_steps": 1}
    searched(tmp_path, strategy("DARTS"), **given)
    (table,) = (tmp_path / "curves").rglob("metrics.csv")
    assert "lr-SGD" in table.read_text()


# Loaders.


class Several(Data):
    def val_dataloader(self) -> Any:
        return [DataLoader(pairs(24, 1), 8), DataLoader(pairs(16, 2), 8)]


class Judges(Module):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)


@every
def test_several_loaders_of_validation_data(algorithm: str, tmp_path: Path) -> None:
    experiment = searched(tmp_path, strategy(algorithm), Judges, Several())
    metrics = experiment.best_trial.metrics
    each = [metrics[f"val_acc/dataloader_idx_{i}"] for i in (0, 1)]
    assert metrics["val_acc"] == pytest.approx(sum(each) / 2)
    assert experiment.best_trial.value == metrics["val_acc"]


class Named(Data):
    def train_dataloader(self) -> Any:
        return {"one": DataLoader(pairs(40), 8, shuffle=True), "other": DataLoader(pairs(24, 5), 8, shuffle=True)}


class Joint(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return sum(super(Joint, self).training_step(part, batch_idx) for part in batch.values())


class NamedBoth(Named):
    def val_dataloader(self) -> Any:
        return {"one": DataLoader(pairs(24, 1), 8), "other": DataLoader(pairs(16, 2), 8)}


class JointJudges(Joint, Judges):
    pass


def test_a_dict_of_training_loaders(tmp_path: Path) -> None:
    assert len(searched(tmp_path / "paths", strategy("RandomOneShot"), Joint, Named()).trials) == 2
    assert len(searched(tmp_path / "both", strategy("DARTS"), JointJudges, NamedBoth()).trials) == 2
    with pytest.raises(NasValueError, match="loaders 'one', 'other' of training data, one loader of validation data"):
        searched(tmp_path / "darts", strategy("DARTS"), Joint, Named())


# What is refused.


class ByHand(Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.automatic_optimization = False


class Newton(Module):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.model.parameters())


class Fetches(Module):
    def training_step(self, dataloader_iter: Any) -> Any:
        return super().training_step(next(dataloader_iter)[0], 0)


class NoValidation(LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    training_step = Module.training_step
    configure_optimizers = Module.configure_optimizers


@pytest.mark.parametrize(
    ("factory", "words", "error"),
    [
        (ByHand, "automatic_optimization=False", NasValueError),
        (Newton, "LBFGS", NasValueError),
        (Fetches, "dataloader_iter", NasValueError),
        (NoValidation, "validation_step", NasTypeError),
    ],
)
@some
def test_what_cannot_be_honoured_is_refused_by_name(
    factory: Any, words: str, error: Any, algorithm: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        searched(tmp_path, strategy(algorithm), factory)
    assert not list(tmp_path.rglob("last.ckpt"))


class Keeps(Module):
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = {"network": self.model}


class Counts(Module):
    """Keeps a number of its own in checkpoints."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.batches = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches"] = self.batches

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches = checkpoint["batches"]


def test_what_a_module_keeps_in_checkpoints_is_kept_or_refused(tmp_path: Path) -> None:
    with pytest.raises(NasTypeError, match="readable without running code; received.*network"):
        searched(tmp_path / "refused", strategy("RandomOneShot"), Keeps)
    for timeout in (1e-3, 1e-3, 1e-3, None):
        experiment = searched(tmp_path / "kept", strategy("RandomOneShot"), Counts, run={"timeout": timeout})
    state = torch.load(experiment.path / "supernet" / "last.ckpt", weights_only=True)
    assert state["batches"] == state["nas"]["done"] == 10


@pytest.mark.slow
def test_modules_of_lightning_pytorch(tmp_path: Path) -> None:
    """The same library under its other name: module, data and callbacks of it, interrupted and gone on with."""
    lightning = pytest.importorskip("lightning.pytorch")
    callbacks = importlib.import_module("lightning.pytorch.callbacks")

    class Theirs(lightning.LightningModule):  # type: ignore[name-defined,misc]  # whatever is imported
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        training_step = Module.training_step
        validation_step = Module.validation_step
        configure_optimizers = Module.configure_optimizers

    class TheirData(lightning.LightningDataModule):  # type: ignore[name-defined,misc]
        train_dataloader = Data.train_dataloader
        val_dataloader = Data.val_dataloader

    for algorithm in ("DARTS", "RandomOneShot"):
        folder = tmp_path / algorithm
        given = {"callbacks": [callbacks.ModelCheckpoint(folder / "kept"), callbacks.EarlyStopping("val_loss")]}
        searched(folder, strategy(algorithm), Theirs, TheirData(), {"timeout": 1e-3}, **given)
        experiment = searched(folder, strategy(algorithm), Theirs, TheirData(), **given)
        assert len(experiment.trials) == 2
        assert list((folder / "kept").glob("*.ckpt"))
        same = searched(tmp_path / f"{algorithm}-same", strategy(algorithm))
        assert [trial.metrics for trial in experiment.trials] == [trial.metrics for trial in same.trials]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
@pytest.mark.parametrize("algorithm", ["ENAS", "DARTS"])
def test_true_precision(algorithm: str, precision: Any, tmp_path: Path) -> None:
    experiment = searched(tmp_path, strategy(algorithm), precision=precision)
    (model,) = experiment.export_top_models(1, "model", inherit_weights=True)
    expected = torch.float64 if precision == "64-true" else torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
