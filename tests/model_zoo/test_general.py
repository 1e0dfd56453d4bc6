"""The general space: its size, which cells read which, and that nothing built stays untrained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import ModelSpace
from nas.model_zoo import General

SPACE = ModelSpace(General, width=8, classes=4, stem_stride=1)
IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OPERATIONS = ("conv1x1", "conv3x3", "separable3x3", "separable5x5", "max_pool3x3", "average_pool3x3")


def test_size() -> None:
    assert ModelSpace(General).size == 6**6 * 2 ** sum(range(6)) == 1_528_823_808
    assert f"{SPACE.size:,} " in str(General.__doc__)


@pytest.mark.parametrize("op", OPERATIONS)
def test_each_operation_keeps_the_shape(op: str) -> None:
    model = SPACE.build(SPACE.complete({"cell1/op": op}))
    assert model.ops[0](torch.rand(2, 8, 8, 8)).shape == (2, 8, 8, 8)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_a_cell_reads_the_chosen_cells_alone(seed: int) -> None:
    sample = SPACE.sample(seed)
    model = SPACE.build(sample).eval()
    outputs: list[torch.Tensor] = []
    read: list[torch.Tensor] = []
    for op in model.ops:
        op.register_forward_pre_hook(lambda _, x: read.append(x[0]))
        op.register_forward_hook(lambda _, x, y: outputs.append(y))
    with torch.no_grad():
        stem = model.stem(IMAGES)
        model(IMAGES)
    for cell in range(6):
        subset = sample[f"cell{cell + 1}/inputs"] if cell else []
        expected = torch.stack([outputs[i] for i in subset]).mean(0) if subset else stem
        torch.testing.assert_close(read[cell], expected)


def test_cells_that_no_other_reads_still_learn() -> None:
    model = SPACE.build(SPACE.complete({f"cell{i}/inputs": [] for i in range(2, 7)}))
    model(IMAGES).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.head.parameters())
    assert all(parameter.grad is not None for parameter in model.ops.parameters())


def test_larger_kernels_have_more_parameters() -> None:
    counts = [
        sum(p.numel() for p in SPACE.build(SPACE.complete({"cell1/op": op}), device="meta").parameters())
        for op in ("max_pool3x3", "conv1x1", "separable3x3", "separable5x5", "conv3x3")
    ]
    assert counts == sorted(set(counts))
