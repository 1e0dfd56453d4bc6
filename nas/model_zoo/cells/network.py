"""The network around the cells: stem, normal and reduction cells in a row, auxiliary head, classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

from torch import Tensor, nn

from nas.calls import explained
from nas.checks import check_int, check_word
from nas.model_zoo.cells.operations import FactorizedReduce, relu_conv_norm
from nas.space import CellModule

Dataset: TypeAlias = Literal["cifar10", "imagenet"]


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a network a cell stands."""

    channels: int
    """Of each of its operations."""
    reduction: bool
    """Whether it halves height and width."""
    inputs: tuple[int, int]
    """Channels of the outputs of the cell before the last, and of the last."""
    halved: bool
    """Whether the first of its inputs is twice as high and wide as the second."""

    def preprocess(self) -> tuple[Callable[[], nn.Module], Callable[[], nn.Module]]:
        """What brings both inputs to the cell's number of channels, and to one size."""
        before, previous = self.inputs
        first = FactorizedReduce if self.halved else relu_conv_norm
        return lambda: first(before, self.channels), lambda: relu_conv_norm(previous, self.channels)


@explained()
@final
class CellNetwork(nn.Module):
    """The network of NASNet and DARTS (arXiv 1707.07012, figure 2; arXiv 1806.09055, appendix A).

    Cells in a row, each reading the outputs of the last two; those at a third and at two thirds halve height and width
    and double the channels. For CIFAR the stem is one convolution, to three times the channels; for ImageNet three
    convolutions of stride 2.

    Args:
        make_cell: builds a cell for a place.
        dataset: "cifar10" or "imagenet": which stem, and which auxiliary head.
        channels: of the first cells.
        cells: how many.
        classes: how many outputs.
        auxiliary: whether a second classifier stands on the second reduction cell. While the network is trained it then
            returns a tuple: scores, and the scores of this head. It wants images of 32x32 (ImageNet: 224x224).
        in_channels: of the images.
    """

    def __init__(
        self,
        make_cell: Callable[[Place], CellModule],
        *,
        dataset: Dataset,
        channels: int,
        cells: int,
        classes: int,
        auxiliary: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_word("dataset", dataset, get_args(Dataset), where="CellNetwork")
        numbers = {"channels": channels, "cells": cells, "classes": classes, "in_channels": in_channels}
        channels, cells, classes, in_channels = (
            check_int(name, number, least=1, where="CellNetwork") for name, number in numbers.items()
        )
        small = dataset == "cifar10"
        self.stem = _cifar_stem(in_channels, 3 * channels) if small else _imagenet_stem(in_channels, channels)
        self.second_stem = None if small else relu_conv_norm(channels, channels, 3, stride=2, padding=1)
        inputs, halved = (3 * channels,) * 2 if small else (channels, channels), not small
        reductions = {cells // 3, 2 * cells // 3}
        self.head_after = 2 * cells // 3
        self.cells = nn.ModuleList()
        self.auxiliary: nn.Module | None = None
        for i in range(cells):
            channels *= 2 if i in reductions else 1
            cell = make_cell(Place(channels=channels, reduction=i in reductions, inputs=inputs, halved=halved))
            inputs, halved = (inputs[1], len(cell.outputs) * channels), i in reductions
            self.cells.append(cell)
            if auxiliary and i == self.head_after:
                self.auxiliary = _auxiliary_head(inputs[1], classes, small)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs[1], classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images (batch, in_channels, height, width) to scores (batch, classes).

        With an auxiliary head and in training mode to a tuple of two: the scores, and those of the head.
        """
        before = self.stem(x)
        last = before if self.second_stem is None else self.second_stem(before)
        second: Tensor | None = None
        for i, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if self.auxiliary is not None and self.training and i == self.head_after:
                second = self.auxiliary(last)
        scores: Tensor = self.classifier(self.pool(last).flatten(1))
        return scores if second is None else (scores, second)


def _cifar_stem(in_channels: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def _imagenet_stem(in_channels: int, channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )


def _auxiliary_head(channels: int, classes: int, small: bool) -> nn.Module:
    norm = [nn.BatchNorm2d(768)] if small else []  # the published ImageNet head has none here
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, stride=3 if small else 2, count_include_pad=False),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        *norm,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, classes),
    )
