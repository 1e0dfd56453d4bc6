"""The vision transformers of AutoFormer (Chen et al. 2107.00651): elastic width, depth, heads and MLP ratios."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas import NasValueError, ValueChoice, model_space
from nas.errors import explain
from nas.model_zoo.transformer_layers import TransformerRanges, transformer_blocks

TINY = TransformerRanges(widths=(192, 216, 240), heads=(3, 4), mlp_ratios=(3.5, 4), depth=(12, 14))
SMALL = TransformerRanges(widths=(320, 384, 448), heads=(5, 6, 7), mlp_ratios=(3, 3.5, 4), depth=(12, 14))
BASE = TransformerRanges(widths=(528, 576, 624), heads=(8, 9, 10), mlp_ratios=(3, 3.5, 4), depth=(14, 16))


@model_space
class VisionTransformerSpace(nn.Module):
    """Patches and a class token, a stack of blocks of one chosen width, and a head on the class token.

    3 x (4^12 + 4^13 + 4^14) = 1,056,964,608 architectures with TINY, 3 x (9^12 + 9^13 + 9^14) = 77,103,263,459,313 with
    SMALL and 3 x (9^14 + 9^15 + 9^16) = 6,245,364,340,204,353 with BASE, the supernets of the paper's table. Each head
    has 64 channels, so that their number settles the Q-K-V dimension. DeiT-Ti (Touvron et al. 2012.12877) is a sample
    of TINY: width 192, 12 blocks of 3 heads and ratio 4. Differs from the paper in having no relative position
    encoding, and neither dropout nor stochastic depth; TINY, SMALL and BASE share no weights.

    Args:
        ranges: of the choices: TINY, SMALL, BASE or your own.
        image_size: height and width of the images.
        patch_size: height and width of a patch; divides the image size.
        channels: of the images.
        classes: how many outputs.

    Raises:
        NasValueError: the patches do not fill the image.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(VisionTransformerSpace, SMALL, image_size=32, patch_size=4, classes=10)
        >>> space.size == 3 * (9**12 + 9**13 + 9**14)
        True
        >>> space.complete({"depth": 13})["layer13/heads"]
        5
    """

    def __init__(
        self,
        ranges: TransformerRanges = TINY,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        channels: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        if image_size < patch_size or image_size % patch_size:
            raise NasValueError(
                explain(
                    "patches must fill the image",
                    got=f"image_size={image_size}, patch_size={patch_size}",
                    mend="make the image size a multiple of the patch size",
                )
            )
        width = ValueChoice(ranges.widths, label="width")
        self.patches = nn.Conv2d(channels, width, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + (image_size // patch_size) ** 2, width))
        self.blocks = transformer_blocks(width, ranges)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        for parameter in (self.class_token, self.positions):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, image_size, image_size) to scores (batch, classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(x.shape[0], -1, -1), tokens), dim=1)
        y: Tensor = self.head(self.norm(self.blocks(tokens + self.positions))[:, 0])
        return y
