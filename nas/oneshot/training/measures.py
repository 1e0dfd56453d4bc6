"""What a LightningModule logs, caught: its metrics on some batches, without a Trainer's loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from nas._compat.torch_internals import BatchNorm
from nas.protocols import as_number


@final
class Logged:
    """Where the evaluator's module logs to: the module that is trained, or what measures at the moment.

    Args:
        outer: the module that Lightning trains; None where there is none.

    Attributes:
        names: what has reached the Trainer.
    """

    def __init__(self, outer: LightningModule | None = None) -> None:
        # A list, so that a module which holds this does not become a child of itself.
        self._outer = [outer]
        self._caught: dict[str, list[tuple[Any, int]]] | None = None
        self.batch_size = 1
        self.names: set[str] = set()

    def attach(self, inner: LightningModule) -> None:
        """The module logs here from now on: `log` refuses to work in a module that is not the Trainer's own."""
        inner.__dict__["log"] = self._log
        inner.__dict__["log_dict"] = self._log_dict

    @contextmanager
    def catching(self) -> Iterator[dict[str, list[tuple[Any, int]]]]:
        """Inside the block nothing reaches the Trainer; yields name -> values with their batch sizes."""
        before, self._caught = self._caught, {}
        try:
            yield self._caught
        finally:
            self._caught = before

    def _log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        if self._caught is not None:
            self._caught.setdefault(name, []).append((value, options.get("batch_size") or self.batch_size))
        elif self._outer[0] is not None:
            self.names.add(name)
            self._outer[0].log(name, value, *args, **options)

    def _log_dict(self, dictionary: Mapping[str, Any], *args: Any, **options: Any) -> None:
        for name, value in dictionary.items():
            self._log(name, value, *args, **options)


def measure(
    inner: LightningModule, logged: Logged, batches: Iterable[Any], *, batch_statistics: nn.Module | None = None
) -> dict[str, float]:
    """The metrics that a module logs in validation, over some batches, in eval mode and without gradients.

    Args:
        inner: logs to `logged`.
        logged: catches.
        batches: on the module's device.
        batch_statistics: a part of it that is left in training mode, for the statistics of each batch.
    """
    takes = len(inspect.signature(inner.validation_step).parameters)
    modes = [(module, module.training) for module in inner.modules()]
    inner.eval()
    if batch_statistics is not None:
        batch_statistics.train()
    try:
        with logged.catching() as caught, torch.no_grad():
            inner.on_validation_epoch_start()
            for index, batch in enumerate(batches):
                logged.batch_size = size_of(batch)
                inner.validation_step(*(batch, index, 0)[:takes])
            inner.on_validation_epoch_end()
    finally:
        for module, training in modes:
            module.training = training
    return {name: _mean(values, name) for name, values in caught.items()}


def _mean(values: list[tuple[Any, int]], name: str) -> float:
    first = values[0][0]
    if isinstance(first, Metric):
        value = first.compute()
        first.reset()
        return as_number(value, name)
    total = sum(size for _, size in values)
    return sum(as_number(value, name) * size for value, size in values) / total


def size_of(batch: Any) -> int:
    """How many samples a batch has: the length of the first tensor in it."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((size for part in parts if (size := size_of(part))), 1)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch on a device: tensors in lists, tuples and dicts are moved."""
    from lightning_fabric.utilities.apply_func import move_data_to_device

    return move_data_to_device(batch, device)


def recalibrate(model: nn.Module, batches: Iterable[Any], run: Callable[[Any], object]) -> None:
    """Takes the statistics of batch normalisation afresh, as the mean over some batches.

    Args:
        model: any module; layers that keep no running statistics are left alone.
        batches: of training data.
        run: called with each batch, in training mode and without gradients.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    modes = [(module, module.training) for module in model.modules()]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    for module in model.modules():
        # Only the statistics are taken: dropout would disturb them.
        module.training = isinstance(module, BatchNorm)
    try:
        with torch.no_grad():
            for batch in batches:
                run(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training


def train_step(inner: LightningModule, batch: Any, index: int) -> Any:
    """Its training step, which may or may not take the index."""
    return inner.training_step(*(batch, index)[: len(inspect.signature(inner.training_step).parameters)])
