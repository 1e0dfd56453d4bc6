"""Buffers that a constructor computes from its answers, in both supernets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nas import LayerChoice, ModelSpace, NasValueError, ValueChoice
from nas.oneshot import PathSupernet, RelaxedSupernet

EXAMPLE = torch.randn(2, 5, 4)


class Adds(nn.Module):
    """Adds a buffer."""

    def __init__(self, width: int, table: Tensor, *, persistent: bool = True) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("table", table, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.get_buffer("table")[..., : self.width]


def positions(width: int) -> Tensor:
    """The sinusoids of Vaswani et al. 2017 (1706.03762): where the width is another, so is each wavelength."""
    angles = torch.arange(5)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def network(table: Callable[[int], Tensor], *, persistent: bool = True) -> ModelSpace:
    def build() -> nn.Module:
        width = ValueChoice([8, 16, 32], label="width")
        act = LayerChoice([nn.ReLU, nn.Tanh], label="act")
        return nn.Sequential(
            nn.Linear(4, width), act, Adds(width, table(width), persistent=persistent), nn.Linear(width, 2)
        )

    return ModelSpace(build)


def path(space: ModelSpace) -> object:
    return PathSupernet(space, example_input=(EXAMPLE,))


def relaxed(space: ModelSpace) -> object:
    return RelaxedSupernet(space)


@pytest.mark.parametrize("supernet", [path, relaxed])
@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("table", [positions, lambda width: torch.tensor([width**-0.5])], ids=["positions", "scale"])
def test_what_is_computed_from_a_width_is_refused(
    supernet: Callable[[ModelSpace], object], table: Callable[[int], Tensor], persistent: bool
) -> None:
    with pytest.raises(NasValueError, match=r"labels 'width': the buffer '2\.table' is computed.*in forward"):
        supernet(network(table, persistent=persistent))


@pytest.mark.parametrize("supernet", [path, relaxed])
@pytest.mark.parametrize(
    "table",
    [
        lambda width: torch.zeros(5, width),
        lambda width: torch.randn(5, width),
        lambda width: torch.arange(width),
        lambda width: torch.full((width,), torch.inf),
        lambda width: torch.full((5, 32), torch.nan),
    ],
    ids=["zeros", "random", "part", "infinite", "fixed"],
)
def test_what_is_a_part_of_the_largest_or_random_is_shared(
    supernet: Callable[[ModelSpace], object], table: Callable[[int], Tensor]
) -> None:
    supernet(network(table))
