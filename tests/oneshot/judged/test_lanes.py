"""Lanes of a device keep what is judged in one apart from the others; what could be touched in several is noticed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.oneshot.judged import AT_ONCE, Aside, JudgedPasses, lanes_of

CPU = torch.device("cpu")
ELSEWHERE = torch.ones(3)


class Net(nn.Module):
    """Keeps tensors in all the ways that modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.history = nn.BatchNorm1d(3), {"losses": [torch.zeros(3)]}
        self.total = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        self.total = self.total + self.norm(copy.deepcopy(x)).sum(0)
        self.history["losses"].append(self.history["losses"][-1] + torch.tensor([1.0, 2.0, 3.0]))
        out: Tensor = self.total.clone()
        return out


def test_what_belongs_to_a_judgement_is_its_own() -> None:
    net, x = Net(), torch.randn(4, 3)
    with torch.inference_mode(), Aside(CPU, [net, [{"batch": x}]]) as aside:
        for _ in range(2):
            net(x)
    assert not aside.found


@pytest.mark.parametrize(
    "touch",
    [
        lambda x: x + ELSEWHERE,
        lambda x: ELSEWHERE.add_(0),
        lambda x: copy.deepcopy(ELSEWHERE),
        lambda x: torch.cat([x, ELSEWHERE[None]]),
        lambda x: ELSEWHERE.to_sparse() * 2,
    ],
)
def test_what_others_could_touch_is_noticed(touch: Callable[[Tensor], Any]) -> None:
    x = torch.randn(4, 3)
    with Aside(CPU, [x]) as aside:
        touch(x)
    assert aside.found


def test_tensors_of_another_device_are_no_matter() -> None:
    with Aside(torch.device("meta"), []) as aside:
        ELSEWHERE + 1
    assert not aside.found


def test_a_cpu_has_no_lanes() -> None:
    assert lanes_of(CPU) == []


def wide(seed: int, depth: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [layer for _ in range(depth) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 16, 3), *layers, nn.Flatten(), nn.LazyLinear(10)).eval()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_recordings_of_several_lanes_are_at_work_at_a_time() -> None:
    """Models of several sizes come and go in each lane, recorded while the others are at work."""
    device = torch.device("cuda", torch.cuda.current_device())
    batches = [torch.randn(32, 3, 18, 18, device=device) for _ in range(12)]
    lanes, found, expected = lanes_of(device), list[list[Tensor]](), list[list[Tensor]]()
    assert len(lanes) == AT_ONCE
    waiting: list[tuple[Any, JudgedPasses, list[Tensor]]] = []
    with torch.inference_mode():
        for number in range(3 * AT_ONCE):
            net = wide(number, depth=4 + 7 * number % 5)
            net(torch.zeros(1, 3, 18, 18))  # sizes the last layer
            net = net.to(device)
            expected.append([net(x) for x in batches])
            if len(waiting) == AT_ONCE:
                _, passes, outputs = waiting.pop(0)
                lanes[number % AT_ONCE].wait()
                found.append([out.clone() for out in outputs])
                passes.forget()
            lane = lanes[number % AT_ONCE]
            passes = JudgedPasses(net, lane.recorder)
            passes.expect(len(batches))
            with lane.work(), passes.instead():
                waiting.append((net, passes, [net(x) for x in batches]))
            assert (passes.reason, passes.replayed) == (None, len(batches) - 1)
        for number, (_, _, outputs) in enumerate(waiting):
            lanes[number].wait()
            found.append(outputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_recording_that_fails_leaves_its_lane_in_order() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    lane, *_ = lanes_of(device)
    x = torch.ones(4, device=device)
    with lane.work(), torch.inference_mode():
        _, replay = lane.recorder.record(lambda: x.add_(1))
        with pytest.raises(RuntimeError):
            lane.recorder.record(lambda: float(x.sum()))
        assert torch.cuda.current_stream(device) != torch.cuda.default_stream(device)
        replay()
        out, again = lane.recorder.record(lambda: x * 2)
        again()
    lane.wait()
    assert x.tolist() == [2] * 4
    assert out.tolist() == [4] * 4
