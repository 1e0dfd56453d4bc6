"""The ShuffleNetV2 space of single path one-shot search (Guo et al. 1904.00420): 20 blocks of four kinds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from nas import LayerChoice, NasValueError, ValueChoice, model_space
from nas.errors import explain
from nas.model_zoo.mobile_layers import conv_norm
from nas.space import Candidate

RATIOS = tuple(tenths / 10 for tenths in range(2, 21, 2))
"""Candidates for the hidden channels of a block, in units of half the channels that leave it."""

_STEM, _LAST = 16, 1024


class ShuffleUnit(nn.Module):
    """Half of the channels (with stride 2: all of them, filtered) pass by, the others through the branch.

    Args:
        branch: for (batch, entering channels, height, width), where half of the channels enter with stride 1, all
            with stride 2.
        passing: None with stride 1; with stride 2, what the others pass.
    """

    def __init__(self, branch: nn.Module, passing: nn.Module | None) -> None:
        super().__init__()
        self.branch, self.passing = branch, passing

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        if self.passing is not None:
            return torch.cat((self.passing(x), self.branch(x)), dim=1)
        # Taking every second channel shuffles what the unit before has concatenated.
        return torch.cat((x[:, ::2], self.branch(x[:, 1::2])), dim=1)


def shuffle_unit(
    in_channels: int, out_channels: int, *, hidden: int, stride: int, kernel: int, xception: bool = False
) -> ShuffleUnit:
    """One choice block: 1x1, depthwise, 1x1; or three depthwise-separable convolutions in a row ("xception").

    Args:
        in_channels: even with stride 1.
        out_channels: of both halves together; equal to in_channels with stride 1.
        hidden: channels inside the branch.
        stride: 1 or 2.
        kernel: of the depthwise convolutions.
        xception: which of the two.
    """
    entering = in_channels if stride == 2 else in_channels // 2
    leaving = out_channels - entering
    convolution = partial(conv_norm, activation=nn.ReLU)
    if xception:
        widths = (entering, hidden, hidden, leaving)
        layers = []
        for index, (before, after) in enumerate(pairwise(widths)):
            layers.append(conv_norm(before, before, kernel, stride=1 if index else stride, groups=before))
            layers.append(convolution(before, after))
    else:
        layers = [
            convolution(entering, hidden),
            conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden),
            convolution(hidden, leaving),
        ]
    passing = None
    if stride == 2:
        filtered = conv_norm(entering, entering, kernel, stride=2, groups=entering)
        passing = nn.Sequential(filtered, convolution(entering, entering))
    return ShuffleUnit(nn.Sequential(*layers), passing)


@model_space
class ShuffleNetV2Space(nn.Module):
    """20 blocks in four stages, each a shuffle unit of kernel 3, 5 or 7, or one with three convolutions ("xception").

    4^20 = 1,099,511,627,776 architectures; with `search_channels`, 40^20: each block then also chooses its hidden
    channels among ten ratios, 0.2 to 2.0 times the usual. Differs from the paper in searching blocks and channels at
    once where both are asked, and in a bias in the last layer.

    Args:
        widths: channels that leave each stage.
        blocks: how many blocks each stage has.
        search_channels: whether blocks choose their hidden channels.
        channels: of the input images.
        classes: how many outputs.
        stem_stride: of the first convolution; 1 for small images. Each stage halves the resolution.

    Raises:
        NasValueError: an odd width, a first stage that does not widen, or not one number of blocks for each width.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(ShuffleNetV2Space, widths=(64, 160), blocks=(2, 1), search_channels=True)
        >>> space.size == 40**3
        True
        >>> space.default()["block2/op"], space.default()["block2/ratio"]
        ('shuffle3', 1.0)
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 160, 320, 640),
        blocks: Sequence[int] = (4, 4, 8, 4),
        *,
        search_channels: bool = False,
        channels: int = 3,
        classes: int = 1000,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        _check(widths, blocks)
        self.stem = conv_norm(channels, _STEM, 3, stride=stem_stride, activation=nn.ReLU)
        built: list[nn.Module] = []
        entering = _STEM
        for width, count in zip(widths, blocks, strict=True):
            for index in range(count):
                label = f"block{len(built) + 1}"
                ratio = ValueChoice(RATIOS, label=f"{label}/ratio", default=1.0) if search_channels else 1.0
                stride = 2 if index == 0 else 1
                built.append(shuffle_op(f"{label}/op", entering, width, round(ratio * (width // 2)), stride))
                entering = width
        self.blocks = nn.Sequential(*built)
        self.last = conv_norm(entering, _LAST, activation=nn.ReLU)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(_LAST, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to scores (batch, classes)."""
        y: Tensor = self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))
        return y


def shuffle_op(label: str, in_channels: int, out_channels: int, hidden: int, stride: int) -> nn.Module:
    """One searched block: "shuffle3", "shuffle5", "shuffle7" or "xception"."""
    unit = partial(shuffle_unit, in_channels, out_channels, hidden=hidden, stride=stride)
    candidates: dict[str, Candidate] = {f"shuffle{kernel}": partial(unit, kernel=kernel) for kernel in (3, 5, 7)}
    candidates["xception"] = partial(unit, kernel=3, xception=True)
    return LayerChoice(candidates, label=label)


def _check(widths: Sequence[int], blocks: Sequence[int]) -> None:
    if len(widths) != len(blocks) or not widths:
        raise NasValueError(explain("each stage needs a width and a number of blocks", got=(widths, blocks)))
    odd = [width for width in widths if width % 2]
    if odd:
        raise NasValueError(explain("a unit halves its channels, so widths must be even", got=odd))
    if any(after <= before for before, after in pairwise((_STEM, *widths))):
        raise NasValueError(explain(f"each stage must be wider than the one before, from {_STEM} on", got=widths))
