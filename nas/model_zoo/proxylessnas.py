"""The ImageNet space of ProxylessNAS (Cai et al. 1812.00332): 21 blocks that are an MBConv of six kinds, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from nas import LayerChoice, NasValueError, model_space
from nas.errors import explain
from nas.model_zoo.mobile_layers import InvertedResidual, conv_norm
from nas.space import Candidate

_STRIDES = (2, 2, 2, 1, 2, 1)
_STEM, _FIRST, _LAST = 32, 16, 1280


@model_space
class ProxylessNASSpace(nn.Module):
    """21 blocks in six stages: MBConv of kernel 3, 5 or 7 and expansion 3 or 6, or, where shapes allow, a skip.

    6^6 x 7^15 = 221,502,229,807,900,608 architectures: the first block of a stage changes shape, so only the 15 others
    may be skipped. Differs from the paper in the order of the candidates and in its batch norms, which are torch's
    default; the paper's latency model and its way to search belong elsewhere.

    Args:
        widths: channels that leave each of the six stages.
        blocks: how many blocks each stage has at most.
        channels: of the input images.
        classes: how many outputs.
        stem_stride: of the first convolution; 1 for small images. The others divide the resolution by 16.

    Raises:
        NasValueError: not six stages.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(ProxylessNASSpace, blocks=(2, 1, 1, 1, 1, 1))
        >>> space.size == 6**6 * 7
        True
        >>> list(space.search_space.domains["stage1/block2/op"].values())[-2:]
        ['mbconv6_kernel7', 'skip']
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 40, 80, 96, 192, 320),
        blocks: Sequence[int] = (4, 4, 4, 4, 4, 1),
        *,
        channels: int = 3,
        classes: int = 1000,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        if len(widths) != len(_STRIDES) or len(blocks) != len(_STRIDES):
            raise NasValueError(
                explain("widths and blocks must have an entry for each of six stages", got=(widths, blocks))
            )
        self.stem = conv_norm(channels, _STEM, 3, stride=stem_stride, activation=nn.ReLU6)
        self.first = InvertedResidual(_STEM, _FIRST, hidden=_STEM, kernel=3)
        built, entering = [], _FIRST
        for number, (width, count, stride) in enumerate(zip(widths, blocks, _STRIDES, strict=True), 1):
            for index in range(count):
                label = f"stage{number}/block{index + 1}/op"
                built.append(mobile_op(label, entering, width, stride if index == 0 else 1))
                entering = width
        self.blocks = nn.Sequential(*built)
        self.last = conv_norm(entering, _LAST, activation=nn.ReLU6)
        self.head = nn.Linear(_LAST, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to scores (batch, classes)."""
        y: Tensor = self.head(self.last(self.blocks(self.first(self.stem(x)))).mean((2, 3)))
        return y


def mobile_op(label: str, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """One searched block: "mbconv3_kernel3" to "mbconv6_kernel7", and "skip" where it changes no shape."""
    candidates: dict[str, Candidate] = {
        f"mbconv{expansion}_kernel{kernel}": partial(
            InvertedResidual, in_channels, out_channels, hidden=expansion * in_channels, kernel=kernel, stride=stride
        )
        for expansion in (3, 6)
        for kernel in (3, 5, 7)
    }
    if stride == 1 and in_channels == out_channels:
        candidates["skip"] = nn.Identity
    return LayerChoice(candidates, label=label)
