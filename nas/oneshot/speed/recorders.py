"""What records work on a device, to be done again on the same memory: CUDA graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar, final

import torch

from nas.errors import NasValueError, explain

T = TypeVar("T")


class Recorder(ABC):
    """Records work on tensors, to be done again on the same memory."""

    @abstractmethod
    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What the work yields, none of it computed yet, and the function that computes it."""


@final
class CudaRecorder(Recorder):
    """Records CUDA graphs, whose memory is one pool: never are two of them at work at a time.

    Args:
        device: whose kernels are recorded.

    Raises:
        NasValueError: it is no CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise NasValueError(
                explain(
                    "CUDA graphs need a CUDA device", got=device, where="Speed(cuda_graphs=True)", mend="compile=True"
                )
            )
        self._device = device
        # One stream for all: the backward pass runs on the streams of the forward pass.
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What the work yields, none of it computed yet, and the function that computes it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            before = generator.clone_state()
            try:
                # What other threads do, those of data loaders, does not disturb it.
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    found = work()
            except BaseException:
                # One that was broken off in a recording would wait for its end for ever.
                generator.graphsafe_set_state(before)
                raise
        return found, graph.replay


def records_on(device: torch.device) -> bool:
    """Whether passes on a device can be recorded."""
    return device.type == "cuda"
