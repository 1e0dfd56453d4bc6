"""A small decoder-only language model (Radford et al. 2018) of elastic width, depth, heads and feed-forward size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas import NasValueError, ValueChoice, model_space
from nas.errors import explain
from nas.model_zoo.transformer_layers import TransformerRanges, transformer_blocks

CHARACTERS = TransformerRanges(widths=(64, 96, 128), heads=(2, 4, 6), mlp_ratios=(1, 2, 4), depth=(1, 4), head_width=16)
"""For characters or bytes, and minutes on a CPU."""


@model_space
class TransformerLMSpace(nn.Module):
    """Embedded tokens and positions, a stack of causal blocks, and scores for the next token at each position.

    3 x (9 + 9^2 + 9^3 + 9^4) = 22,140 architectures with CHARACTERS. The elastic dimensions are those of HAT (Wang et
    al. 2005.14187), which searches translation: this one has no encoder, learns its positions, and norms each layer's
    input.

    Args:
        ranges: of the choices.
        vocabulary: how many different tokens there are.
        context: the longest text it can read, in tokens.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(TransformerLMSpace, vocabulary=100, context=32)
        >>> space.size
        22140
        >>> space.build(space.default())(torch.zeros(2, 20, dtype=torch.long)).shape
        torch.Size([2, 20, 100])
    """

    def __init__(self, ranges: TransformerRanges = CHARACTERS, *, vocabulary: int = 256, context: int = 128) -> None:
        super().__init__()
        width = ValueChoice(ranges.widths, label="width")
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(1, context, width))
        self.blocks = transformer_blocks(width, ranges, causal=True)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (batch, length) to scores of the next ones (batch, length, vocabulary).

        Raises:
            NasValueError: a text longer than the context.
        """
        length, context = x.shape[1], self.positions.shape[1]
        if length > context:
            raise NasValueError(
                explain(f"this model reads at most {context} tokens", got=length, where="the length of the text")
            )
        y: Tensor = self.head(self.norm(self.blocks(self.tokens(x) + self.positions[:, :length])))
        return y
