"""Layers of many chains computed as one, step by step, their parameters and batch statistics joined once a pass."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, TypeAlias, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.torch_internals import (
    add_to_each,
    copy_each,
    flatten_each,
    move_each_toward,
    own_buffers,
    own_parameters,
)
from nas.oneshot.speed.chains import Prefix, Signature
from nas.oneshot.speed.depthwise import Pair, Shape, Window, depthwise_together, repeat_channels

Slot: TypeAlias = tuple[int, int]
"""Of a candidate: the number of its mixture among those that read the input, and its position there."""
Block: TypeAlias = tuple[Tensor, tuple[Slot, ...]]
"""(batch, candidates * channels, ...), and the candidates that yield it, side by side."""
Place: TypeAlias = tuple[Sequence[nn.Module], str]
"""Equal layers, and which of their parameters."""


def join(places: Sequence[Place], *, casts: bool) -> list[Tensor | None]:
    """The parameters of equal layers, one behind the other along dimension 0; all places in one launch.

    Args:
        places: of which the parameters are joined.
        casts: whether they are read by what an autocast casts, which is then done for all of them at once.

    Returns:
        For each place (layers * out, ...); None where the layers have no such parameter.
    """
    found: list[Tensor | None] = []
    flat: list[tuple[int, list[Tensor]]] = []
    for layers, name in places:
        tensors = _present([own_parameters(layer)[name] for layer in layers])
        found.append(None)
        if not tensors:
            continue
        if torch.compiler.is_compiling() or not all(tensor.is_contiguous() for tensor in tensors):
            found[-1] = torch.cat(tensors)
        else:
            flat.append((len(found) - 1, tensors))
    if len({(tensor.dtype, tensor.device) for _, tensors in flat for tensor in tensors}) > 1:
        for i, tensors in flat:
            found[i] = torch.cat(tensors)
    elif len(flat) == 1 and len(flat[0][1]) == 1:
        found[flat[0][0]] = flat[0][1][0]
    elif flat:
        sizes = [len(tensors) for _, tensors in flat]
        every = [tensor for _, tensors in flat for tensor in tensors]
        joined = _Joined.apply(sizes, _autocast(every[0]) if casts else None, *every)
        for (i, _), tensor in zip(flat, joined, strict=True):
            found[i] = tensor
    return found


def _autocast(tensor: Tensor) -> torch.dtype | None:
    """To what an autocast would cast a weight."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return None
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class _Joined(torch.autograd.Function):
    """Tensors as few larger ones; the gradients of the former are views of those of the latter."""

    @staticmethod
    def forward(ctx: Any, sizes: Sequence[int], dtype: torch.dtype | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.sizes, ctx.dtype, ctx.lengths = sizes, tensors[0].dtype, []
        if dtype is None:
            flat = flatten_each(tensors)
        else:  # cast as they are put there
            flat = tensors[0].new_empty(sum(tensor.numel() for tensor in tensors), dtype=dtype)
            parts = flat.split([tensor.numel() for tensor in tensors])
            copy_each([part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)], list(tensors))
        found, first, start = [], 0, 0
        for number in sizes:
            like = tensors[first]
            ctx.lengths.append(like.shape[0])
            length = number * like.numel()
            found.append(flat[start : start + length].view(number * like.shape[0], *like.shape[1:]))
            first, start = first + number, start + length
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None, None]
        for gradient, number, length in zip(_cast(gradients, ctx.dtype), ctx.sizes, ctx.lengths, strict=True):
            found += repeat(None, number) if gradient is None else gradient.split(length)
        return tuple(found)


def _cast(gradients: Sequence[Tensor | None], dtype: torch.dtype) -> Sequence[Tensor | None]:
    """Gradients in the precision of the parameters; all of them in one launch."""
    others = [gradient for gradient in gradients if gradient is not None and gradient.dtype != dtype]
    if not others:
        return gradients
    if torch.is_grad_enabled():
        return [None if gradient is None else gradient.to(dtype) for gradient in gradients]
    made = [torch.empty_like(gradient, dtype=dtype) for gradient in others]
    copy_each(made, others)
    left = iter(made)
    return [g if g is None or g.dtype == dtype else next(left) for g in gradients]


