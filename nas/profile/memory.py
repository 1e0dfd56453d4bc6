"""How much memory a forward pass, and one with its backward pass, would hold at its peak."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from nas._compat.torch_internals import TorchDispatchMode, storage_key
from nas.calls import explained
from nas.example_inputs import tensors_of
from nas.profile.passes import ForwardPass


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Estimates in bytes, for the batch of the example.

    The model runs once, on the meta device wherever it can, and every storage that PyTorch would allocate is noted when
    it is made and when it is freed. What an operation takes for itself (the workspace of a convolution, weights laid
    out anew) is not known there, nor is the reserve of an allocator.
    """

    inference: int
    """Parameters, buffers, inputs and the activations alive at once, without gradients."""
    training: int
    """The same for a forward and a backward pass: activations kept for it, and gradients; no optimizer state (Adam adds
    twice the bytes of the parameters)."""


def training_peak(run: ForwardPass, mode: AbstractContextManager[object]) -> int:
    """The peak of a forward and a backward pass in evaluation mode.

    Args:
        run: not used afterwards.
        mode: entered meanwhile.
    """
    meter = meter_of(run)
    with torch.enable_grad(), meter, mode:
        out = run()
        losses = [tensor.sum() for tensor in tensors_of(out) if tensor.requires_grad]
        del out
        if losses:
            torch.autograd.backward(losses)
    return meter.peak


def meter_of(run: ForwardPass) -> StorageMeter:
    """A meter that has noted the parameters, the buffers and the inputs."""
    meter = StorageMeter()
    for tensor in (*run.model.parameters(), *run.model.buffers(), *tensors_of((run.args, run.kwargs))):
        if not is_lazy(tensor):
            meter.note(tensor)
    return meter


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
