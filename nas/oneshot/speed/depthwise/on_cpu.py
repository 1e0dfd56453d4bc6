"""Convolutions of each channel by itself on the CPU, whose gradients cost little more than their forward pass.

The CPU kernels of torch are fast forward, but some ten times slower backward where a kernel is wider than three or has
holes. Here the gradients are written as convolutions that they are fast at; the numbers are the same.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTH = 3
"""The widest kernel whose weight gradient is fast."""
Pair: TypeAlias = tuple[int, int]


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution that `depthwise` computes."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    sides = zip(module.padding, module.dilation, module.kernel_size, strict=True)
    return (
        module.groups == module.in_channels == module.out_channels > 1
        and all(p <= d * (k - 1) and p % d == 0 for p, d, k in sides)
        and module.stride in ((1, 1), module.dilation)
    )


def run_depthwise(module: nn.Conv2d, x: Tensor) -> Tensor:
    """What a module computes that `is_depthwise`."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() != 4 or torch.is_autocast_enabled("cpu"):
        found: Tensor = module(x)
        return found
    stride, padding, dilation = module.stride, module.padding, module.dilation
    y = depthwise(x, module.weight, cast(Pair, stride), cast(Pair, padding), cast(Pair, dilation))
    return y if module.bias is None else y + module.bias.view(1, -1, 1, 1)


def depthwise(
    x: Tensor, weight: Tensor, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """Each channel convolved by itself; differentiable any number of times.

    Args:
        x: (batch, channels, height, width).
        weight: (channels, 1, kernel height, kernel width).
        stride: 1, or the dilation.
        padding: zeros around the image; a multiple of the dilation, and no further than the kernel reaches.
        dilation: between what the kernel reads.

    Returns:
        (batch, channels, height, width), as `torch.nn.functional.conv2d` yields.

    Example:
        >>> depthwise(torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), dilation=(1, 1)).shape
        torch.Size([1, 2, 2, 2])
    """
    if stride != (1, 1):
        # All that is read lies on one grid, and has neither stride nor holes there.
        x = x[:, :, :: dilation[0], :: dilation[1]].contiguous(memory_format=torch.channels_last)
        padding, dilation = (padding[0] // dilation[0], padding[1] // dilation[1]), (1, 1)
    found: Tensor = _Depthwise.apply(x, weight, padding, dilation)
    return found


class _Depthwise(torch.autograd.Function):
    """Without stride. Its gradients are made of what can be differentiated, itself among it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight if x.requires_grad else None)
        ctx.padding, ctx.dilation, ctx.kernel = padding, dilation, tuple(weight.shape[2:])
        return functional.conv2d(x, weight, None, 1, padding, dilation, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            reach = [d * (k - 1) for d, k in zip(ctx.dilation, ctx.kernel, strict=True)]
            back = (reach[0] - ctx.padding[0], reach[1] - ctx.padding[1])
            to_x = depthwise(gradient, weight.flip(2, 3), (1, 1), back, ctx.dilation)
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(x, gradient, ctx.kernel, ctx.padding, ctx.dilation)
        return to_x, to_weight, None, None


def _weight_gradient(x: Tensor, gradient: Tensor, kernel: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """(channels, 1, *kernel)."""
    if dilation != (1, 1):
        if any(size % d for tensor in (x, gradient) for size, d in zip(tensor.shape[2:], dilation, strict=True)):
            return _of_columns(x, gradient, kernel, padding, dilation)
        # Each pixel reads those of its own phase alone: the phases of rows are images, those of columns channels.
        padding = (padding[0] // dilation[0], padding[1] // dilation[1])
        found = _weight_gradient(_phases(x, dilation), _phases(gradient, dilation), kernel, padding, (1, 1))
        return cast(Tensor, found.unflatten(0, (dilation[1], -1))).sum(0)
    height, width = kernel
    if width <= _WIDTH:
        return _of_columns(x, gradient, kernel, padding)
    wide = functional.pad(x, (padding[1], padding[1]))
    columns = []
    for first in range(0, width, _WIDTH):
        number = min(_WIDTH, width - first)
        read = wide[:, :, :, first : first + gradient.shape[3] + number - 1]
        read = read.contiguous(memory_format=torch.channels_last)
        columns.append(_of_columns(read, gradient, (height, number), (padding[0], 0)))
    return torch.cat(columns, dim=3)


def _of_columns(x: Tensor, gradient: Tensor, kernel: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Tensor:
    channels = x.shape[1]
    weight = x.new_empty(channels, 1, *kernel)
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, (1, 1), padding, dilation, False, (0, 0), channels, (False, True, False)
    )[1]
    return found


def _phases(x: Tensor, dilation: Pair) -> Tensor:
    """(batch, channels, height, width) to (rows * batch, columns * channels, height / rows, width / columns)."""
    rows, columns = dilation
    split: Tensor = x.permute(0, 2, 3, 1).unflatten(2, (-1, columns)).flatten(3).unflatten(1, (-1, rows))
    return split.permute(2, 0, 1, 3, 4).flatten(0, 1).permute(0, 3, 1, 2)


def is_average(module: nn.Module) -> bool:
    """Whether it is a pooling that `run_average` computes: of stride 1, whose output is as large as its input."""
    if type(module) is not nn.AvgPool2d or module.ceil_mode or module.divisor_override is not None:
        return False
    size, padding = _pair(module.kernel_size), _pair(module.padding)
    return _pair(module.stride) == (1, 1) and all(k == 2 * p + 1 for k, p in zip(size, padding, strict=True))


def run_average(module: nn.AvgPool2d, x: Tensor) -> Tensor:
    """What average pooling computes that `is_average`: a depthwise convolution, divided by what it counts."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() != 4:
        found: Tensor = module(x)
        return found
    size, padding = _pair(module.kernel_size), _pair(module.padding)
    weight = x.new_full((x.shape[1], 1, *size), 1 / (size[0] * size[1]))
    y = depthwise(x, weight, padding=padding)
    if module.count_include_pad:
        return y
    counted = functional.avg_pool2d(x.new_ones(1, 1, *x.shape[2:]), size, 1, padding)
    return y * counted.reciprocal()


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else cast(Pair, tuple(value))
