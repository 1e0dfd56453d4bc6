"""The forward and the backward pass of a model as CUDA graphs: recorded once, then replayed with one launch each."""

from __future__ import annotations

import copy
import warnings
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeAlias, TypeVar, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas._compat.torch_internals import TreeSpec, copy_each, tree_flatten, tree_unflatten
from nas.errors import NasValueError, explain
from nas.example_inputs import tensors_of
from nas.oneshot.relaxed import Mixing

T = TypeVar("T")
Key: TypeAlias = tuple[object, ...]

_WARM_UP = 3
"""Passes that run as they are before one is recorded: kernels are compiled and chosen, caches filled."""
_MOST = 8
"""Different passes that are recorded, as many as torch compiles of one function."""
_DIFFERENT = 64
"""Different passes that are counted: where there are more, hardly one comes again."""


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
        # What other threads do, those of data loaders, does not disturb it.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            found = work()
        return found, graph.replay


@final
class RecordedForward:
    """The forward of a model in training, which is recorded together with its backward pass, and then replayed.

    A pass is recorded for each phase (which parameters want gradients, which candidates are computed), shape and
    precision. What else differs from step to step in Python is not seen; `forget` is for what differs from epoch to
    epoch. Passes without gradients run as they are, and so does one while another waits for its backward pass.

    Args:
        model: whose forward it is; it takes and yields tensors, in lists, tuples and dicts too. What hides tensors
            elsewhere (a dataclass) is not recorded.
        mixing: where the mixtures of the model read their weights.
        forward: what the model computes.
        recorder: makes the recorder of the device.
    """

    def __init__(
        self, model: nn.Module, mixing: Mixing, forward: Callable[..., Any], recorder: Callable[[], Recorder]
    ) -> None:
        self.model, self.mixing, self._forward, self._make_recorder = model, mixing, forward, recorder
        self._seen: Counter[Key] = Counter()
        self._passes: dict[Key, _Pass] = {}
        self._told = self._paused = self._hidden = False
        self.latest: Callable[[], _Ticket | None] = _nobody
        """The ticket of what was replayed last, if somebody still holds what it yielded."""
        self.parameters: list[nn.Parameter] = []
        self._modules: list[nn.Module] = []
        self._recorder: Recorder | None = None

    def forget(self) -> None:
        """Records anew from now on."""
        self._passes.clear()
        self._recorder = self._make_recorder()
        self._modules, self.parameters = list(self.model.modules()), list(self.model.parameters())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the model runs as it is: what is replayed cannot be differentiated twice."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedForward:
        """For a copy of the model, of which nothing is recorded yet."""
        model, forward = copy.deepcopy(self.model, memo), copy.deepcopy(self._forward, memo)
        return RecordedForward(model, self.mixing, forward, self._make_recorder)

    @property
    def recorded(self) -> int:
        """How many passes are recorded."""
        return len(self._passes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model yields."""
        if self._recorder is None:
            self.forget()
        leaves, spec = tree_flatten((args, kwargs))
        latest = self.latest()
        waits = latest is not None and not latest.done
        key = None if waits or self._paused else self._key(leaves, spec)
        if key is None or not self._ready(key):
            output = self._forward(*args, **kwargs)
            if key is not None and key not in self._passes and _hides_tensors(tree_flatten(output)[0]):
                self._hide("yields")
            return output
        if key not in self._passes:
            self._passes[key] = self._record(leaves, spec)
        return self._passes[key].run(self, leaves)

    def _hide(self, verb: str) -> None:
        """Records no more: a replay would hand out the tensors of the pass that was recorded."""
        self._hidden = True
        warnings.warn(
            f"CUDA graphs: the model {verb} objects that hold tensors, so its passes are not recorded; let it use "
            "tensors, lists, tuples and dicts",
            stacklevel=3,
        )

    def _ready(self, key: Key) -> bool:
        """Whether a pass is recorded, or is to be."""
        if key in self._passes:
            return True
        if key not in self._seen and len(self._seen) == _DIFFERENT:
            if not self._told:
                warnings.warn(
                    "CUDA graphs: other candidates are computed in each step, so most steps are not recorded",
                    stacklevel=2,
                )
            self._told = True
            return False
        self._seen[key] += 1
        return self._seen[key] > _WARM_UP and len(self._passes) < _MOST

    def _key(self, leaves: Sequence[Any], spec: TreeSpec) -> Key | None:
        """What makes passes equal; None of those that are not recorded."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if self._hidden:
            return None
        if _hides_tensors(leaves):
            self._hide("takes")
            return None
        if not self.model.training or not torch.is_grad_enabled() or any(tensor.requires_grad for tensor in tensors):
            return None
        weights = self.mixing.weights
        device = next((tensor.device.type for tensor in tensors), "cpu")
        return (
            repr(spec),
            tuple(_look(leaf) for leaf in leaves),
            tuple(self.mixing.active.items()),
            tuple((label, weight.shape, weight.requires_grad) for label, weight in weights.items()),
            tuple(parameter.requires_grad for parameter in self.parameters),
            tuple(module.training for module in self._modules),
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        )

    def _record(self, leaves: Sequence[Any], spec: TreeSpec) -> _Pass:
        """Records a pass on copies of what it reads, at which later ones find it."""
        recorder = self._recorder
        assert recorder is not None
        inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(inputs, spec)
        kept = dict(self.mixing.weights)
        weights = {label: w.detach().clone().requires_grad_(w.requires_grad) for label, w in kept.items()}
        wanted = [tensor for tensor in [*weights.values(), *self.parameters] if tensor.requires_grad]
        self.mixing.weights.update(weights)
        cache = torch.is_autocast_cache_enabled()
        # What was cast before belongs to another pass.
        torch.set_autocast_cache_enabled(False)
        try:
            output, forward = recorder.record(lambda: self._forward(*args, **kwargs))
            outputs, out_spec = tree_flatten(output)
            ends = [end for end in outputs if isinstance(end, Tensor) and end.requires_grad]
            given = [torch.zeros_like(end) for end in ends]
            gradients, backward = recorder.record(lambda: _gradients(ends, wanted, given))
        except RuntimeError as error:
            raise NasValueError(
                explain(
                    "the forward and backward pass of this model cannot be recorded as CUDA graphs: they must not wait "
                    "for the device, nor copy from the host",
                    got=str(error).partition("\n")[0],
                    where="Speed(cuda_graphs=True)",
                    mend="Speed(compile=True)",
                )
            ) from error
        finally:
            torch.set_autocast_cache_enabled(cache)
            self.mixing.weights.update(kept)
        return _Pass(
            inputs=inputs,
            weights=weights,
            outputs=[end.detach() if isinstance(end, Tensor) else end for end in outputs],
            differentiable=[isinstance(end, Tensor) and end.requires_grad for end in outputs],
            spec=out_spec,
            given=given,
            gradients=gradients,
            forward=forward,
            backward=backward,
        )


def record_whole(model: nn.Module, mixing: Mixing, recorder: Callable[[], Recorder]) -> RecordedForward:
    """Gives a model a forward that is recorded.

    Args:
        model: a supernet; parts of it may be compiled.
        mixing: where its mixtures read their weights.
        recorder: makes the recorder of its device.
    """
    forward = vars(model).get("forward") or MethodType(type(model).forward, model)
    found = RecordedForward(model, mixing, forward, recorder)
    found.forget()
    model.__dict__["forward"] = found
    return found


@final
@dataclass(eq=False)
class _Ticket:
    """Of a forward pass; it is gone when nobody holds what it yielded."""

    done: bool = False
    """Whether its backward pass is over."""


def _nobody() -> None:
    """Nothing was replayed."""


@final
@dataclass(kw_only=True, eq=False)
class _Pass:
    """What was recorded: where it reads, where it writes, and what to run."""

    inputs: list[Any]
    weights: dict[str, Tensor]
    outputs: list[Any]
    differentiable: list[bool]
    spec: TreeSpec
    given: list[Tensor]
    """The gradients of the differentiable outputs."""
    gradients: list[Tensor | None]
    """Of the weights of mixtures that want one, and of the parameters."""
    forward: Callable[[], None]
    backward: Callable[[], None]

    def run(self, owner: RecordedForward, leaves: Sequence[Any]) -> Any:
        """Another pass, on other inputs."""
        weights = owner.mixing.weights
        with torch.no_grad():
            for place, leaf in zip(self.inputs, leaves, strict=True):
                if isinstance(place, Tensor):
                    place.copy_(leaf, non_blocking=True)
            copy_each(list(self.weights.values()), [weights[label] for label in self.weights])
        wanted = [tensor for tensor in [*weights.values(), *owner.parameters] if tensor.requires_grad]
        tensors = iter(_Replay.apply(self, owner, *wanted))
        return tree_unflatten([next(tensors) if isinstance(o, Tensor) else o for o in self.outputs], self.spec)


class _Replay(torch.autograd.Function):
    """The replayed passes as one node of the graph of gradients."""

    @staticmethod
    def forward(ctx: Any, recorded: _Pass, owner: RecordedForward, *wanted: Tensor) -> tuple[Tensor, ...]:
        recorded.forward()
        ctx.recorded, ctx.owner, ctx.ticket = recorded, owner, _Ticket()
        owner.latest = weakref.ref(ctx.ticket)
        # The next pass writes where this one has written.
        pairs = zip(recorded.outputs, recorded.differentiable, strict=True)
        found = [(output.clone(), wants) for output, wants in pairs if isinstance(output, Tensor)]
        ctx.mark_non_differentiable(*(output for output, wants in found if not wants))
        ctx.wants = [wants for _, wants in found]
        return tuple(output for output, _ in found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        recorded, ticket = ctx.recorded, ctx.ticket
        if ctx.owner.latest() is not ticket:
            raise NasValueError(
                explain(
                    "what a pass needs for its gradients is gone once another has been replayed",
                    where="Speed(cuda_graphs=True)",
                    mend="one backward pass after each forward pass, or cuda_graphs=False",
                )
            )
        given = [gradient for gradient, wants in zip(gradients, ctx.wants, strict=True) if wants]
        copy_each(recorded.given, given)
        recorded.backward()
        ticket.done = True
        return None, None, *(None if found is None else found.detach() for found in recorded.gradients)


def _gradients(ends: Sequence[Tensor], wanted: Sequence[Tensor], given: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients, each in memory of its own: optimizers and clipping write into them."""
    found = torch.autograd.grad(ends, wanted, given, allow_unused=True)
    ours = {tensor.untyped_storage().data_ptr() for tensor in given}
    places: set[int] = set()  # parts of one tensor do not disturb each other
    apart: list[Tensor | None] = []
    for gradient in found:
        if gradient is not None:
            if gradient.data_ptr() in places or gradient.untyped_storage().data_ptr() in ours:
                gradient = gradient.clone()
            places.add(gradient.data_ptr())
        apart.append(gradient)
    return apart


def _hides_tensors(leaves: Sequence[Any]) -> bool:
    """Whether objects among the leaves hold tensors themselves."""
    return any(not isinstance(leaf, Tensor) and next(tensors_of(leaf), None) is not None for leaf in leaves)


def _look(leaf: Any) -> object:
    """What of an input a recorded pass depends on."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return type(leaf), repr(leaf)
