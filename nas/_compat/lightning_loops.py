"""Private names of Lightning's loops: what a training that goes on in the middle needs to know and to set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import CombinedLoader

from nas._compat.changed import changed
from nas._compat.lightning_families import Family


def epoch_results(trainer: Trainer) -> dict[str, Any]:
    """What has been logged in this epoch, by key: objects that hold the sums of which the means are made."""
    return trainer.fit_loop.epoch_loop._results


def end_quietly(family: Family) -> NoReturn:
    """Ends a fit from inside one of its steps, as Lightning ends those of its tuner: teardown, and no error."""
    raise family.get("utilities.exceptions._TunerExitException")


def length_of(loader: CombinedLoader) -> int:
    """How many batches several loaders yield together; `len` answers only while they are iterated over."""
    lengths: list[int] = [len(each) for each in loader.flattened]
    if loader._mode == "sequential":
        return sum(lengths)
    return min(lengths) if loader._mode == "min_size" else max(lengths)


def all_states(trainer: Trainer) -> dict[str, Any]:
    """What Lightning writes into a checkpoint; the hooks of module, data and callbacks are called."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def on_device(trainer: Trainer, batch: Any, dataloader_idx: int = 0) -> Any:
    """A batch as Lightning hands it to a step: its precision, and on the device by the hooks of transfer."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=dataloader_idx)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=dataloader_idx)


@contextmanager
def ready_batches(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Inside the block batches go to the module's steps as its loaders yield them, past the hooks of transfer."""
    strategy = trainer.strategy
    module.__dict__["_on_before_batch_transfer"] = lambda batch, *_, **__: batch
    strategy.__dict__["batch_to_device"] = lambda batch, *_, **__: batch
    try:
        yield
    finally:
        del module.__dict__["_on_before_batch_transfer"], strategy.__dict__["batch_to_device"]


@contextmanager
def left_on_device(trainer: Trainer) -> Iterator[None]:
    """Inside the block a validation leaves its module and what it has logged on the device, and waits for nothing.

    Else Lightning ends one by moving both to the CPU, and begins and ends one by freeing the device's memory, and with
    it workspaces that are in use. Loggers are told nothing, and `validate` returns nothing.

    Args:
        trainer: its device was set up by another one.
    """
    strategy, connector, loop = trainer.strategy, trainer._logger_connector, trainer.validate_loop
    results, ended = loop._results, loop.on_run_end

    def end() -> list[Any]:
        ended()
        return []  # what it returns is read

    def end_plugins() -> None:
        strategy.precision_plugin.teardown()
        strategy.checkpoint_io.teardown()

    def note(metrics: dict[str, Any], step: int | None = None) -> None:
        connector._logged_metrics.update(metrics)

    instead: list[tuple[Any, str, Callable[..., Any]]] = [
        (loop, "on_run_end", end),
        (strategy, "teardown", end_plugins),
        (strategy.accelerator, "setup", _nothing),
        (trainer._checkpoint_connector, "resume_end", _nothing),
        (connector, "teardown", _nothing),
        (connector, "log_metrics", note),
        (results, "cpu", _nothing),
    ]
    for owner, name, function in instead:
        if not callable(getattr(owner, name, None)):
            raise changed(
                "pytorch-lightning", f"{type(owner).__name__}.{name}", purpose="models are judged side by side"
            )
        vars(owner)[name] = function
    try:
        yield
    finally:
        for owner, name, _ in instead:
            vars(owner).pop(name, None)


def settle(trainer: Trainer, *, inside_epoch: bool) -> Callable[[], None]:
    """Sets the counters of a training that was loaded, when it starts: they are those of the uninterrupted one.

    Lightning expects checkpoints of other moments than the start of a step, and would count a step or a validation
    twice, or leave out the step of a scheduler that goes by a metric.

    Args:
        trainer: in `on_train_start`, after a checkpoint was loaded.
        inside_epoch: whether the checkpoint was taken when a step began, in `on_train_batch_start`; else when the
            training had ended.

    Returns:
        What is to be called in the first `on_train_batch_start`.

    Raises:
        ExperimentError: this Lightning counts in another way.
    """
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    for owner, name in ((fit, "restarting"), (epoch, "batch_progress"), (epoch, "_batches_that_stepped")):
        if not hasattr(owner, name):
            raise changed(
                "pytorch-lightning", f"{type(owner).__name__}.{name}", purpose="a training goes on where it was"
            )
    fit.restarting = False
    validated = copy.deepcopy(epoch.val_loop.batch_progress.state_dict())
    if not inside_epoch:
        return _nothing  # the next epoch begins as after any other
    if not epoch._should_accumulate():
        epoch._batches_that_stepped -= 1  # the loop is about to add one
    epoch.batch_progress.total.ready = epoch.batch_progress.total.completed
    epoch.restarting = True
    # Where a validation is due at this step, it was done before the checkpoint; the loop is about to count it again.
    return lambda: epoch.val_loop.batch_progress.load_state_dict(validated)


def _nothing(*_: Any, **__: Any) -> None:
    """Nothing is to be done."""
