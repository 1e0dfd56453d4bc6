"""Depthwise convolutions of several kernels as one operator: it reads what it gets where it is, and writes one tensor.

On a CUDA device it is a kernel, and so are its gradients; elsewhere it is made of torch's convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from nas.oneshot.relaxed.sums import kernels_for

_KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@final
@dataclass(frozen=True, kw_only=True)
class Window:
    """What one of the convolutions reads, and how many chains it serves."""

    chains: int
    """Each has kernels of its own for all channels."""
    kernel: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@final
@dataclass(frozen=True, kw_only=True)
class Shape:
    """What depthwise convolutions have in common, and what not; their outputs are equally high and wide."""

    channels: int
    """Of a chain."""
    stride: tuple[int, int]
    shared: bool
    """Whether all chains read the same channels; else each reads channels of its own."""
    windows: tuple[Window, ...]

    @property
    def encoded(self) -> list[int]:
        """As an operator takes it."""
        found = [self.channels, *self.stride, int(self.shared)]
        for window in self.windows:
            found += [window.chains, *window.kernel, *window.padding, *window.dilation]
        return found

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the outputs of an image."""
        window = self.windows[0]
        sides = zip((height, width), window.kernel, window.padding, window.dilation, self.stride, strict=True)
        high, wide = ((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, p, d, s in sides)
        return high, wide


@cache
def _shape(encoded: tuple[int, ...]) -> Shape:
    channels, high, wide, shared, *rest = encoded
    windows = tuple(
        Window(
            chains=rest[i],
            kernel=(rest[i + 1], rest[i + 2]),
            padding=(rest[i + 3], rest[i + 4]),
            dilation=(rest[i + 5], rest[i + 6]),
        )
        for i in range(0, len(rest), 7)
    )
    return Shape(channels=channels, stride=(high, wide), shared=bool(shared), windows=windows)


def depthwise_together(x: Tensor, weights: Sequence[Tensor], shape: Shape) -> Tensor:
    """The outputs of all windows side by side, each channel convolved by itself; differentiable any number of times.

    Args:
        x: (batch, channels, height, width), the channels of one chain or those of all chains.
        weights: of each window, (chains * channels, 1, *kernel).
        shape: of the convolutions.

    Returns:
        (batch, all chains * channels, ...), the chains of the first window first.

    Example:
        >>> windows = (Window(chains=1, kernel=(1, 1), padding=(0, 0), dilation=(1, 1)),) * 2
        >>> shape = Shape(channels=1, stride=(1, 1), shared=True, windows=windows)
        >>> weights = [torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0)]
        >>> depthwise_together(torch.ones(1, 1, 1, 1), weights, shape).flatten()
        tensor([2., 3.])
    """
    if not x.is_meta and _kernels(x) is None:
        return _plain(x, weights, shape)
    if not x.is_meta and torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)  # as of any convolution; which casts no float64
        x, *weights = (tensor if tensor.dtype == torch.float64 else tensor.to(kind) for tensor in (x, *weights))
    if any(weight.dtype != x.dtype for weight in weights):
        return _plain(x, weights, shape)
    found: Tensor = _Together.apply(shape, x, *weights)
    return found


def _kernels(x: Tensor) -> ModuleType | None:
    """The kernels for a device; they read channels that lie together."""
    known = x.dtype in _KINDS and x.dim() == 4 and x.stride(1) == 1 and x.shape[1] > 1 and x.numel()
    if not known or torch.compiler.is_compiling():
        return None
    return kernels_for(x, "nas.oneshot.speed.depthwise.kernels")


