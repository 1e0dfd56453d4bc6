"""Torch's attention with any number of heads: in its own, the heads together are always as wide as what they read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.torch_internals import shun_fast_path
from nas.space import replace_module


class ThinAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads keep their width when there are fewer of them, or fewer channels to read.

    It has the same parameters under the same names, computes the same, and is called in the same way.

    Args:
        attention: whose parameters, hooks and settings it takes over; one with a common projection of queries, keys and
            values.

    Example:
        >>> attention = nn.MultiheadAttention(8, 2, batch_first=True)
        >>> x = torch.rand(1, 3, 8)
        >>> torch.allclose(ThinAttention(attention)(x, x, x)[0], attention(x, x, x)[0], atol=1e-6)
        True
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(attention))
        shun_fast_path(self)

    def fits(self) -> None:
        """Lets its numbers say what its tensors are."""
        self.num_heads = self.in_proj_weight.shape[0] // 3 // self.head_dim
        self.embed_dim = self.kdim = self.vdim = self.in_proj_weight.shape[1]
        self.out_proj.out_features, self.out_proj.in_features = self.out_proj.weight.shape

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`.

        Args:
            query, key, value: "(batch, tokens, channels)", "(tokens, batch, channels)" without `batch_first`, or
                "(tokens, channels)".
            key_padding_mask: true for keys that are no tokens.
            need_weights: whether the second result is wanted.
            attn_mask: true for pairs that do not meet, or what is added.
            average_attn_weights: whether the weights are the mean of all heads.
            is_causal: says that `attn_mask` is causal.

        Returns:
            What was attended to, and the weights or None.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        single = query.dim() == 2
        inputs = [query, key, value]
        if single:
            inputs = [x.unsqueeze(0) for x in inputs]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        weights = self.in_proj_weight.chunk(3)
        biases = [None, None, None] if self.in_proj_bias is None else list(self.in_proj_bias.chunk(3))
        q, k, v = (
            functional.linear(x, w, b).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for x, w, b in zip(inputs, weights, biases, strict=True)
        )
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        shares = None
        if need_weights:
            scores = (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)
            shares = functional.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            found = shares @ v
        else:
            found = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        found = functional.linear(found.transpose(1, 2).flatten(-2), self.out_proj.weight, self.out_proj.bias)
        if shares is not None and average_attn_weights:
            shares = shares.mean(1)
        if single:
            return found.squeeze(0), None if shares is None else shares.squeeze(0)
        return (found if self.batch_first else found.transpose(0, 1)), shares

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks as what is added to the scores: "(batch, heads, queries, keys)", or what broadcasts to it."""
        added = None
        if mask is not None:
            added = _as_added(mask, q)
            if added.dim() == 3:
                added = added.reshape(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        if padding is not None:
            hidden = _as_added(padding, q)[:, None, None, :]
            added = hidden if added is None else added + hidden
        return added


def _as_added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


def with_thin_attention(model: nn.Module) -> nn.Module:
    """Puts attentions that can have any number of heads in the places of torch's.

    Args:
        model: a copy, changed in place.

    Returns:
        The model; what takes its place where it is such an attention itself.
    """
    for path, module in list(model.named_modules()):
        if type(module) is nn.MultiheadAttention and _has_common_projection(module):
            model = replace_module(model, path, ThinAttention(module))
    return model


def _has_common_projection(attention: nn.MultiheadAttention) -> bool:
    plain = attention.bias_k is None and attention.bias_v is None and not attention.add_zero_attn
    return plain and attention.in_proj_weight is not None
