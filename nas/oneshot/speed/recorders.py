"""What records work on a device, to be done again on the same memory: CUDA graphs; and who else holds this memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import repeat
from operator import add, is_not
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from nas._compat.gradients import gradient_of, holders_of, place_of, set_gradient
from nas._compat.torch_internals import copy_each
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
        stream: on which they are recorded, and always replayed, while other streams of the device are at work; the
            device is not waited for then. Where it is omitted, all the device's work is over before it is recorded.

    Raises:
        NasValueError: it is no CUDA device.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        if device.type != "cuda":
            raise NasValueError(
                explain(
                    "CUDA graphs need a CUDA device", got=device, where="Speed(cuda_graphs=True)", mend="compile=True"
                )
            )
        self._device = device
        # One stream for all: the backward pass runs on the streams of the forward pass.
        self._stream = torch.cuda.Stream(device) if stream is None else stream
        self._waits = stream is None
        self._latest: torch.cuda.CUDAGraph | None = None
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What the work yields, none of it computed yet, and the function that computes it."""
        if self._waits:
            return self._record(work)
        try:
            return self._record(work)
        except torch.OutOfMemoryError:
            # What torch keeps for later is not given free while something is recorded.
            torch.cuda.empty_cache()
            self._pool = torch.cuda.graph_pool_handle()
            return self._record(work)

    def _record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            before = generator.clone_state()
            try:
                with self._capturing(graph):
                    found = work()
            except BaseException:
                # One that was broken off in a recording would wait for its end for ever.
                generator.graphsafe_set_state(before)
                raise
        if not self._waits:
            self._latest = graph  # a pool whose graphs are all gone could not be recorded to again
        return found, graph.replay

    @contextmanager
    def _capturing(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        """Inside, kernels go into the graph. What other threads do, those of data loaders, does not disturb it."""
        if self._waits:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                yield
            return
        with torch.cuda.stream(self._stream):
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                yield
            except BaseException:
                with suppress(RuntimeError):  # a broken capture fails to end too; the first error says more
                    graph.capture_end()
                raise
            graph.capture_end()


def records_on(device: torch.device) -> bool:
    """Whether passes on a device can be recorded."""
    return device.type == "cuda"


def for_each(function: Callable[..., object], *arguments: Iterable[Any]) -> None:
    """Calls a function with the first of all arguments, then with the second, and so on: thousands, without Python."""
    deque(map(function, *arguments), maxlen=0)


@final
class Gradients:
    """The gradients that a recorded backward pass writes, to the same memory each time.

    The memory is their own: that of recordings is shared by all of them, and another one may write there as soon as
    this one is over. torch does not copy what it is given for a parameter that has no gradient yet, so this memory is
    the parameter's gradient until that is set to None; who holds it longer must not find the next pass's numbers there.

    Args:
        wanted: the parameters, and other tensors, whose gradients they are.
    """

    def __init__(self, wanted: Sequence[Tensor]) -> None:
        self._wanted = wanted
        self._places: list[Tensor | None] = [torch.empty_like(tensor, requires_grad=False) for tensor in wanted]

    def write(self, found: Sequence[Tensor | None]) -> None:
        """What is recorded: puts them where they belong.

        Args:
            found: in the order of the tensors; None for those that have no part in the pass.
        """
        pairs = list(zip(self._places, found, strict=True))
        self._places = [None if gradient is None else place for place, gradient in pairs]
        used = [(place, gradient) for place, gradient in pairs if place is not None and gradient is not None]
        # In one list go those that lie alike: else torch copies one after the other.
        alike = [(place, gradient) for place, gradient in used if place.stride() == gradient.stride()]
        if alike:
            copy_each([place for place, _ in alike], [gradient for _, gradient in alike])
        for place, gradient in used:
            if place.stride() != gradient.stride():
                place.copy_(gradient)

    def settle(self) -> None:
        """Says that it is recorded, and nothing handed out yet."""
        used = [(t, place) for t, place in zip(self._wanted, self._places, strict=True) if place is not None]
        self._parameters = [tensor for tensor, _ in used if tensor.is_leaf]
        self._of_parameters = [tensor.is_leaf for tensor, _ in used]
        self._used = [place for _, place in used]
        self._addresses = [place.data_ptr() for tensor, place in used if tensor.is_leaf]
        self._memory = [place_of(place) for _, place in used]
        self._alone = list(map(holders_of, self._memory))

    def handed_out(self) -> list[Tensor | None]:
        """What the pass yields."""
        return [None if place is None else place.detach() for place in self._places]

    def are_none(self) -> bool:
        """Whether no parameter has a gradient, and all that is wanted is of parameters."""
        return all(self._of_parameters) and not any(map(is_not, map(gradient_of, self._parameters), repeat(None)))

    def hand_out(self) -> None:
        """Gives parameters that have none their gradients."""
        for_each(set_gradient, self._parameters, map(Tensor.detach, self._used))

    def are_kept(self) -> bool:
        """Whether somebody holds what was handed out, other than as the gradient of its parameter."""
        held = list(map(holders_of, self._memory))
        if held == self._alone:
            return False
        here = iter(self._theirs())
        theirs = [is_parameter and next(here) for is_parameter in self._of_parameters]
        return held != list(map(add, self._alone, theirs))

    def leave(self) -> None:
        """Parameters whose gradients lie here, as further batches are to be added to them, get memory of their own."""
        if list(map(holders_of, self._memory)) != self._alone:
            for parameter, is_here in zip(self._parameters, self._theirs(), strict=True):
                if is_here and parameter.grad is not None:
                    parameter.grad = parameter.grad.clone()

    def _theirs(self) -> list[bool]:
        """Whose gradient is here."""
        gradients = map(gradient_of, self._parameters)
        return [
            gradient is not None and gradient.data_ptr() == address
            for gradient, address in zip(gradients, self._addresses, strict=True)
        ]
