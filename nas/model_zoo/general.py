"""A general space: six cells, each one of six operations on any of the earlier cells' outputs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nas import InputChoice, LayerChoice, model_space
from nas.model_zoo.mobile_layers import conv_norm
from nas.space import Candidate

_CELLS = 6


def general_op(width: int, *, label: str) -> nn.Module:
    """Convolutions of two kernels, separable convolutions of two kernels, and two poolings; all keep the shape."""
    convolution = partial(conv_norm, width, width, activation=nn.ReLU)
    candidates: dict[str, Candidate] = {
        "conv1x1": partial(convolution, 1),
        "conv3x3": partial(convolution, 3),
        "separable3x3": lambda: nn.Sequential(conv_norm(width, width, 3, groups=width), convolution(1)),
        "separable5x5": lambda: nn.Sequential(conv_norm(width, width, 5, groups=width), convolution(1)),
        "max_pool3x3": partial(nn.MaxPool2d, 3, stride=1, padding=1),
        "average_pool3x3": partial(nn.AvgPool2d, 3, stride=1, padding=1, count_include_pad=False),
    }
    return LayerChoice(candidates, label=label)


@model_space
class General(nn.Module):
    """Six cells, each one of six operations on the mean of any subset of the earlier cells' outputs.

    1,528,823,808 = 6^6 x 2^15 architectures: cell i chooses among 6 operations and 2^(i - 1) subsets. It follows no
    paper. The first cell, and each with an empty subset, takes what the stem yields. The head takes the mean of all six
    outputs, read by other cells or not, so that whatever is built also learns.

    Args:
        width: channels of every cell.
        channels: of the input images.
        classes: how many outputs.
        stem_stride: of the stem's convolution, which alone changes the resolution; 4 for images of 224.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(General, width=16, stem_stride=1)
        >>> space.size
        1528823808
        >>> space.complete({"cell1/op": "conv3x3", "cell2/inputs": [0]})["cell2/op"]
        'conv1x1'
    """

    def __init__(self, width: int = 64, *, channels: int = 3, classes: int = 1000, stem_stride: int = 4) -> None:
        super().__init__()
        self.stem = conv_norm(channels, width, 3, stride=stem_stride, activation=nn.ReLU)
        self.ops = nn.ModuleList(general_op(width, label=f"cell{i}/op") for i in range(1, _CELLS + 1))
        # Of the cells after the first: which earlier outputs each takes.
        self.inputs = nn.ModuleList(
            InputChoice(i, None, reduction="mean", label=f"cell{i + 1}/inputs") for i in range(1, _CELLS)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to scores (batch, classes)."""
        stem = self.stem(x)
        outputs = [self.ops[0](stem)]
        for op, inputs in zip(list(self.ops)[1:], self.inputs, strict=True):
            chosen = inputs(outputs)
            outputs.append(op(stem if chosen is None else chosen))
        y: Tensor = self.head(torch.stack(outputs).mean((0, 3, 4)))
        return y
