"""A space around MobileNetV3 (Howard et al. 1905.02244): elastic depth, kernels and expansions in each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from torch import Tensor, nn

from nas import Repeat, ValueChoice, model_space
from nas.model_zoo.mobile_layers import Activation, InvertedResidual, conv_norm, round_channels


@final
@dataclass(frozen=True, kw_only=True)
class MobileStage:
    """Inverted residuals of one width; the first of them changes the resolution."""

    width: int
    """Channels that leave each block."""
    stride: int
    """Of the first block."""
    activation: Activation
    """Of all blocks."""
    squeeze_excite: bool
    """Whether the blocks have squeeze-and-excite layers, as published."""
    depth: tuple[int, int] = (2, 4)
    """Fewest and most blocks."""
    kernels: tuple[int, ...] = (3, 5, 7)
    """Candidates for each block."""
    expansions: tuple[float, ...] = (3, 4, 6)
    """Candidates for each block: channels inside, in units of the channels that enter."""


LARGE = (
    MobileStage(width=24, stride=2, activation=nn.ReLU, squeeze_excite=False),
    MobileStage(width=40, stride=2, activation=nn.ReLU, squeeze_excite=True),
    MobileStage(width=80, stride=2, activation=nn.Hardswish, squeeze_excite=False),
    MobileStage(width=112, stride=1, activation=nn.Hardswish, squeeze_excite=True),
    MobileStage(width=160, stride=2, activation=nn.Hardswish, squeeze_excite=True),
)
"""The stages of MobileNetV3-Large."""

_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=1e-2)
_STEM, _HEAD = 16, 1280


@model_space
class MobileNetV3Space(nn.Module):
    """The five stages of MobileNetV3-Large, each with 2 to 4 blocks of kernel 3, 5 or 7 and expansion 3, 4 or 6.

    (9^2 + 9^3 + 9^4)^5 = 21,758,655,492,572,485,851 architectures, those of Once-for-All (Cai et al. 1908.09791); with
    `search_squeeze_excite`, (18^2 + 18^3 + 18^4)^5. Differs from the paper in that all blocks of a stage choose from
    the same expansions: MobileNetV3-Large itself, whose third stage expands by 2.3 and 2.5 too, is a sample only where
    these are added to `expansions`. Differs from Once-for-All in its one input resolution and in sharing no weights.

    Args:
        stages: from input to output.
        search_squeeze_excite: whether each block chooses its squeeze-and-excite layer, instead of the published ones.
        channels: of the input images.
        classes: how many outputs.
        stem_stride: of the first convolution; 1 for small images. The others divide the resolution by 16.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(MobileNetV3Space, classes=10, stem_stride=1)
        >>> sample = space.complete({"stage1/depth": 3, "stage1/block3/kernel": 7})
        >>> [label for label in sample if label.startswith("stage1/block3")]
        ['stage1/block3/kernel', 'stage1/block3/expansion']
    """

    def __init__(
        self,
        stages: Sequence[MobileStage] = LARGE,
        *,
        search_squeeze_excite: bool = False,
        channels: int = 3,
        classes: int = 1000,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        self.stem = conv_norm(channels, _STEM, 3, stride=stem_stride, activation=nn.Hardswish, norm=_norm)
        self.first = InvertedResidual(_STEM, _STEM, hidden=_STEM, kernel=3, activation=nn.ReLU, norm=_norm)
        built, width = [], _STEM
        for number, stage in enumerate(stages, 1):
            built.append(mobile_stage(f"stage{number}", width, stage, search_squeeze_excite=search_squeeze_excite))
            width = stage.width
        self.stages = nn.Sequential(*built)
        self.last = conv_norm(width, 6 * width, activation=nn.Hardswish, norm=_norm)
        self.head = nn.Sequential(
            nn.Linear(6 * width, _HEAD), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(_HEAD, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to scores (batch, classes)."""
        y: Tensor = self.head(self.last(self.stages(self.first(self.stem(x)))).mean((2, 3)))
        return y


def mobile_stage(label: str, width: int, stage: MobileStage, *, search_squeeze_excite: bool = False) -> nn.Sequential:
    """The blocks of one stage; asks `label/depth`, and for each block its kernel, its expansion and perhaps more.

    Args:
        label: begins its labels.
        width: channels that enter it.
        stage: what it is made of.
        search_squeeze_excite: whether each block chooses its squeeze-and-excite layer.
    """

    def block(index: int) -> nn.Module:
        name, entering = f"{label}/block{index + 1}", width if index == 0 else stage.width
        kernel = ValueChoice(stage.kernels, label=f"{name}/kernel")
        expansion = ValueChoice(stage.expansions, label=f"{name}/expansion")
        gated = stage.squeeze_excite
        if search_squeeze_excite:
            gated = ValueChoice([False, True], label=f"{name}/squeeze_excite", default=gated)
        return InvertedResidual(
            entering,
            stage.width,
            hidden=round_channels(entering * expansion),
            kernel=kernel,
            stride=stage.stride if index == 0 else 1,
            squeeze_excite=gated,
            activation=stage.activation,
            norm=_norm,
        )

    return Repeat(block, stage.depth, label=f"{label}/depth")
