"""A space around LeNet (LeCun et al. 1998, Proceedings of the IEEE 86(11)): convolutional and linear blocks."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from nas import InputChoice, LayerChoice, Repeat, ValueChoice, model_space


class _Features(nn.Module):
    """A convolution, the shared activation, and max pooling or none."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = ValueChoice([3, 5])
        self.convolution = nn.LazyConv2d(channels, kernel, padding=kernel // 2)
        self.activation = LayerChoice({"sigmoid": nn.Sigmoid, "relu": nn.ReLU}, label="activation")
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.pooled = InputChoice(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.convolution(x))
        z: Tensor = self.pooled([y, self.pool(y)])
        return z


class _Hidden(nn.Module):
    """A lazily sized linear layer of one of two sizes, the shared activation, and dropout or none."""

    def __init__(self, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(ValueChoice(sizes))
        self.activation = LayerChoice({"sigmoid": nn.Sigmoid, "relu": nn.ReLU}, label="activation")
        self.dropout = nn.Dropout(ValueChoice([0.3, 0.5]))
        self.dropped = InputChoice(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.linear(x))
        z: Tensor = self.dropped([y, self.dropout(y)])
        return z


@model_space
class LeNetSpace(nn.Module):
    """2 or 3 feature blocks, 1 to 3 linear blocks of falling size, and a linear layer that finds its own input size.

    93,440 architectures: 2 activations x (4^2 + 4^3) feature extractors x (8 + 8^2 + 8^3) classifiers. Differs from the
    paper in padding its convolutions, in max pooling, and in the width of its layers.

    Args:
        channels: of the input images.
        classes: how many outputs.
        image_size: height and width, to size the lazy layers.
    """

    def __init__(self, channels: int = 3, classes: int = 10, image_size: int = 32) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Lazy modules are a new feature")
            self.features = Repeat(lambda i: _Features((16, 32, 64)[i]), (2, 3), label="features")
            sizes = ((256, 128), (128, 64), (64, 32))
            self.hidden = Repeat(lambda i: _Hidden(sizes[i]), (1, 3), label="hidden")
            self.output = nn.LazyLinear(classes)
        self.eval()
        with torch.no_grad():
            self(torch.zeros(1, channels, image_size, image_size))
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to scores (batch, classes)."""
        y: Tensor = self.output(self.hidden(self.features(x).flatten(1)))
        return y
