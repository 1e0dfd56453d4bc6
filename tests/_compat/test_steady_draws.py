"""Draws without their chance."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.steady_draws import SteadyDraws


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: functional.dropout(torch.ones(n), 0.5),
        lambda n: functional.dropout1d(torch.ones(1, n, 2), 0.5).flatten(),
        lambda n: functional.alpha_dropout(torch.ones(n), 0.5, training=True),
        lambda n: torch.native_dropout(torch.ones(n), 0.5, True)[0],
        lambda n: torch.randn(n),
        lambda n: torch.rand(n),
        lambda n: torch.randn_like(torch.ones(n)),
        lambda n: torch.normal(torch.zeros(n), torch.ones(n)),
        lambda n: torch.bernoulli(torch.full((n,), 0.5)),
        lambda n: functional.gumbel_softmax(torch.zeros(2, n), dim=0).flatten(),
        lambda n: torch.distributions.Normal(0.0, 1.0).sample((n,)),
    ],
)
def test_a_draw_is_the_same_number_whatever_its_size(draw: object) -> None:
    assert callable(draw)
    with SteadyDraws():
        few, many = draw(3), draw(50)
    assert len(torch.cat([few, many]).unique()) == 1
    assert len(draw(50).unique()) > 1


def test_what_computes_beside_drawing_is_left_alone() -> None:
    x, network = torch.randn(2, 4, 8), nn.LSTM(8, 3)

    def attend(x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, x, x)

    with SteadyDraws():
        attended, remembered = attend(x), network(x)[0]
    assert torch.equal(attended, attend(x))
    assert torch.equal(remembered, network(x)[0])
