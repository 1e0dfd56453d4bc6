"""How much memory a forward pass, and one with its backward pass, would hold at its peak."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import TorchDispatchMode, storage_key
from nas.profile.dry_run import call


@final
@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Estimates in bytes, for the batch of the example.

    The model runs once on the meta device, where every storage that PyTorch would allocate is noted when it is made
    and when it is freed. What an operation takes for itself (the workspace of a convolution, weights laid out anew) is
    not known there, nor is the reserve of an allocator.
    """

    inference: int
    """Parameters, buffers, inputs and the activations alive at once, without gradients."""
    training: int
    """The same for a forward and a backward pass: activations kept for it, and gradients; no optimizer state (Adam adds
    twice the bytes of the parameters)."""


def peak_memory(model: nn.Module, inputs: tuple[Tensor, ...]) -> PeakMemory:
    """The peaks of a meta model of ours, in evaluation mode; not used afterwards.

    Raises:
        NasValueError: the forward pass fails.
    """
    with torch.no_grad():
        inference = _peak(model, inputs, backward=False)
    with torch.enable_grad():
        training = _peak(model, inputs, backward=True)
    return PeakMemory(inference=inference, training=training)


def _peak(model: nn.Module, inputs: tuple[Tensor, ...], *, backward: bool) -> int:
    meter = StorageMeter()
    for tensor in (*model.parameters(), *model.buffers(), *inputs):
        meter.note(tensor)
    with meter:
        out = call(model, inputs)
        if backward:
            losses = [tensor.sum() for tensor in tensors_of(out) if tensor.requires_grad]
            del out
            if losses:
                torch.autograd.backward(losses)
    return meter.peak


def tensors_of(out: Any) -> Iterator[Tensor]:
    """The tensors in an output."""
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, dict | list | tuple):
        for item in out.values() if isinstance(out, dict) else out:
            yield from tensors_of(item)


@final
class StorageMeter(TorchDispatchMode):
    """Notes every storage that an operation returns until it is freed; `peak` is the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def note(self, tensor: Tensor) -> None:
        """Counts the storage of a tensor, once."""
        storage = tensor.untyped_storage()
        key, size = storage_key(storage), storage.nbytes()
        if key in self._known:
            return

        def freed(_: object) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_of(out):
            self.note(tensor)
        return out
