"""What a module logs outside of Lightning's loops, metrics over some batches, and batch statistics taken afresh."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, final

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from nas._compat.torch_internals import BatchNorm, add_to_each, copy_each, scale_each, zero_each
from nas._compat.torchmetrics_internals import put_back, seen_by
from nas.oneshot.speed import is_plain
from nas.protocols import as_number

T = TypeVar("T")
IndexedBatch: TypeAlias = tuple[Any, int]
"""A batch, and the number of the loader that it comes from."""
Check: TypeAlias = Callable[[], bool]
"""Whether something has turned out right; waits for the device."""


@final
class Caught:
    """What a module has logged while nobody else listened: name -> values with their batch sizes."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[Any, int]]] = {}
        self.batch_size = 1

    def log(self, name: str, value: Any, *_: Any, **options: Any) -> None:
        """As `LightningModule.log`."""
        self.values.setdefault(name, []).append((value, options.get("batch_size") or self.batch_size))

    def log_dict(self, dictionary: Mapping[str, Any], *_: Any, **options: Any) -> None:
        """As `LightningModule.log_dict`."""
        for name, value in dictionary.items():
            self.log(name, value, **options)


@contextmanager
def catching(inner: LightningModule) -> Iterator[Caught]:
    """Inside the block nothing that the module logs reaches its Trainer; yields what it logs."""
    caught, places = Caught(), inner.__dict__
    names = ("log", "log_dict")
    before: dict[str, Any] = {name: places[name] for name in names if name in places}
    places["log"], places["log_dict"] = caught.log, caught.log_dict
    try:
        yield caught
    finally:
        for name in names:
            del places[name]
        places.update(before)


def metrics_of_module(inner: nn.Module) -> list[Metric]:
    """The torchmetrics objects in it, each once."""
    return [module for module in inner.modules() if isinstance(module, Metric)]


@contextmanager
def untouched(metrics: Iterable[Metric]) -> Iterator[None]:
    """What these have seen before the block is what they have seen after it."""
    seen = [(metric, seen_by(metric)) for metric in metrics]
    try:
        yield
    finally:
        for metric, before in seen:
            put_back(metric, before)


def measure(
    inner: LightningModule, batches: Iterable[IndexedBatch], *, batch_statistics: nn.Module | None = None
) -> dict[str, float]:
    """The metrics that a module logs in validation, over some batches, in eval mode and without gradients.

    Args:
        inner: its validation hooks are called as in a validation.
        batches: on the module's device, each with the number of its loader.
        batch_statistics: a part of it that is left in training mode, for the statistics of each batch.
    """
    takes = len(inspect.signature(inner.validation_step).parameters)
    modes = [(module, module.training) for module in inner.modules()]
    inner.eval()
    if batch_statistics is not None:
        batch_statistics.train()
    try:
        with catching(inner) as caught, torch.no_grad():
            inner.on_validation_start()
            inner.on_validation_epoch_start()
            for index, (batch, loader) in enumerate(batches):
                caught.batch_size = size_of(batch)
                inner.on_validation_batch_start(batch, index, loader)
                outputs = inner.validation_step(*(batch, index, loader)[:takes])
                inner.on_validation_batch_end(outputs, batch, index, loader)
            inner.on_validation_epoch_end()
            inner.on_validation_end()
    finally:
        for module, training in modes:
            module.training = training
    return {name: _mean(values, name) for name, values in caught.values.items()}


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


def without_lone(batches: Iterable[T], inputs: Callable[[T], Any] = lambda batch: batch) -> Iterator[T]:
    """The batches of more than one sample; all of them where there are no such.

    Args:
        batches: any number.
        inputs: the tensors of one.
    """
    lone, larger = [], False
    for batch in batches:
        if size_of(inputs(batch)) > 1:
            larger = True
            yield batch
        elif not larger:
            lone.append(batch)
    if not larger:
        yield from lone


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    run: Callable[[Any], object],
    *,
    alike: bool = False,
    later: list[Check] | None = None,
) -> None:
    """Takes the statistics of batch normalisation afresh, as the mean over some batches.

    Args:
        model: any module; layers that keep no running statistics are left alone.
        batches: of training data.
        run: called with each batch, in training mode and without gradients.
        alike: whether each pass takes the statistics of its batch alone, to be averaged outside, so that all passes do
            the same and can be replayed. To the last digits these are other numbers.
        later: is given what is to be asked when the device has come so far: whether each layer was called once in every
            pass, or in none. Where it was not, the statistics are wrong, and to be taken again by passes that are not
            alike. Where it is omitted, that is done at once.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    if not norms:
        return
    batches = list(batches)
    momenta = [norm.momentum for norm in norms]
    modes = [(module, module.training) for module in model.modules()]
    for module in model.modules():
        # Only the statistics are taken: dropout would disturb them.
        module.training = isinstance(module, BatchNorm)
    try:
        with torch.no_grad():
            if not (alike and _average(norms, batches, run, later)):
                _accumulate(norms, batches, run, replayed=alike)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training


def _accumulate(
    norms: Sequence[BatchNorm], batches: Iterable[Any], run: Callable[[Any], object], *, replayed: bool
) -> None:
    """Lets each layer keep the mean of what it has seen so far.

    A layer without momentum does so by itself, but asks how often it was called. Where a device had to be waited for,
    or passes may be replayed, it is told; elsewhere that takes longer than to ask.
    """
    handles = []
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        counted = norm.num_batches_tracked
        if is_plain(norm) and (replayed or counted is None or counted.device.type != "cpu"):
            handles.append(norm.register_forward_pre_hook(_Turn()))
    try:
        for batch in batches:
            run(batch)
    finally:
        for handle in handles:
            handle.remove()


@final
class _Turn:
    """Gives a layer the momentum of the mean over all its calls, before each."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, norm: nn.Module, _: Any) -> None:
        self._calls += 1
        vars(norm)["momentum"] = 1.0 / self._calls


def _average(
    norms: Sequence[BatchNorm], batches: Sequence[Any], run: Callable[[Any], object], later: list[Check] | None
) -> bool:
    """Averages what each pass has left in the layers; whether each was called once in every pass, or in none."""
    if not batches or not all(is_plain(norm) and norm.num_batches_tracked is not None for norm in norms):
        return False
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
    called: list[bool] = []
    found: list[Tensor] = []
    means: list[Tensor] = []
    for number, batch in enumerate(batches, 1):
        if number > 1:
            zero_each(found)  # so that nothing of the last batch is left, be it infinite
        run(batch)
        if number == 1:
            numbers: list[int] = _counts(norms).tolist()
            if max(numbers) > 1:
                return False
            called = [count == 1 for count in numbers]
            found = [tensor for norm, was in zip(norms, called, strict=True) if was for tensor in _statistics(norm)]
            means = [tensor.clone() for tensor in found]
        else:
            scale_each(means, 1 - 1 / number)
            add_to_each(means, found, alpha=1 / number)
    counts, expected = _counts(norms), [len(batches) if was else 0 for was in called]
    if later is not None:
        later.append(lambda: bool(counts.tolist() == expected))
    elif counts.tolist() != expected:
        return False
    copy_each(found, means)
    return True


def _statistics(norm: BatchNorm) -> list[Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return [norm.running_mean, norm.running_var]


def _counts(norms: Sequence[BatchNorm]) -> Tensor:
    """How often each was called, in one tensor: the device is waited for once."""
    return torch.stack([norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None])


def train_step(inner: LightningModule, batch: Any, index: int) -> Any:
    """Its training step, which may or may not take the index."""
    return inner.training_step(*(batch, index)[: len(inspect.signature(inner.training_step).parameters)])
