"""The operations of the cell spaces, and what stands before and behind the cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.space import Skip, Zero

MakeOperation: TypeAlias = Callable[[int, int], nn.Module]
"""Builds an operation, given its channels (as many in as out) and its stride."""


def relu_conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int] = 1,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> nn.Sequential:
    """ReLU, convolution without bias, batch norm: (batch, in_channels, h, w) to (batch, out_channels, ...)."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(out_channels))


def separable(channels: int, stride: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """ReLU, a convolution of each channel, a 1x1 convolution, batch norm."""
    padding = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, kernel, stride=stride, padding=padding, dilation=dilation, groups=channels, bias=False
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


def _twice(kernel: int) -> MakeOperation:
    """Separable convolutions are applied twice, the stride in the first (Zoph et al. 2018, section 4)."""
    return lambda channels, stride: nn.Sequential(*separable(channels, stride, kernel), *separable(channels, 1, kernel))


def _dilated(kernel: int) -> MakeOperation:
    return lambda channels, stride: separable(channels, stride, kernel, dilation=2)


def _conv(kernel: int) -> MakeOperation:
    return lambda channels, stride: relu_conv_norm(channels, channels, kernel, stride=stride, padding=(kernel - 1) // 2)


def _factorized(kernel: int) -> MakeOperation:
    """A row of k, then a column of k."""
    pad = (kernel - 1) // 2
    return lambda channels, stride: nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, kernel), stride=(1, stride), padding=(0, pad), bias=False),
        nn.Conv2d(channels, channels, (kernel, 1), stride=(stride, 1), padding=(pad, 0), bias=False),
        nn.BatchNorm2d(channels),
    )


def _max_pool(size: int) -> MakeOperation:
    return lambda channels, stride: nn.MaxPool2d(size, stride=stride, padding=(size - 1) // 2)


def _avg_pool(channels: int, stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)


def _skip(channels: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)


@final
class FactorizedReduce(Skip):
    """Halves height and width by two 1x1 convolutions of stride 2, one of them moved by a pixel, side by side.

    It is the skip connection of reduction cells.

    Odd sizes are rounded up, as the pooling and the convolutions of a reduction cell do.

    Args:
        in_channels: of the input.
        out_channels: of the output; the first convolution makes half of them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.even = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height / 2, width / 2)."""
        x = self.activation(x)
        odd = (x.shape[-2] % 2, x.shape[-1] % 2)
        if any(odd):
            x = functional.pad(x, (0, odd[1], 0, odd[0]))
        out: Tensor = self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
        return out


OPERATIONS: Mapping[str, MakeOperation] = {
    "none": lambda channels, stride: Zero(stride),
    "skip_connect": _skip,
    "avg_pool_3x3": _avg_pool,
    "max_pool_3x3": _max_pool(3),
    "max_pool_5x5": _max_pool(5),
    "max_pool_7x7": _max_pool(7),
    "conv_1x1": _conv(1),
    "conv_3x3": _conv(3),
    "conv_3x1_1x3": _factorized(3),
    "conv_7x1_1x7": _factorized(7),
    "sep_conv_3x3": _twice(3),
    "sep_conv_5x5": _twice(5),
    "sep_conv_7x7": _twice(7),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
}
"""By the names that published genotypes use. Each takes and gives (batch, channels, height, width); stride 2 halves."""
