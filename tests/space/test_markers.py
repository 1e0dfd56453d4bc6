"""Markers of layers: no connection, and skip connections."""

import pytest
import torch
from torch import nn

from nas import Skip, Zero
from nas.space.markers import is_skip, is_zero


@pytest.mark.parametrize("sides", [(), (6,), (6, 5), (6, 5, 4)])
def test_zeros_have_the_shape_of_a_stride(sides: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *sides)
    for stride in (1, 2):
        found = Zero(stride)(x)
        assert found.shape == (2, 3, *((side + stride - 1) // stride for side in sides))
        assert not found.any()


def test_markers_are_classes_and_not_names() -> None:
    named = type("Zero", (nn.Linear,), {})(2, 2), type("Identity", (nn.Linear,), {})(2, 2)
    assert not any(is_zero(module) or is_skip(module) for module in named)
    assert is_zero(type("Cut", (Zero,), {})())
    assert is_skip(type("Shortcut", (Skip,), {})())
    assert is_skip(nn.Identity())
    x = torch.randn(2)
    assert Skip()(x) is x
