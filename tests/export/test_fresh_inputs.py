"""Inputs like an example: other values of the same kind, within what the example shows to be allowed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.export.fresh_inputs import RECIPES, Recipe, resized

WIDE, NARROW, FLOATS, NUDGED, KEPT = RECIPES


def drawn(recipe: Recipe, tensor: Tensor, *shape: int) -> Tensor:
    return recipe(tensor, list(shape or tensor.shape), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_numbers_lie_between_those_of_the_example_and_are_others(dtype: torch.dtype) -> None:
    example = torch.rand(2, 50).to(dtype) + 1
    found = drawn(WIDE, example, 3, 50)
    assert found.dtype == dtype
    assert found.shape == (3, 50)
    assert example.min() <= found.min() <= found.max() <= example.max()
    assert not torch.isin(found[0], example).all() or dtype.itemsize == 2


@pytest.mark.parametrize("value", [0.0, 1.0, -1000.0])
def test_a_constant_example_gives_numbers_of_its_size(value: float) -> None:
    wide, narrow = drawn(WIDE, torch.full((4, 100), value)), drawn(NARROW, torch.full((4, 100), value))
    assert wide.unique().numel() > 100
    assert wide.min() < value < wide.max()
    assert narrow.min() >= value
    assert narrow.max() <= value + max(abs(value), 1)


def test_integers_are_those_that_the_example_has() -> None:
    example = torch.tensor([[3, 9, 9], [12, 3, 7]])
    found = drawn(WIDE, example, 5, 30)
    assert found.dtype == example.dtype
    assert set(found.unique().tolist()) <= {3, 7, 9, 12}
    assert drawn(WIDE, torch.zeros(2, 100, dtype=torch.long)).max() > 9
    assert drawn(NARROW, torch.zeros(2, 100, dtype=torch.long)).unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    "mask", [torch.ones(4, 50, dtype=torch.long), torch.ones(4, 50).bool(), torch.zeros(4, 50).bool()]
)
def test_no_row_of_a_mask_loses_everything(mask: Tensor) -> None:
    found = drawn(WIDE, mask)
    assert found.dtype == mask.dtype
    assert torch.equal(found[:, 0], mask[:, 0])
    assert found.long().unique().tolist() == [0, 1]


def test_masks_with_infinities_keep_their_two_values() -> None:
    example = torch.tensor([0.0, -torch.inf]).repeat(20)
    assert drawn(WIDE, example).unique().tolist() == [-torch.inf, 0.0]


def test_the_last_recipes_leave_integers_alone_and_then_everything() -> None:
    edges, nodes = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.randn(3, 4)
    assert torch.equal(drawn(FLOATS, edges), edges)
    assert not torch.equal(drawn(FLOATS, nodes), nodes)
    assert torch.equal(drawn(NUDGED, edges), edges)
    assert 0 < (drawn(NUDGED, nodes) / nodes - 1).abs().max() < 0.1
    assert torch.equal(drawn(KEPT, nodes), nodes)


def test_resized_cuts_and_repeats() -> None:
    example = torch.arange(6).reshape(2, 3)
    assert resized(example, [3, 2]).tolist() == [[0, 1], [3, 4], [0, 1]]
    assert resized(example, [2, 3]).data_ptr() != example.data_ptr()
    assert resized(torch.tensor(3.0), []).item() == 3.0
