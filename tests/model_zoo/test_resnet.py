"""The space around ResNet: its size, what each choice changes, and that the skip adds the input."""

import pytest
import torch

from nas import ModelSpace, NasValueError
from nas.model_zoo import ResNetSpace


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace(ResNetSpace, width=16)


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_size(space: ModelSpace) -> None:
    assert space.size == sum(2**cells for cells in range(2, 6)) * 2 * 2 == 240
    assert sum(1 for _ in space.grid()) == 240
    assert f"{space.size:,} architectures" in str(ResNetSpace.__doc__)


@pytest.mark.parametrize("cells", [2, 3, 4, 5])
def test_only_the_cells_that_stand_are_asked_about(space: ModelSpace, cells: int) -> None:
    sample = space.complete({"cells": cells})
    assert [label for label in sample if "skip" in label] == [f"cell{i}/skip" for i in range(1, cells + 1)]
    assert len(space.build(sample).cells) == cells


def test_more_cells_and_a_wider_head_have_more_parameters_while_a_skip_costs_nothing(space: ModelSpace) -> None:
    base = parameters(space.build(space.default()))
    assert base == parameters(space.build(space.default() | {"cell1/skip": 1}))
    assert base == parameters(space.build(space.default() | {"pool": 3}))
    assert base < parameters(space.build(space.complete({"cells": 3})))
    assert base < parameters(space.build(space.default() | {"hidden": 512}))


@pytest.mark.parametrize(("skip", "expected"), [(0, 2.0), (1, 0.0)])
def test_the_skip_adds_the_input(space: ModelSpace, skip: int, expected: float) -> None:
    cell = space.build(space.default() | {"cell1/skip": skip}).cells[0]
    for parameter in cell.parameters():
        torch.nn.init.zeros_(parameter)
    assert (cell(torch.full((1, 16, 4, 4), 2.0)) == expected).all()


def test_any_resolution_runs(space: ModelSpace) -> None:
    assert space.build(space.default())(torch.zeros(2, 3, 20, 27)).shape == (2, 10)


@pytest.mark.parametrize("width", [0, 2, 18])
def test_a_width_without_a_quarter_is_refused(width: int) -> None:
    with pytest.raises(NasValueError, match="multiple of 4"):
        ResNetSpace(width)
