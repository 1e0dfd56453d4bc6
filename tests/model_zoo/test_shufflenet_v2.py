"""The ShuffleNetV2 space: its size, the shapes of its units, the shuffle, and what each choice changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import ModelSpace, NasValueError, Sample
from nas.model_zoo import ShuffleNetV2Space
from nas.model_zoo.shufflenet_v2 import RATIOS, ShuffleUnit, shuffle_unit

SPACE = ModelSpace(ShuffleNetV2Space, classes=10, stem_stride=1)
SMALL = ModelSpace(ShuffleNetV2Space, (32, 64), (2, 2), search_channels=True, classes=10)


def parameters(space: ModelSpace, sample: Sample) -> int:
    return sum(parameter.numel() for parameter in space.build(sample, device="meta").parameters())


def test_size() -> None:
    assert ModelSpace(ShuffleNetV2Space).size == 4**20
    assert f"{SPACE.size:,} architectures" in str(ShuffleNetV2Space.__doc__)
    assert ModelSpace(ShuffleNetV2Space, search_channels=True).size == (4 * 10) ** 20
    assert RATIOS == (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


def test_the_stages_are_those_of_the_paper() -> None:
    model = ModelSpace(ShuffleNetV2Space).build(SPACE.default(), device="meta")
    x = model.stem(torch.empty(1, 3, 224, 224, device="meta"))
    shapes = []
    for block in model.blocks:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 56, 56)] * 4 + [(160, 28, 28)] * 4 + [(320, 14, 14)] * 8 + [(640, 7, 7)] * 4
    assert model.last(x).shape == (1, 1024, 7, 7)


def test_half_of_the_channels_pass_a_unit_unchanged() -> None:
    unit = shuffle_unit(8, 8, hidden=4, stride=1, kernel=3)
    x = torch.rand(1, 8, 4, 4)
    y = unit(x)
    assert y.shape == x.shape
    assert torch.equal(y[:, :4], x[:, [0, 2, 4, 6]])
    torch.testing.assert_close(ShuffleUnit(torch.nn.Identity(), None)(x)[:, 4:], x[:, [1, 3, 5, 7]])


def by_hand(inside: int, hidden: int, out: int, kernel: int) -> int:
    """Weights of 1x1, depthwise and 1x1 convolutions, and two for each channel of a norm."""
    return inside * hidden + kernel**2 * hidden + hidden * out + 2 * (hidden + hidden + out)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_parameters_of_a_unit(kernel: int) -> None:
    unit = shuffle_unit(64, 64, hidden=20, stride=1, kernel=kernel)
    assert sum(parameter.numel() for parameter in unit.parameters()) == by_hand(32, 20, 32, kernel)
    halving = shuffle_unit(16, 64, hidden=32, stride=2, kernel=kernel)
    passing = kernel**2 * 16 + 16 * 16 + 2 * (16 + 16)
    assert sum(parameter.numel() for parameter in halving.parameters()) == by_hand(16, 32, 48, kernel) + passing


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), block=st.integers(1, 4))
def test_larger_kernels_and_ratios_have_more_parameters(seed: int, block: int) -> None:
    sample = SMALL.sample(seed)
    ops = [parameters(SMALL, sample | {f"block{block}/op": f"shuffle{kernel}"}) for kernel in (3, 5, 7)]
    ratios = [parameters(SMALL, sample | {f"block{block}/ratio": ratio}) for ratio in RATIOS]
    assert ops == sorted(set(ops))
    assert ratios == sorted(set(ratios))


def test_the_channel_search_begins_at_the_usual_width() -> None:
    plain = ModelSpace(ShuffleNetV2Space, (32, 64), (2, 2), classes=10)
    assert parameters(SMALL, SMALL.default()) == parameters(plain, plain.default())
    scores = SMALL.build(SMALL.sample(0))(torch.rand(2, 3, 16, 16))
    assert scores.shape == (2, 10)


@pytest.mark.parametrize(
    ("widths", "blocks", "message"),
    [
        ((64,), (4, 4), "a width and a number of blocks"),
        ((33, 64), (1, 1), "widths must be even"),
        ((64, 64), (1, 1), "wider than the one before"),
        ((16, 64), (1, 1), "wider than the one before"),
    ],
)
def test_impossible_stages_are_refused(widths: tuple[int, ...], blocks: tuple[int, ...], message: str) -> None:
    with pytest.raises(NasValueError, match=message):
        ShuffleNetV2Space(widths, blocks)