@final
class Statistics:
    """The running statistics of the batch norms of a pass, which go on together at its end.

    Args:
        channels: that batch norms have together which will be computed.
    """

    def __init__(self, channels: int) -> None:
        self._channels, self._free = channels, 0
        self._scratch: Tensor | None = None
        self._moves: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
        self._counts: list[Tensor] = []

    def normalise(
        self, layers: Sequence[nn.BatchNorm2d], x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """One batch norm of all channels of equal layers: (batch, layers * channels, ...) to the same.

        Args:
            layers: with statistics and a momentum of their own, all of them training or none, or all without.
            x: their inputs, side by side.
            weight: (layers * channels,), or None.
            bias: the same.
        """
        first = layers[0]
        if not first.track_running_stats:
            return functional.batch_norm(x, None, None, weight, bias, True, 0.0, first.eps)
        means = _present([own_buffers(layer)["running_mean"] for layer in layers])
        variances = _present([own_buffers(layer)["running_var"] for layer in layers])
        if not first.training:
            return functional.batch_norm(x, torch.cat(means), torch.cat(variances), weight, bias, False, 0.0, first.eps)
        # With a momentum of 1 the statistics are those of the batch.
        mean, variance = self._zeros(means[0], len(layers) * first.num_features)
        y = functional.batch_norm(x, mean, variance, weight, bias, True, 1.0, first.eps)
        assert first.momentum is not None
        targets, batch = self._moves.setdefault(first.momentum, ([], []))
        targets += [*means, *variances]
        batch += [*mean.split(first.num_features), *variance.split(first.num_features)]
        self._counts += _present([own_buffers(layer)["num_batches_tracked"] for layer in layers])
        return y

    def _zeros(self, like: Tensor, number: int) -> tuple[Tensor, Tensor]:
        if self._scratch is None or (self._scratch.dtype, self._scratch.device) != (like.dtype, like.device):
            self._scratch, self._free = like.new_zeros(2 * self._channels), 0
        found = self._scratch[self._free : self._free + 2 * number]
        self._free += 2 * number
        mean, variance = found.split(number)
        return mean, variance

    def write(self) -> None:
        """Moves the running statistics of all layers on."""
        move_on(self._moves, self._counts)


def move_on(moves: Mapping[float, tuple[list[Tensor], list[Tensor]]], counts: list[Tensor]) -> None:
    """Moves running statistics toward those of a batch, and counts it.

    Args:
        moves: momentum -> the running statistics, each once, and those of the batch.
        counts: of batches.
    """
    with torch.no_grad():
        for momentum, (targets, batch) in moves.items():
            move_each_toward(targets, batch, momentum)
        if counts:
            add_to_each(counts, 1)


def _present(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


class Step(ABC):
    """Something that is done with tensors of a program, each of which is read once.

    Attributes:
        results: the numbers of the tensors that it yields.
    """

    results: range = range(0)

    @abstractmethod
    def run(self, run: _Run) -> Sequence[Tensor]:
        """What it yields, in the order of the results."""


@final
class Program:
    """What is done one after the other with tensors that hold some chains side by side."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._blocks: list[tuple[int, tuple[Slot, ...]]] = []
        self._number = 0

    def add(self, step: Step, results: int = 1) -> range:
        """One step more; says which tensors it yields."""
        step.results = range(self._number, self._number + results)
        self._number += results
        self._steps.append(step)
        return step.results

    def yields(self, number: int, places: Sequence[Slot]) -> None:
        """A tensor is what some candidates yield."""
        self._blocks.append((number, tuple(places)))

    def run(self, after: Callable[[Prefix], Tensor]) -> list[Block]:
        """The blocks of what all candidates yield."""
        convolutions = [step for step in self._steps if isinstance(step, Convolve | Depthwise)]
        norms = [step for step in self._steps if isinstance(step, Normalise)]
        run = _Run(after, Statistics(sum(len(step.layers) * step.layers[0].num_features for step in norms)))
        for kind, casts in ((convolutions, True), (norms, False)):
            found = iter(join([place for reader in kind for place in reader.places], casts=casts))
            for reader in kind:
                run.parameters[reader.results.start] = [next(found) for _ in reader.places]
        for step in self._steps:
            run.tensors.update(zip(step.results, step.run(run), strict=True))
        run.statistics.write()
        return [(run.tensors[number], places) for number, places in self._blocks]


@final
class _Run:
    """One run of a program: what it has so far.

    Args:
        after: yields the input after steps without parameters.
        statistics: of its batch norms.
    """

    def __init__(self, after: Callable[[Prefix], Tensor], statistics: Statistics) -> None:
        self._after, self.statistics = after, statistics
        self.tensors: dict[int, Tensor] = {}
        self.parameters: dict[int, list[Tensor | None]] = {}
        self._repeated: dict[tuple[tuple[Signature, ...], int], Tensor] = {}

    def read(self, prefix: Prefix, times: int) -> Tensor:
        """The input after steps without parameters, (batch, times * channels, ...)."""
        key = prefix.keys, times
        if key not in self._repeated:
            self._repeated[key] = repeat_channels(self._after(prefix), times)
        return self._repeated[key]


@final
class Convolve(Step):
    """Convolves what chains have side by side, or the input of all of them, each by its own weights."""

    def __init__(self, source: int | Prefix, layers: Sequence[nn.Conv2d]) -> None:
        self._source, self.layers = source, tuple(layers)
        self.places: list[Place] = [(self.layers, name) for name in ("weight", "bias")]

    def run(self, run: _Run) -> Sequence[Tensor]:
        first, number = self.layers[0], len(self.layers)
        weight, bias = run.parameters[self.results.start]
        assert weight is not None
        if not isinstance(self._source, Prefix):
            x = run.tensors.pop(self._source)
        else:
            # Where a channel is read by some outputs alone, each layer gets channels of its own.
            number = 1 if first.groups == 1 else number
            x = run.read(self._source, number)
        groups = first.groups * number
        return [functional.conv2d(x, weight, bias, first.stride, first.padding, first.dilation, groups)]


@final
class Depthwise(Step):
    """Convolves each channel of what chains have side by side, or of the input of all of them, by its own weights.

    Args:
        source: the tensor, or the input of all chains.
        windows: the layers of the chains, one behind the other, equal ones together.
    """

    def __init__(self, source: int | Prefix, windows: Sequence[Sequence[nn.Conv2d]]) -> None:
        self._source, first = source, windows[0][0]
        self.places: list[Place] = [(tuple(layers), "weight") for layers in windows]
        self._shape = Shape(
            channels=first.in_channels,
            stride=cast(Pair, first.stride),
            shared=isinstance(source, Prefix),
            windows=tuple(
                Window(
                    chains=len(layers),
                    kernel=cast(Pair, layers[0].kernel_size),
                    padding=cast(Pair, layers[0].padding),
                    dilation=cast(Pair, layers[0].dilation),
                )
                for layers in windows
            ),
        )

    def run(self, run: _Run) -> Sequence[Tensor]:
        weights = _present(run.parameters[self.results.start])
        x = run.read(self._source, 1) if isinstance(self._source, Prefix) else run.tensors.pop(self._source)
        return [depthwise_together(x, weights, self._shape)]


@final
class Normalise(Step):
    """Normalises what chains have side by side."""

    def __init__(self, source: int, layers: Sequence[nn.BatchNorm2d]) -> None:
        self._source, self.layers = source, tuple(layers)
        self.places: list[Place] = [(self.layers, name) for name in ("weight", "bias")]

    def run(self, run: _Run) -> Sequence[Tensor]:
        weight, bias = run.parameters[self.results.start]
        return [run.statistics.normalise(self.layers, run.tensors.pop(self._source), weight, bias)]


@final
class Call(Step):
    """Calls steps without parameters."""

    def __init__(self, source: int, steps: Sequence[nn.Module]) -> None:
        self._source = source
        self._steps = [_new(step) for step in steps]

    def run(self, run: _Run) -> Sequence[Tensor]:
        x = run.tensors.pop(self._source)
        for step in self._steps:
            x = step(x)
        return [x]


def _new(step: nn.Module) -> nn.Module:
    """A step that does not write into its input, which may be a part of a tensor that others read."""
    if not getattr(step, "inplace", False):
        return step
    twin = copy.copy(step)
    twin.inplace = False  # type: ignore[assignment]  # a plain attribute
    return twin


@final
class Split(Step):
    """Parts chains that go on differently.

    Args:
        source: what is parted.
        counts: of the chains in each part.
    """

    def __init__(self, source: int, counts: Sequence[int]) -> None:
        self._source, self._counts = source, tuple(counts)

    def run(self, run: _Run) -> Sequence[Tensor]:
        x = run.tensors.pop(self._source)
        width = x.shape[1] // sum(self._counts)
        parts: tuple[Tensor, ...] = x.split([width * count for count in self._counts], dim=1)
        return parts


@final
class Cat(Step):
    """Puts chains side by side that go on in the same way."""

    def __init__(self, sources: Sequence[int]) -> None:
        self._sources = tuple(sources)

    def run(self, run: _Run) -> Sequence[Tensor]:
        return [torch.cat([run.tensors.pop(source) for source in self._sources], dim=1)]