class _Together(torch.autograd.Function):
    """The operators below; what is differentiated twice is computed by what torch differentiates."""

    @staticmethod
    def forward(ctx: Any, shape: Shape, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.shape = shape
        found: Tensor = torch.ops.nas.depthwise(x, weights, shape.encoded)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, *weights = ctx.saved_tensors
        of_x, of_weights = ctx.needs_input_grad[1], any(ctx.needs_input_grad[2:])
        to_x: Tensor | None = None
        to_weights: list[Tensor | None] = [None] * len(weights)
        if torch.is_grad_enabled():
            to_x, found = _plain_gradients(gradient, x, weights, ctx.shape)
            return None, to_x if of_x else None, *(found if of_weights else to_weights)
        encoded = ctx.shape.encoded
        if of_x:
            to_x = torch.ops.nas.depthwise_to_source(gradient, x, weights, encoded)
        if of_weights:
            flat = torch.ops.nas.depthwise_to_weights(gradient, x, weights, encoded)
            parts = flat.split([weight.numel() for weight in weights])
            to_weights = [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
        return None, to_x, *to_weights


def _reads(x: Tensor, shape: Shape) -> Sequence[Tensor]:
    """What each window reads, its channels as often as it has chains."""
    if not shape.shared:
        parts: tuple[Tensor, ...] = x.split([window.chains * shape.channels for window in shape.windows], dim=1)
        return parts
    repeated = {window.chains: repeat_channels(x, window.chains) for window in shape.windows}
    return [repeated[window.chains] for window in shape.windows]


def repeat_channels(x: Tensor, times: int) -> Tensor:
    """The channels of an image some times one behind the other, in the memory format that it has.

    Example:
        >>> repeat_channels(torch.tensor([[[[1.0]], [[2.0]]]]), 2).flatten()
        tensor([1., 2., 1., 2.])
    """
    if times == 1:
        return x
    if x.is_contiguous(memory_format=torch.channels_last):
        y = x.permute(0, 2, 3, 1).unsqueeze(3)
        return y.expand(-1, -1, -1, times, -1).flatten(3).permute(0, 3, 1, 2)
    return x.unsqueeze(1).expand(-1, times, -1, -1, -1).flatten(1, 2)


def _plain(x: Tensor, weights: Sequence[Tensor], shape: Shape) -> Tensor:
    outputs = [
        functional.conv2d(read, weight, None, shape.stride, window.padding, window.dilation, weight.shape[0])
        for read, weight, window in zip(_reads(x, shape), weights, shape.windows, strict=True)
    ]
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


def _plain_gradients(
    gradient: Tensor, x: Tensor, weights: Sequence[Tensor], shape: Shape
) -> tuple[Tensor, list[Tensor]]:
    """Of what is read and of the weights, made of what can be differentiated."""
    to_reads, to_weights = [], []
    parts = gradient.split([weight.shape[0] for weight in weights], dim=1)
    for read, weight, window, part in zip(_reads(x, shape), weights, shape.windows, parts, strict=True):
        to_read, to_weight, _ = torch.ops.aten.convolution_backward(
            part, read, weight, None, shape.stride, window.padding, window.dilation, False, (0, 0), weight.shape[0],
            (True, True, False),
        )  # fmt: skip
        to_reads.append(to_read)
        to_weights.append(to_weight)
    to_x = torch.cat(to_reads, dim=1)
    return to_x.unflatten(1, (-1, shape.channels)).sum(1) if shape.shared else to_x, to_weights


_LIBRARY = torch.library.Library("nas", "FRAGMENT")
_LIBRARY.define("depthwise(Tensor x, Tensor[] weights, int[] shape) -> Tensor")
_LIBRARY.define("depthwise_to_source(Tensor gradient, Tensor x, Tensor[] weights, int[] shape) -> Tensor")
_LIBRARY.define("depthwise_to_weights(Tensor gradient, Tensor x, Tensor[] weights, int[] shape) -> Tensor")


@torch.library.impl(_LIBRARY, "depthwise", "CPU")
@torch.library.impl(_LIBRARY, "depthwise", "CUDA")
def _run(x: Tensor, weights: Sequence[Tensor], encoded: Sequence[int]) -> Tensor:
    shape = _shape(tuple(encoded))
    if (kernels := _kernels(x)) is None:
        return _plain(x, weights, shape)
    with torch.cuda.device_of(x):
        found: Tensor = kernels.forward(x, weights, shape)
    return found


@torch.library.impl(_LIBRARY, "depthwise", "Meta")
def _shape_of_output(x: Tensor, weights: Sequence[Tensor], encoded: Sequence[int]) -> Tensor:
    shape = _shape(tuple(encoded))
    size = (x.shape[0], sum(weight.shape[0] for weight in weights), *shape.size(*x.shape[2:]))
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.impl(_LIBRARY, "depthwise_to_source", "CPU")
@torch.library.impl(_LIBRARY, "depthwise_to_source", "CUDA")
def _to_source(gradient: Tensor, x: Tensor, weights: Sequence[Tensor], encoded: Sequence[int]) -> Tensor:
    shape = _shape(tuple(encoded))
    if (kernels := _kernels(x)) is None:
        return _plain_gradients(gradient, x, weights, shape)[0]
    with torch.cuda.device_of(x):
        found: Tensor = kernels.to_source(gradient, x, weights, shape)
    return found


@torch.library.impl(_LIBRARY, "depthwise_to_source", "Meta")
def _shape_of_source(gradient: Tensor, x: Tensor, weights: Sequence[Tensor], encoded: Sequence[int]) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.impl(_LIBRARY, "depthwise_to_weights", "CPU")
@torch.library.impl(_LIBRARY, "depthwise_to_weights", "CUDA")
def _to_weights(gradient: Tensor, x: Tensor, weights: Sequence[Tensor], encoded: Sequence[int]) -> Tensor:
    shape = _shape(tuple(encoded))
    if (kernels := _kernels(x)) is None:
        return torch.cat([found.flatten() for found in _plain_gradients(gradient, x, weights, shape)[1]])
    with torch.cuda.device_of(x):
        made: Tensor = kernels.to_weights(gradient, x, weights, shape)
    return made


@torch.library.impl(_LIBRARY, "depthwise_to_weights", "Meta")
def _shape_of_weights(gradient: Tensor, x: Tensor, weights: Sequence[Tensor], encoded: Sequence[int]) -> Tensor:
    return weights[0].new_empty(sum(weight.numel() for weight in weights))
