"""The space around LeNet: its size, and that any architecture of it learns."""

import pytest
import torch

from nas import ModelSpace
from nas.model_zoo import LeNetSpace


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace(LeNetSpace)


def test_size(space: ModelSpace) -> None:
    assert space.size == 2 * (4**2 + 4**3) * (8 + 8**2 + 8**3) == 93_440


@pytest.mark.parametrize("seed", range(8))
def test_any_architecture_runs_forward_and_backward(space: ModelSpace, seed: int) -> None:
    sample = space.sample(seed)
    model = space.build(sample)
    scores = model(torch.randn(2, 3, 32, 32))
    assert scores.shape == (2, 10)
    scores.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert not any(isinstance(weight, torch.nn.UninitializedParameter) for weight in model.parameters())
    assert len(model.features) == sample["features"]
