"""What this package takes for granted of the private names of Lightning's loops."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nas import ExperimentError
from nas._compat.lightning_families import family_of
from nas._compat.lightning_loops import (
    all_states,
    end_quietly,
    epoch_results,
    left_on_device,
    length_of,
    on_device,
    ready_batches,
    settle,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says of torch, and of small data

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Logging(LightningModule):
    """Logs the numbers of its batches, 0 to 3, as their mean over the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        self.log("number", batch.mean(), on_step=False, on_epoch=True, batch_size=1)
        self.log("last", batch.mean(), on_step=True, on_epoch=False)
        loss: Tensor = self.layer(batch).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(trainer: Trainer) -> None:
    trainer.fit(Logging(), DataLoader(torch.arange(4.0)[:, None], batch_size=1))  # type: ignore[arg-type]  # a tensor serves


class Halfway(Callback):
    """Looks at the results after two batches, and adds another one to them, as a search does that goes on."""

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.found = dict(epoch_results(trainer))
            metric = self.found["training_step.number"]
            self.sums = float(metric.value), int(metric.cumulated_batch_size)
            metric.value = metric.value + 94
            metric.cumulated_batch_size = metric.cumulated_batch_size + 1


def test_the_mean_of_an_epoch_is_made_of_the_sums_in_its_results() -> None:
    halfway = Halfway()
    trainer = Trainer(max_epochs=1, callbacks=[halfway], **QUIET)
    fit(trainer)
    metrics = {key.rpartition(".")[2]: metric for key, metric in halfway.found.items()}
    assert halfway.sums == (0 + 1, 2)
    number, last = metrics["number"], metrics["last"]
    assert (number.is_tensor, number.meta.on_epoch, number.meta.is_mean_reduction) == (True, True, True)
    assert last.meta.on_epoch is False
    assert float(trainer.callback_metrics["number"]) == (0 + 1 + 2 + 3 + 94) / 5


class Rest:
    """The numbers 0 to 5; from some position on, in the first epoch that they are asked for."""

    def __init__(self, begin: int) -> None:
        self.begin = begin

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Any:
        begin, self.begin = self.begin, 0
        return iter(torch.arange(6.0)[begin:, None, None])


class Stepping(LightningModule):
    """Notes down the counters of each step, and has schedulers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[tuple[Any, ...]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.log("train", batch.mean(), on_step=True, on_epoch=True, batch_size=1)
        rates = [group["lr"] for group in self.optimizers().param_groups]
        trainer = self.trainer
        loops = trainer.fit_loop.epoch_loop
        self.seen.append(
            (
                self.current_epoch,
                batch_idx,
                self.global_step,
                loops.total_batch_idx,
                loops._batches_that_stepped,
                *rates,
            )
        )
        loss: Tensor = self.layer(batch).pow(2).sum()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(("validation", self.trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.ready))
        self.log("val", batch.mean(), batch_size=1)

    def on_train_epoch_start(self) -> None:
        self.seen.append(("epoch", self.current_epoch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, factor=0.5, mode="max", threshold=9
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val"}}


class Save(Callback):
    """Writes what Lightning would restore, when a step begins or when the training has ended."""

    def __init__(self, path: Path, step: int | None) -> None:
        self.path, self.step = path, step

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            torch.save(all_states(trainer), self.path)
            raise KeyError("a kill")

    def on_fit_end(self, trainer: Trainer, module: Any) -> None:
        torch.save(all_states(trainer), self.path)


class GoOn(Callback):
    def __init__(self, inside: bool) -> None:
        self.inside = inside
        self.afterwards: Callable[[], None] | None = None

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.afterwards = settle(trainer, inside_epoch=self.inside)

    def on_train_batch_start(self, *_: Any) -> None:
        if self.afterwards is not None:
            self.afterwards()
        self.afterwards = None


def trained(epochs: int, callbacks: list[Callback], begin: int = 0, path: Path | None = None, **given: Any) -> Stepping:
    module = Stepping()
    trainer = Trainer(max_epochs=epochs, callbacks=callbacks, num_sanity_val_steps=0, **QUIET, **given)
    loaders = {"train_dataloaders": Rest(begin), "val_dataloaders": Rest(0)}
    with contextlib.suppress(KeyError):
        trainer.fit(module, **loaders, ckpt_path=path, weights_only=True)
    return module


@pytest.mark.parametrize(
    "given", [{}, {"val_check_interval": 0.5}, {"accumulate_grad_batches": 2}], ids=lambda g: next(iter(g), "plain")
)
@pytest.mark.parametrize("step", [1, 3, 4, 6, 7, 9])
def test_counters_of_a_training_that_goes_on_are_those_of_the_uninterrupted_one(
    step: int, given: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "saved.ckpt"
    whole = trained(3, [], **given)
    per_epoch = 6 // given.get("accumulate_grad_batches", 1)
    if step >= 3 * per_epoch:
        return
    broken = trained(3, [Save(path, step)], **given)
    begin = torch.load(path, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"][
        "completed"
    ]
    rest = trained(3, [GoOn(inside=True)], begin, path, **given)
    assert broken.seen + rest.seen == whole.seen


def test_a_training_that_had_ended_goes_on_with_more_epochs(tmp_path: Path) -> None:
    path = tmp_path / "saved.ckpt"
    whole = trained(4, [])
    short = trained(2, [Save(path, None)])
    rest = trained(4, [GoOn(inside=False)], 0, path)
    assert short.seen + rest.seen == whole.seen


@pytest.mark.parametrize("name", ["_batches_that_stepped", "batch_progress"])
def test_a_lightning_that_counts_otherwise_is_refused(name: str) -> None:
    trainer = Trainer(max_epochs=5, **QUIET)
    delattr(trainer.fit_loop.epoch_loop, name)
    with pytest.raises(ExperimentError, match=rf"\.{name} of pytorch-lightning .* goes on where it was"):
        settle(trainer, inside_epoch=True)


@pytest.mark.parametrize(
    ("mode", "expected"), [("min_size", 2), ("max_size", 3), ("max_size_cycle", 3), ("sequential", 5)]
)
def test_the_length_of_several_loaders(mode: Any, expected: int) -> None:
    loader = CombinedLoader([DataLoader([1, 2]), DataLoader([1, 2, 3])], mode)  # type: ignore[arg-type]  # lists serve
    assert length_of(loader) == expected
    assert len(list(loader)) == expected


class Transferring(Stepping):
    """Divides on the way, as data is normalised on a device."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch + 1

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch * 10 ** (1 + dataloader_idx)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(("validated", float(batch)))


