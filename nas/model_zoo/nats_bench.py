"""The space of sizes of NATS-Bench (Dong et al. 2021, arXiv 2009.00437); that of topologies is NAS-Bench-201's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from nas import Integer, NasValueError, Sample, ValueChoice, model_space
from nas.domains import Answer
from nas.errors import explain
from nas.model_zoo.nasbench201 import Downsample, SumCell, convolution

LAYERS = 5
"""A cell, then twice a halving block and a cell."""


def _operation(in_channels: int, channels: int, source: int, target: int) -> nn.Module:
    """That of an edge in the cell of the benchmark: 3x3 convolutions, and one skip connection."""
    before = channels if source else in_channels
    if (source, target) != (0, 3):
        return convolution(3, before, channels)
    if before == channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, channels, 1, bias=False), nn.BatchNorm2d(channels))


@model_space
class NATSBenchSize(nn.Module):
    """A network of five layers whose widths are chosen: 8^5 = 32,768 architectures.

    Args:
        classes: how many outputs.
        in_channels: of the images.
    """

    def __init__(self, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        widths = [ValueChoice(Integer(8, 64, step=8), label=_label(i)) for i in range(LAYERS)]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        )
        self.layers = nn.Sequential(
            *(
                Downsample(before, width) if i % 2 else SumCell(partial(_operation, before, width))
                for i, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
            )
        )
        self.last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width), both sides multiples of 4, to scores (batch, classes)."""
        y: Tensor = self.classifier(self.last(self.layers(self.stem(x))))
        return y


def size_string(sample: Mapping[str, Answer]) -> str:
    """What the files of NATS-Bench call the widths of a sample.

    Raises:
        NasValueError: a label is missing.

    Example:
        >>> size_string({"channels_0": 8, "channels_1": 16, "channels_2": 24, "channels_3": 32, "channels_4": 64})
        '8:16:24:32:64'
    """
    missing = [_label(i) for i in range(LAYERS) if _label(i) not in sample]
    if missing:
        raise NasValueError(
            explain(f"a sample of NATS-Bench's sizes answers {', '.join(missing)} too", got=dict(sample))
        )
    return ":".join(str(sample[_label(i)]) for i in range(LAYERS))


def sample_of(sizes: str) -> Sample:
    """The sample of such a string.

    Raises:
        NasValueError: not five numbers.

    Example:
        >>> sample_of("8:16:24:32:64")["channels_4"]
        64
    """
    parts = sizes.split(":")
    if len(parts) != LAYERS or not all(part.isdecimal() for part in parts):
        raise NasValueError(explain("the sizes are five numbers with colons between them", got=sizes))
    return {_label(i): int(part) for i, part in enumerate(parts)}


def _label(layer: int) -> str:
    return f"channels_{layer}"
