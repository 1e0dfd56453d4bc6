"""Torch's attention with any number of heads computes what torch's own does, however it is called."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.compress.dependencies import ThinAttention, with_thin_attention

Q, K = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
CAUSAL = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
PADDING = torch.tensor([[False] * 5, [False, False, True, True, True]])


@pytest.mark.parametrize(
    ("inputs", "kwargs"),
    [
        ((Q, K, K), {}),
        ((Q, K, K), {"need_weights": False}),
        ((Q, K, K), {"average_attn_weights": False}),
        ((Q, K, K), {"key_padding_mask": PADDING}),
        ((Q, K, K), {"key_padding_mask": PADDING, "need_weights": False, "attn_mask": torch.randn(3, 5)}),
        ((Q, Q, Q), {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}),
        ((Q, K, K), {"attn_mask": torch.randn(4, 3, 5)}),
        ((Q[0], K[0], K[0]), {}),
        ((Q[0], K[0], K[0]), {"key_padding_mask": PADDING[1], "need_weights": False}),
    ],
)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_it_computes_what_torch_does(
    inputs: tuple[Tensor, ...], kwargs: dict[str, Any], batch_first: bool, bias: bool
) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=bias).eval()
    thin = ThinAttention(copy.deepcopy(attention))
    if not batch_first and inputs[0].dim() == 3:
        inputs = tuple(x.transpose(0, 1) for x in inputs)
    found, shares = thin(*inputs, **kwargs)
    expected, weights = attention(*inputs, **kwargs)
    torch.testing.assert_close(found, expected)
    assert (shares is None) == (weights is None)
    if shares is not None:
        torch.testing.assert_close(shares, weights)


def test_a_hint_without_a_mask_is_refused_as_by_torch() -> None:
    thin = ThinAttention(nn.MultiheadAttention(8, 2))
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        thin(Q, Q, Q, is_causal=True)


def test_it_has_the_parameters_of_the_one_whose_place_it_takes() -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    state, x = net.state_dict(), torch.randn(2, 3, 8)
    twin = with_thin_attention(copy.deepcopy(net))
    assert sum(isinstance(module, ThinAttention) for module in twin.modules()) == 2
    twin.load_state_dict(state)
    with torch.no_grad():  # torch computes for its own attention by a kernel then
        torch.testing.assert_close(twin(x), net(x))


def test_attention_of_another_kind_stays() -> None:
    net = nn.ModuleList([nn.MultiheadAttention(8, 2, kdim=4), nn.MultiheadAttention(8, 2, add_bias_kv=True)])
    assert not any(isinstance(module, ThinAttention) for module in with_thin_attention(net).modules())
