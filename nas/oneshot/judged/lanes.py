"""Where models are judged side by side: each in a lane of the device, a stream that has its own recordings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import TorchDispatchMode, storage_key, tree_leaves
from nas.oneshot.speed import CudaRecorder, Recorder

AT_ONCE = 4
"""Models that are judged side by side: kernels of one small network leave most of a device idle."""


class Lane(ABC):
    """A part of a device where one model is judged, while others are judged in other lanes.

    Attributes:
        recorder: of what is computed in it; its recordings share memory with those of no other lane.
    """

    recorder: Recorder

    @abstractmethod
    def work(self) -> AbstractContextManager[None]:
        """Inside, what the device is asked for is done in this lane, after what it was asked for outside of lanes."""

    @abstractmethod
    def wait(self) -> None:
        """Returns when all that was asked for in this lane is done."""


@final
class CudaLane(Lane):
    """A stream.

    Args:
        device: of CUDA.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        # What is recorded there is replayed there: nobody else has its workspaces.
        self.recorder = CudaRecorder(device, self._stream)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Inside, it is the current stream, and begins when the one that was current before has come so far."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield

    def wait(self) -> None:
        """Returns when the stream has done all its work."""
        self._stream.synchronize()


def lanes_of(device: torch.device) -> list[Lane]:
    """Those of a device; none where there is nothing to gain."""
    return [CudaLane(device) for _ in range(AT_ONCE)] if device.type == "cuda" else []


@final
class Aside(TorchDispatchMode):
    """Watches a judgement: whether it touches tensors that others could touch at the same time.

    What is read or written by each of several models at once must belong to one of them, or stay as it is.

    Args:
        device: on which tensors are looked at.
        owned: holds those that belong to the judgement, and those that no judgement changes.

    Attributes:
        found: whether there was one from elsewhere.
    """

    def __init__(self, device: torch.device, owned: Iterable[object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._known = {storage_key(t.untyped_storage()) for part in owned for t in _tensors(part)}
        self._lent: set[int] = set()
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten, given = torch.ops.aten, self._places((args, kwargs), only=self._device)
        known = self._known | self._lent if func is aten.copy_.default else self._known
        if func is not aten.lift_fresh.default:  # what that is given was made just now
            self.found = self.found or given is None or not given <= known
        out = func(*args, **(kwargs or {}))
        # Memory is copied, for a deep copy, by way of tensors that are laid over it: they say not whose it is.
        places = self._lent if func is aten.set_.source_Storage else self._known
        places |= self._places(out) or set()
        return out

    def _places(self, tree: Any, only: torch.device | None = None) -> set[int] | None:
        """Where the tensors lie that an operation is given or yields; None where some have no memory as usual."""
        try:
            return {storage_key(t.untyped_storage()) for t in _leaves(tree) if only is None or t.device == only}
        except RuntimeError:
            return None


def _tensors(part: object) -> Iterator[Tensor]:
    """Those of a module, what it keeps beside its parameters and buffers too; or those in lists and dicts."""
    if not isinstance(part, nn.Module):
        yield from _leaves(part)
        return
    for module in part.modules():
        for value in vars(module).values():
            yield from _leaves(value)


def _leaves(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
