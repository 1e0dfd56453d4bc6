"""What this package takes for granted of Lightning's private names."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nas import ExperimentError
from nas._compat.lightning_internals import (
    PlainProcesses,
    continue_from,
    epoch_results,
    start_method,
    starts_script_again,
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


class Epochs(Callback):
    def __init__(self) -> None:
        self.seen = list[int]()

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        self.seen.append(trainer.current_epoch)


def test_a_training_goes_on_at_an_epoch_and_its_curves_at_a_step(tmp_path: Path) -> None:
    epochs = Epochs()
    logger = CSVLogger(str(tmp_path))
    trainer = Trainer(max_epochs=5, callbacks=[epochs], log_every_n_steps=1, **{**QUIET, "logger": logger})
    continue_from(trainer, epoch=3, steps=12)
    fit(trainer)
    assert epochs.seen == [3, 4]
    header, *rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    steps = [int(row.split(",")[header.split(",").index("step")]) for row in rows]
    assert sorted(set(steps)) == list(range(12, 20))


@pytest.mark.parametrize("name", ["_batches_that_stepped", "processed"])
def test_a_lightning_that_counts_otherwise_is_refused(name: str) -> None:
    trainer = Trainer(max_epochs=5, **QUIET)
    owner: Any = trainer.fit_loop.epoch_loop if name.startswith("_") else trainer.fit_loop.epoch_progress.current
    delattr(owner, name)
    with pytest.raises(ExperimentError, match=rf"\.{name} of pytorch-lightning .* goes on where it was"):
        continue_from(trainer, epoch=1, steps=2)


@pytest.mark.parametrize(("strategy", "expected"), [("ddp", True), ("ddp_spawn", False), ("ddp_fork", False)])
def test_the_strategy_that_starts_the_script_again_is_known(strategy: str, expected: bool) -> None:
    assert starts_script_again(Trainer(devices=2, strategy=strategy, **QUIET)) is expected
    assert not starts_script_again(Trainer(devices=1, **QUIET))


@pytest.mark.parametrize("method", ["popen", "spawn", "fork"])
def test_the_start_method_of_a_strategy_is_read(method: Literal["popen", "spawn", "fork"]) -> None:
    assert start_method(DDPStrategy(start_method=method)) == method
    assert start_method(DDPStrategy()) == "popen"


def test_processes_are_started_by_our_launcher() -> None:
    """That they run, and that no wrapper is around the model, tests/oneshot/training/test_distributed.py tells."""
    strategy = PlainProcesses(start_method="spawn")
    assert Trainer(devices=2, strategy=strategy, **QUIET).strategy is strategy
    launcher: Any = strategy.launcher
    assert type(launcher).__module__ == "nas._compat.lightning_internals"
    assert (launcher._strategy, launcher._start_method, launcher.procs) == (strategy, "spawn", [])
    for method, names in {
        "_wrapping_function": ["process_idx", "trainer", "function", "args", "kwargs", "return_queue"],
        "_recover_results_in_main_process": ["worker_output", "trainer"],
    }.items():
        known = list(inspect.signature(getattr(launcher, method)).parameters)
        assert known[: len(names)] == names, f"{method} of Lightning's launcher takes other arguments"
    assert callable(DDPStrategy.configure_ddp)
