"""What the transformer spaces share: attention, the block around it, and the choices of a stack of blocks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nas import NasTypeError, NasValueError, Repeat, ValueChoice
from nas.calls import explained
from nas.checks import check_int, check_number
from nas.errors import explain


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 1706.03762); query, key and value are layers of their own.

    Args:
        width: channels in and out.
        heads: how many.
        head_width: channels of each head.
        causal: whether a position sees only itself and those before it.
    """

    def __init__(self, width: int, *, heads: int, head_width: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.head_width, self.causal = heads, head_width, causal
        self.query = nn.Linear(width, heads * head_width)
        self.key = nn.Linear(width, heads * head_width)
        self.value = nn.Linear(width, heads * head_width)
        self.output = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, width) to the same."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        z: Tensor = self.output(y.transpose(1, 2).flatten(2))
        return z


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each after a norm and with a way around.

    Args:
        width: channels in and out.
        hidden: channels inside the two-layer network.
        heads, head_width, causal: of the attention.
    """

    def __init__(self, width: int, *, hidden: int, heads: int, head_width: int, causal: bool = False) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads=heads, head_width=head_width, causal=causal)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, width) to the same."""
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.mlp(self.mlp_norm(x))
        return y


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class TransformerRanges:
    """What the choices of a transformer space may be.

    Raises:
        NasTypeError, NasValueError: no tuple, no candidates, or one that is no number above 0.
    """

    widths: tuple[int, ...]
    """Candidates for the channels that run through all blocks."""
    heads: tuple[int, ...]
    """Candidates for each block: how many attention heads."""
    mlp_ratios: tuple[float, ...]
    """Candidates for each block: channels inside the two-layer network, in units of the width."""
    depth: tuple[int, int]
    """Fewest and most blocks."""
    head_width: int = 64
    """Channels of each head."""

    def __post_init__(self) -> None:
        where = "TransformerRanges"
        for field in fields(self):
            given: object = getattr(self, field.name)
            if field.name == "head_width":
                checked: object = check_int(field.name, given, least=1, where=where)
            elif not isinstance(given, tuple | list) or not given:
                error = NasValueError if isinstance(given, tuple | list) else NasTypeError
                raise error(explain(f"{field.name} must be a tuple of numbers above 0", got=given, where=where))
            elif field.name == "mlp_ratios":
                checked = tuple(check_number(field.name, number, above=0, where=where) for number in given)
            else:
                checked = tuple(check_int(field.name, number, least=1, where=where) for number in given)
            object.__setattr__(self, field.name, checked)


def transformer_blocks(width: int, ranges: TransformerRanges, *, causal: bool = False) -> nn.Sequential:
    """The blocks; asks `depth`, and for each block `layer{i}/heads` and `layer{i}/mlp_ratio`.

    Args:
        width: channels that run through them.
        ranges: of the choices.
        causal: whether a position sees only itself and those before it.
    """

    def block(index: int) -> nn.Module:
        heads = ValueChoice(ranges.heads, label=f"layer{index + 1}/heads")
        ratio = ValueChoice(ranges.mlp_ratios, label=f"layer{index + 1}/mlp_ratio")
        hidden = round(width * ratio)
        return TransformerBlock(width, hidden=hidden, heads=heads, head_width=ranges.head_width, causal=causal)

    return Repeat(block, ranges.depth, label="depth")
