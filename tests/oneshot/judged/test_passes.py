"""What is replayed while a model is judged is what it computes; where that is not sure, it runs as it is."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.oneshot.judged.passes import JudgedPasses, calls_are_watched, recorder_of
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


def outputs(model: nn.Module, several: list[Tensor], passes: JudgedPasses | None = None) -> list[Any]:
    if passes is not None:
        passes.expect(len(several))
    with torch.inference_mode(), nullcontext() if passes is None else passes.instead():
        return [model(x.clone()) for x in several]


def test_passes_are_recorded_at_the_second_one_and_the_same() -> None:
    net = Net().eval()
    expected = outputs(net, batches(9))
    passes = JudgedPasses(net, TapeRecorder())
    found = outputs(net, batches(9), passes)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert (passes.replayed, passes.reason) == (8, None)
    assert "forward" not in vars(net)


def test_other_shapes_are_other_passes() -> None:
    several = [*batches(3), *batches(3, size=1), *batches(2), *batches(1, size=5)]
    assert len(several) == 9
    net = Net().eval()
    expected = outputs(net, several)
    passes = JudgedPasses(net, TapeRecorder())
    torch.testing.assert_close(outputs(net, several, passes), expected, rtol=0, atol=0)
    assert passes.replayed == 2 + 2 + 2


def test_what_was_yielded_stays_as_it_is() -> None:
    net = Net(lambda net, x: {"pair": (x, x.mean()), "number": 3}).eval()
    passes = JudgedPasses(net, TapeRecorder())
    found = outputs(net, batches(8), passes)
    assert passes.replayed == 7
    torch.testing.assert_close(found, outputs(net, batches(8)), rtol=0, atol=0)


def test_a_few_passes_and_those_with_gradients_run_as_they_are() -> None:
    net = Net().eval()
    passes = JudgedPasses(net, TapeRecorder())
    outputs(net, batches(3), passes)
    passes.expect(9)
    with passes.instead():
        for x in batches(9):
            net(x).sum().backward()
    assert passes.replayed == 0
    assert net.layer.weight.grad is not None


def counts(net: Any, x: Tensor) -> Tensor:
    net.calls += 1
    return x * net.calls


def remembers(net: Any, x: Tensor) -> Tensor:
    net.seen.append(1)
    return x


def remembers_deeply(net: Any, x: Tensor) -> Tensor:
    net.notes["calls"].append(1)
    return x


def assigns(net: Any, x: Tensor) -> Tensor:
    net.norm.running_mean = net.norm.running_mean + 1
    return x


FAR = torch.ones(())

REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "dropout in evaluation": (lambda net, x: nn.functional.dropout(x, 0.5, training=True), "draws random numbers"),
    "noise": (lambda net, x: x + torch.randn_like(x), "draws random numbers"),
    "a generator of its own": (
        lambda net, x: x + torch.rand(x.shape, generator=torch.Generator().manual_seed(net.calls)),
        "draws random numbers",
    ),
    "depth by chance": (lambda net, x: x if random.random() < 0.5 else 2 * x, "draws random numbers"),
    "a look at the numbers": (lambda net, x: x if x.sum() > 0 else -x, "looks at what it has computed"),
    "numbers that decide the shape": (lambda net, x: x[x > 0], "looks at what it has computed"),
    "a counter": (counts, "keeps something"),
    "a list": (remembers, "keeps something"),
    "a list in a dict": (remembers_deeply, "keeps something"),
    "a buffer that is replaced": (assigns, "keeps something"),
    "a tensor from elsewhere": (lambda net, x: x * FAR, "no parameter or buffer"),
    "a parameter handed out": (lambda net, x: (x, net.layer.weight), "what it was given"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_replay_would_not_repeat_runs_as_it_is(name: str) -> None:
    more, reason = REFUSED[name]
    found = []
    for recorded in (False, True):
        net = Net(more).eval()
        random.seed(0)
        torch.manual_seed(0)
        passes = JudgedPasses(net, TapeRecorder()) if recorded else None
        found.append((outputs(net, batches(9), passes), net.calls, net.seen, net.notes, net.state_dict()))
    assert passes is not None
    assert reason in (passes.reason or "")
    assert passes.replayed == 0
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_inputs_that_are_changed_run_as_they_are() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1) * 2

    net, several = InPlace(), batches(8)
    passes = JudgedPasses(net, TapeRecorder())
    passes.expect(8)
    with torch.no_grad(), passes.instead():
        for x in several:
            net(x)
    assert passes.replayed == 0
    assert "changes its inputs" in (passes.reason or "")
    torch.testing.assert_close(several, [x + 1 for x in batches(8)])


def test_a_change_of_the_model_is_seen() -> None:
    """Attributes, hooks, weights: whatever is set between two passes."""
    changes: list[Callable[[Net], Any]] = [
        lambda net: setattr(net, "calls", 3),
        lambda net: setattr(net.layer, "weight", nn.Parameter(net.layer.weight.detach() * 2)),
        lambda net: net.layer.weight.data.mul_(2),
        lambda net: net.train(),
        lambda net: net.norm.register_forward_hook(lambda module, inputs, output: output + 1),
        lambda net: net.register_forward_hook(lambda module, inputs, output: output + 1),
    ]
    for change in changes:
        found = []
        for recorded in (False, True):
            torch.manual_seed(0)
            net = Net(lambda net, x: x + net.calls).eval()
            passes = JudgedPasses(net, TapeRecorder())
            passes.expect(99)
            several = batches(9)
            with torch.no_grad(), passes.instead() if recorded else nullcontext():
                before = [net(x) for x in several[:4]]
                change(net)
                found.append([*before, *(net(x) for x in several[4:])])
        assert passes.replayed >= 3
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_who_watches_sees_every_pass() -> None:
    net = Net().eval()
    passes = JudgedPasses(net, TapeRecorder())
    passes.expect(9)
    seen = []
    with torch.no_grad(), passes.instead():
        for x in batches(8):
            net(x)
            with FlopCounterMode(display=False) as flops:
                net(x)
            seen.append(flops.get_total_flops())
    assert len(set(seen)) == 1
    assert seen[0] > 0
    assert passes.replayed == 7


def test_a_recording_that_fails_is_none() -> None:
    class Failing(TapeRecorder):
        def record(self, work: Callable[[], Any]) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    net = Net().eval()
    passes = JudgedPasses(net, Failing())
    torch.testing.assert_close(outputs(net, batches(9), passes), outputs(net, batches(9)), rtol=0, atol=0)
    assert passes.failed
    assert passes.reason == "it cannot be recorded: operation not permitted when stream is capturing"


def test_a_copy_runs_as_it_is() -> None:
    net = Net().eval()
    passes = JudgedPasses(net, TapeRecorder())
    passes.expect(9)
    with torch.no_grad(), passes.instead():
        for x in batches(4):
            net(x)
        twin = copy.deepcopy(net)
        twin.layer.weight.mul_(2)
        assert not torch.equal(twin(x), net(x))
    assert passes.replayed == 4


def test_validation_after_batch_statistics_is_watched_no_more() -> None:
    watched = []

    def more(net: Any, x: Tensor) -> Tensor:
        watched.append(calls_are_watched())
        return x

    found = []
    for recorded in (False, True):
        net = Net(more).eval()
        passes = JudgedPasses(net, TapeRecorder())
        passes.expect(9)
        with torch.inference_mode(), passes.instead() if recorded else nullcontext():
            net.norm.train()
            net.norm.momentum = 1.0
            seen = [net(x) for x in batches(9)]
            net.norm.eval()
            net.norm.momentum = 0.1
            found.append([*seen, *(net(x) for x in batches(9))])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
    assert passes.replayed == 8 + 8
    # Watched, recorded; in evaluation as it is, and recorded.
    assert watched[18:] == [True, True, False, True]


def test_a_cpu_records_nothing() -> None:
    assert recorder_of(torch.device("cpu")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_device_replays_the_same(dtype: torch.dtype | None, layout: torch.memory_format) -> None:
    """Models come and go on one recorder, in either mode of their batch norms, with a last batch that is smaller."""
    device = torch.device("cuda")
    recorder = recorder_of(device)
    assert recorder is not None
    several = [x.to(device, memory_format=layout) for x in [*batches(9), *batches(1, size=1), *batches(9)]]
    for scale in (1.0, 2.0, 3.0):
        net = Net().to(device, memory_format=layout).eval()
        net.layer.weight.data.mul_(scale)
        found = []
        for recorded in (False, True):
            twin = copy.deepcopy(net)
            passes = JudgedPasses(twin, recorder)
            passes.expect(len(several))
            with (
                torch.inference_mode(),
                torch.autocast("cuda", dtype) if dtype is not None else nullcontext(),
                passes.instead() if recorded else nullcontext(),
            ):
                twin.norm.train()
                twin.norm.momentum = 1.0
                seen = [twin(x) for x in several[:9]]
                twin.norm.eval()
                found.append([*seen, *(twin(x) for x in several), *twin.norm.buffers()])
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
        assert (passes.reason, passes.replayed) == (None, 8 + 17)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", REFUSED)
def test_a_device_refuses_as_a_tape_does(name: str) -> None:
    more, _ = REFUSED[name]
    net = Net(more).cuda().eval()
    recorder = recorder_of(torch.device("cuda"))
    assert recorder is not None
    passes = JudgedPasses(net, recorder)
    if name in ("a tensor from elsewhere", "a generator of its own"):
        pytest.skip("it is on the CPU")
    outputs(net, [x.cuda() for x in batches(9)], passes)
    assert passes.reason is not None
    assert not passes.failed
    assert passes.replayed == 0