class Looks(Callback):
    def on_validation_start(self, trainer: Trainer, module: Any) -> None:
        self.found = float(on_device(trainer, torch.tensor(4), 1))


def test_batches_pass_the_hooks_of_transfer_or_are_ready() -> None:
    looks, module = Looks(), Transferring()
    trainer = Trainer(callbacks=[looks], limit_val_batches=1, **QUIET)
    trainer.validate(module, Rest(0), verbose=False)  # type: ignore[arg-type]  # it serves
    assert looks.found == 500
    with ready_batches(trainer, module):
        trainer.validate(module, Rest(0), verbose=False)  # type: ignore[arg-type]
    trainer.validate(module, Rest(0), verbose=False)  # type: ignore[arg-type]
    assert [seen[1] for seen in module.seen] == [10, 0, 10]


class Ends(Stepping):
    torn_down = False

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        end_quietly(family_of(self))

    def teardown(self, stage: str) -> None:
        self.torn_down = True


def test_a_fit_ends_inside_a_step() -> None:
    module = Ends()
    before = copy.deepcopy(module.state_dict())
    Trainer(max_epochs=1, **QUIET).fit(module, Rest(0))
    assert module.torn_down
    assert torch.equal(before["layer.weight"], module.state_dict()["layer.weight"])


class Logs(Stepping):
    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("number", (self.layer.weight * 0 + batch).sum())


class Told(DummyLogger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        self.told.append((args, kwargs))


def test_a_validation_leaves_everything_on_the_device() -> None:
    logger, found = Told(), []
    for leaves in (False, True, False):
        trainer = Trainer(limit_val_batches=3, **QUIET | {"logger": logger})
        before = {id(each): dict(vars(each)) for each in (trainer.strategy, trainer.strategy.accelerator)}
        module = Logs()
        moved = []
        vars(module)["cpu"] = lambda moved=moved: moved.append("cpu")
        logger.told.clear()
        with left_on_device(trainer) if leaves else contextlib.nullcontext():
            found.append(trainer.validate(module, Rest(0), verbose=False))  # type: ignore[arg-type]
        assert bool(moved) == (not leaves)
        assert bool(logger.told) == (not leaves)
        assert float(trainer.callback_metrics["number"]) == 1
        assert not {"teardown", "setup"} & vars(trainer.strategy).keys() - before[id(trainer.strategy)].keys()
    assert [bool(each) for each in found] == [True, False, True]
    with left_on_device(trainer):
        trainer.validate(module, Rest(0), verbose=False)  # type: ignore[arg-type]
    again = trainer.validate(module, Rest(0), verbose=False)  # type: ignore[arg-type]
    assert again == [{"number": 1.0}], "as ever afterwards"


def test_a_trainer_that_ends_otherwise_is_refused() -> None:
    trainer = Trainer(**QUIET)
    vars(trainer._logger_connector)["log_metrics"] = None
    with (
        pytest.raises(ExperimentError, match=r"\.log_metrics of pytorch-lightning .* side by side"),
        left_on_device(trainer),
    ):
        pass
