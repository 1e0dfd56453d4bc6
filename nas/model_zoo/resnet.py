"""A space around ResNet (He et al. 1512.03385) for images of the size of CIFAR's: bottleneck cells in a row."""

from __future__ import annotations

from torch import Tensor, nn

from nas import InputChoice, NasValueError, Repeat, ValueChoice, model_space
from nas.errors import explain
from nas.model_zoo.mobile_layers import conv_norm


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, a quarter of the channels between them; and perhaps a way around.

    Args:
        width: channels in and out.
        label: of the choice whether there is a skip connection: 0 for the input, 1 for none.
    """

    def __init__(self, width: int, *, label: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm(width, width // 4, activation=nn.ReLU),
            conv_norm(width // 4, width // 4, 3, activation=nn.ReLU),
            conv_norm(width // 4, width),
        )
        self.skip = InputChoice(2, 1, label=label)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, height, width) to the same."""
        y, around = self.layers(x), self.skip([x, None])
        z: Tensor = self.activation(y if around is None else y + around)
        return z


@model_space
class ResNetSpace(nn.Module):
    """2 to 5 bottleneck cells with or without skip connections, between max pooling by 2 or 3 and a hidden layer.

    240 architectures: (2^2 + 2^3 + 2^4 + 2^5) x 2 poolings x 2 sizes of the hidden layer, 256 or 512. Differs from the
    paper in that all cells have one width and one resolution, so that each skip is the identity; and in the hidden
    layer.

    Args:
        width: channels that leave each cell; a multiple of 4.
        channels: of the input images.
        classes: how many outputs.

    Raises:
        NasValueError: a width that is no multiple of 4.

    Example:
        >>> from nas import ModelSpace
        >>> ModelSpace(ResNetSpace).default()
        {'pool': 2, 'cells': 2, 'cell1/skip': 0, 'cell2/skip': 0, 'hidden': 256}
    """

    def __init__(self, width: int = 256, *, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise NasValueError(
                explain("a bottleneck is a quarter as wide, so the width must be a multiple of 4", got=width)
            )
        self.stem = conv_norm(channels, width, 3, activation=nn.ReLU)
        self.pool = nn.MaxPool2d(ValueChoice([2, 3], label="pool"))
        self.cells = Repeat(lambda i: Bottleneck(width, label=f"cell{i + 1}/skip"), (2, 5), label="cells")
        hidden = ValueChoice([256, 512], label="hidden")
        self.head = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to scores (batch, classes)."""
        y: Tensor = self.head(self.cells(self.pool(self.stem(x))).mean((2, 3)))
        return y
