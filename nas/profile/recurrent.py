"""Recurrent layers and loops of others in a counted pass: what all their steps take, without asking torch for each."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple, TypeAlias, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nas._compat.torch_internals import (
    TorchDispatchMode,
    storage_key,
    tree_leaves,
    writes_into_first,
    yields_new_tensors,
)

Counting: TypeAlias = Callable[[Callable[[], Any], int], Any]
"""`counting(function, flops)` returns what the function returns, and counts these flops instead of those of its own."""

_KEPT = {torch.lstm: 7, torch.gru: 7, torch.rnn_tanh: 1, torch.rnn_relu: 1}
"""How many tensors of the size of a direction's output live until the backward pass: gates, states, what they are made
of; where torch takes the layer apart into operations."""


@final
class Recurrences(TorchFunctionMode):
    """Makes a recurrent layer one operation, however many steps it takes.

    Without numbers torch takes it apart into a dozen operations for each step, and to follow these takes a hundred
    times as long as the layer itself; with numbers, oneDNN computes it in ways that nothing counts. But each step
    multiplies each matrix of weights with one vector for each member of the batch, and nothing else is counted.

    Args:
        counting: of the flops; None where nobody asks for them.
        real: whether the pass has numbers.
    """

    def __init__(self, counting: Counting | None = None, *, real: bool = False) -> None:
        super().__init__()
        self._counting, self._real = counting, real

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _KEPT or kwargs or not isinstance(args[1 if func is torch.lstm else 2], tuple | list):
            return func(
                *args, **(kwargs or {})
            )  # A packed sequence has the sizes of its batches there: it is taken apart.
        layer = _Layer(func, args)
        run: Callable[[], Any] = (lambda: func(*args)) if self._real else layer.run
        layer.trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in layer.weights)
        return run() if self._counting is None else self._counting(run, layer.flops)


@final
class _Layer:
    """A call of `torch.lstm` and its kin, of which shapes are known."""

    def __init__(self, func: Any, args: tuple[Any, ...]) -> None:
        self.kept = _KEPT[func]
        self.input, state, self.weights, _, self.layers, _, _, bidirectional, self.batch_first = args
        self.states: tuple[Tensor, ...] = tuple(state) if func is torch.lstm else (state,)
        self.directions = 2 if bidirectional else 1
        self.steps, self.batch = self.input.shape[:2][:: -1 if self.batch_first else 1]
        self.trained = False
        self.own = len(self.weights) // (self.layers * self.directions)
        """How many weights each direction of a layer has."""

    @property
    def flops(self) -> int:
        """Of all steps: two for each product."""
        return (
            2 * int(self.steps * self.batch) * sum(int(weight.numel()) for weight in self.weights if weight.dim() == 2)
        )

    def run(self) -> tuple[Tensor, ...]:
        """What the layer yields, without numbers, and meanwhile the memory that it takes."""
        found: tuple[Tensor, ...] = _AllSteps.apply(self, self.input, *self.states, *self.weights)
        return found

    def outputs(self) -> tuple[Tensor, ...]:
        """The output of the last layer, and the last states of all."""
        batch = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        width = self.states[0].shape[-1] * self.directions
        return (self.input.new_empty((*batch, width)), *(torch.empty_like(state) for state in self.states))

    def elements(self) -> int:
        """Of the output of one direction."""
        return int(self.steps * self.batch * self.states[-1].shape[-1])

    def between(self) -> int:
        """Elements that live beside what is kept: outputs of the layer before, and of two directions, to be joined."""
        joined = 4 if self.directions == 2 else 1
        return (joined + (self.directions if self.layers > 1 else 0)) * self.elements()


@final
class _AllSteps(torch.autograd.Function):
    """Takes the memory that all steps take, forward and backward, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, layer: _Layer, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.layer, ctx.kept, outputs = layer, [], layer.outputs()
        if layer.trained:
            for number in range(layer.layers * layer.directions):
                last = number >= (layer.layers - 1) * layer.directions
                each = (layer.kept + (0 if last else 1)) * layer.elements() // max(layer.steps, 1)
                early = min(2, layer.steps)  # steps that are gone back through when the most lives
                ctx.kept += [tensors[0].new_empty((layer.steps - early) * each), tensors[0].new_empty(early * each)]
            tensors[0].new_empty(2 * layer.elements() * (layer.directions - 1))
        else:
            tensors[0].new_empty(layer.between())
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        layer, tensors = ctx.layer, ctx.saved_tensors
        found: list[Tensor | None] = [None] * len(tensors)
        first = 1 + len(layer.states)
        outputs = [tensors[0].new_empty(layer.elements() * layer.directions)]  # their gradients, step by step
        for start in reversed(range(first, len(tensors), layer.own)):
            ctx.kept.pop()
            # Each step's gradient of a matrix is made, and joins those of the steps before it.
            some = tensors[0].new_empty(2 * max(weight.numel() for weight in tensors[start : start + layer.own]))
            for place in range(start, start + layer.own):
                found[place] = torch.empty_like(tensors[place])
            del some
            ctx.kept.pop()
        outputs.clear()
        for place in range(first):
            found[place] = torch.empty_like(tensors[place]) if ctx.needs_input_grad[1 + place] else None
        needed = zip(found, ctx.needs_input_grad[1:], strict=True)
        return (None, *(grad if wanted else None for grad, wanted in needed))


