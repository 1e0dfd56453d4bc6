"""Batch statistics of passes that are recorded and replayed, and what is known of validation by them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.oneshot.training.judging import JudgedPasses
from nas.oneshot.training.measures import recalibrate
from tests.oneshot.conftest import TapeRecorder


class Net(nn.Module):
    """A convolution, a batch norm, and what a test adds."""

    def __init__(self, more: Callable[[Any, Tensor], Any] = lambda net, x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.spare = nn.BatchNorm2d(4)
        self.seen: list[int] = []
        self.notes: dict[str, list[int]] = {"calls": []}
        self.calls = 0
        self.more = more

    def forward(self, x: Tensor) -> Any:
        return self.more(self, self.drop(torch.relu(self.norm(self.layer(x)))))


def batches(number: int, size: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(size)
    return [torch.randn(size, 3, 5, 5, generator=generator) for _ in range(number)]


def statistics(model: nn.Module, several: list[Tensor], passes: JudgedPasses | None) -> dict[str, Tensor]:
    if passes is not None:
        passes.expect(len(several))
    with nullcontext() if passes is None else passes.instead():
        recalibrate(model, several, model, alike=passes is not None)
    return model.state_dict()


@pytest.mark.parametrize("sizes", [[2] * 9, [2, 2, 2, 2, 2, 2, 2, 1], [3]])
def test_batch_statistics_of_replayed_passes(sizes: list[int]) -> None:
    several = [batch for number, size in enumerate(sizes) for batch in batches(number + 1, size)[number:]]
    expected = statistics(Net(), several, None)
    net = Net()
    passes = JudgedPasses(net, TapeRecorder())
    torch.testing.assert_close(statistics(net, several, passes), expected, rtol=1e-6, atol=1e-6)
    assert passes.replayed == max(sizes.count(2) - 1, 0)
    assert net.norm.momentum == 0.1
    assert net.norm.num_batches_tracked == len(sizes)
    assert net.spare.num_batches_tracked == 0


def test_batch_statistics_of_a_layer_that_stands_twice_are_counted() -> None:
    def twice(net: Any, x: Tensor) -> Any:
        return net.norm(x)

    expected = statistics(Net(twice), batches(9), None)
    net = Net(twice)
    passes = JudgedPasses(net, TapeRecorder())
    torch.testing.assert_close(statistics(net, batches(9), passes), expected, rtol=0, atol=0)
    assert net.norm.num_batches_tracked == 18


def test_a_setting_between_them_is_watched_again() -> None:
    net = Net(lambda net, x: nn.functional.dropout(x, 0.5, training=net.calls > 0)).eval()
    passes = JudgedPasses(net, TapeRecorder())
    passes.expect(9)
    with torch.inference_mode(), passes.instead():
        recalibrate(net, batches(9), net, alike=True)
        assert passes.replayed == 8
        net.calls = 1
        first, second = (net(x) for x in (batches(1)[0], batches(1)[0]))
    assert not torch.equal(first, second)
    assert "draws random numbers" in (passes.reason or "")
