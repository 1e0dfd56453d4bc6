"""Blocks that the mobile spaces share: convolution with norm, squeeze-and-excite, the inverted residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

Activation: TypeAlias = Callable[[], nn.Module]
Norm: TypeAlias = Callable[[int], nn.Module]


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of the divisor, or the next one where that would lose more than a tenth.

    Example:
        >>> round_channels(184.3), round_channels(11), round_channels(3)
        (184, 16, 8)
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = None,
    norm: Norm = nn.BatchNorm2d,
) -> nn.Sequential:
    """A convolution padded to keep the size (divided by the stride), a norm, and perhaps an activation."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [convolution, norm(out_channels)]
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all channels (Hu et al. 1709.01507), a hard sigmoid.

    Args:
        channels: in and out.
        squeezed: width of the layer between.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.ReLU()
        self.excite = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to the same."""
        scale: Tensor = self.gate(self.excite(self.activation(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return x * scale


class InvertedResidual(nn.Module):
    """MBConv (Sandler et al. 1801.04381): widen by a 1x1 convolution, filter each channel, narrow; around it a skip.

    The skip is there where shapes allow it (stride 1, as many channels out as in); the first convolution is left out
    where hidden equals in_channels.

    Args:
        in_channels, out_channels: of the block.
        hidden: channels of the depthwise convolution.
        kernel, stride: of the depthwise convolution.
        squeeze_excite: whether gates scale its output.
        activation, norm: of its layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int,
        kernel: int,
        stride: int = 1,
        squeeze_excite: bool = False,
        activation: Activation = nn.ReLU6,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(conv_norm(in_channels, hidden, activation=activation, norm=norm))
        layers.append(conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden, activation=activation, norm=norm))
        if squeeze_excite:
            layers.append(SqueezeExcite(hidden, round_channels(hidden // 4)))
        layers.append(conv_norm(hidden, out_channels, norm=norm))
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.skip else y