class _New(NamedTuple):
    """A tensor that an operation has made."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@final
class SeenOperations(TorchDispatchMode):
    """Remembers what operations on the meta device yield: a loop of two hundred steps then asks torch for one of them.

    There many operations are written in Python, and to find out a shape takes as long as some matrix products.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._kinds: dict[Any, Literal["new", "first", ""]] = {}
        self._seen: dict[Hashable, list[_New] | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._kinds:
            self._kinds[func] = _kind(func)
        kind = self._kinds[func]
        key = (func, _looks(args), _looks(tuple(kwargs.items()))) if kind else ()
        try:
            found = self._seen.get(key)
        except TypeError:  # Something in it has no hash.
            return func(*args, **kwargs)
        if found is not None and kind == "first":
            return args[0]
        if found is not None:
            made = [torch.empty_strided(new.shape, new.stride, dtype=new.dtype, device="meta") for new in found]
            return made[0] if len(made) == 1 else tuple(made)
        out = func(*args, **kwargs)
        if key and key not in self._seen:
            if kind == "new":
                self._seen[key] = _all_new(out, (args, kwargs))
            else:  # Its shape may be what it changes.
                self._seen[key] = [] if out is args[0] and _looks(args) == key[1] else None
        return out


def _kind(func: Any) -> Literal["new", "first", ""]:
    """Whether an operation makes new tensors, or changes numbers of its first argument and returns it."""
    if func.namespace != "aten":
        return ""
    return "new" if yields_new_tensors(func) else "first" if writes_into_first(func) else ""


def _looks(value: Any) -> Hashable:
    """What the shape of a result may depend on."""
    if isinstance(value, Tensor):
        if value.device.type == "meta" and value.layout is torch.strided:
            return value.shape, value.stride(), value.dtype
        return object()  # as no other looks
    return tuple(map(_looks, value)) if isinstance(value, list | tuple) else (type(value), value)


def _all_new(out: Any, given: Any) -> list[_New] | None:
    """The tensors that an operation has made; None where it has made something else, or not all of it."""
    made = list(out) if type(out) is tuple else [out]
    if not all(type(item) is Tensor and item.is_meta and item.layout is torch.strided for item in made):
        return None
    taken = {storage_key(item.untyped_storage()) for item in tree_leaves(given) if isinstance(item, Tensor)}
    if any(storage_key(item.untyped_storage()) in taken or item.storage_offset() for item in made):
        return None
    return [_New(tuple(item.shape), item.stride(), item.dtype) for item in made]
