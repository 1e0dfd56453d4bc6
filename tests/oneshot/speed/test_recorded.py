"""What is replayed is what a model computes, gradients and statistics too; on tapes that stand for CUDA graphs."""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from nas import InputChoice, LayerChoice, ModelSpace, NasValueError, Repeat, ValueChoice
from nas.model_zoo import darts
from nas.oneshot import RelaxedSupernet, Report, Rule, Speed, compile_whole, frozen, optimise, softmax
from nas.oneshot.speed.whole_passes import uncompiled

pytestmark = pytest.mark.long


class Block(nn.Module):
    """Two layers to choose from, an input to leave out, and dropout."""

    def __init__(self, label: str) -> None:
        super().__init__()
        kernels = {f"c{k}": lambda k=k: nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
        self.op = LayerChoice({**kernels, "skip": nn.Identity}, label=label)
        self.input = InputChoice(3, n_chosen=None, reduction="mean", label=f"input {label}")
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.input([x, None, self.drop(torch.relu(self.norm(self.op(x))))])
        return found


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), Block("one"), Block("two"), nn.Flatten(), nn.Linear(144, 2))


def widths() -> nn.Module:
    width = ValueChoice([2, 4], label="width")
    repeated = Repeat(lambda i: nn.Conv2d(width, width, 3, padding=1), depth=(1, 3), label="depth")
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), repeated, nn.Flatten(), nn.Linear(36 * width, 2)
    )


SPACES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "blocks": (network, {}),
    "cells": (lambda: darts(channels=4, cells=1, none=True), {}),
    "partial channels": (lambda: darts(channels=4, cells=1), {"partial_channels": 2, "edges": "softmax"}),
    "widths": (widths, {}),
}


def make(name: str, speed: Speed) -> RelaxedSupernet:
    factory, options = SPACES[name]
    net = RelaxedSupernet(ModelSpace(factory), **options)
    net.model.train()
    compile_whole(net, speed, optimise(net, (batch(0)[0],), speed))
    return net


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.randint(2, (2,), generator=generator)


def train(net: RelaxedSupernet, steps: int, *, bfloat16: bool = False) -> list[Tensor]:
    """Steps of both phases with clipping in place; all that they leave behind."""
    torch.manual_seed(0)
    weights, logits = list(net.model.parameters()), list(net.architecture.parameters())
    optimizers = torch.optim.SGD(weights, lr=0.1, momentum=0.9), torch.optim.SGD(logits, lr=1.0)
    losses = []
    for step in range(steps):
        x, y = batch(step)
        for phase, optimizer in zip(("weights", "architecture"), optimizers, strict=True):
            optimizer.zero_grad()
            with torch.set_grad_enabled(phase == "architecture"):
                net.architecture.mix()
            autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
            with frozen(net.model.parameters(), really=phase == "architecture"), autocast:
                loss = nn.functional.cross_entropy(net.model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.5)
            optimizer.step()
            losses.append(loss.detach())
    return [*losses, *(p.detach() for p in [*weights, *logits]), *net.model.buffers()]


@pytest.mark.parametrize(
    ("name", "merge"),
    [
        ("blocks", True),
        ("cells", True),
        pytest.param("cells", False, marks=pytest.mark.slow),
        pytest.param("partial channels", True, marks=pytest.mark.slow),
        ("widths", False),
    ],
)
def test_steps_are_the_same_bit_by_bit(name: str, merge: bool, recorders: list[Any]) -> None:
    plain = train(make(name, Speed(merge=merge, cuda_graphs=False)), 6)
    found = train(make(name, Speed(merge=merge, cuda_graphs=True)), 6)
    # Three steps to warm up; then, in both phases, a forward and a backward pass.
    assert recorders[-1].replays == (6 - 3) * 2 * 2
    assert all(map(torch.equal, found, plain))


def test_gradients_of_several_batches_are_added_up(recorders: list[Any]) -> None:
    def gradients(speed: Speed) -> list[Tensor]:
        torch.manual_seed(0)
        net = make("blocks", speed)
        found = []
        for step in range(6):
            net.model.zero_grad()
            with torch.no_grad():
                net.architecture.mix()
            for part in range(3):
                x, y = batch(3 * step + part)
                (nn.functional.cross_entropy(net.model(x), y) / 3).backward()  # type: ignore[no-untyped-call]
            found += [p.grad.clone() for p in net.model.parameters() if p.grad is not None]
        return found

    plain, found = gradients(Speed(cuda_graphs=False)), gradients(Speed(cuda_graphs=True))
    assert recorders[-1].replays
    assert len(plain) == len(found)
    assert all(map(torch.equal, found, plain))


@pytest.mark.parametrize("kept", ["asked for", "kept of a parameter"])
def test_gradients_that_somebody_keeps_stay(kept: str, recorders: list[Any]) -> None:
    found = []
    for graphs in (False, True):
        torch.manual_seed(0)
        net = make("blocks", Speed(cuda_graphs=graphs))
        weight, gradients = net.model[0].weight, []  # type: ignore[index]
        for step in range(7):
            net.architecture.mix()
            net.model.zero_grad()
            loss = net.model(batch(step)[0]).square().mean()
            if kept == "asked for":
                gradients += torch.autograd.grad(loss, [weight])
            else:
                loss.backward()
            if kept == "kept of a parameter":
                gradients.append(weight.grad)
            assert weight.grad is None or torch.equal(weight.grad, gradients[-1])  # type: ignore[union-attr, arg-type]
        found.append(gradients)
    assert len(found[0]) == 7
    assert all(map(torch.equal, *found))
    assert recorders[-1].replays


def _new_data(layer: nn.Conv2d, step: int) -> None:
    layer.weight.data = layer.weight.data * 0.5


def _new_parameter(layer: nn.Conv2d, step: int) -> None:
    if step in (5, 6):
        layer.weight = nn.Parameter(layer.weight.detach() * 0.5)


@pytest.mark.parametrize("change", [_new_data, _new_parameter])
def test_tensors_that_are_replaced_are_read(change: Callable[..., None], recorders: list[Any]) -> None:
    found = []
    for graphs in (False, "auto"):
        torch.manual_seed(0)
        net, losses = make("blocks", Speed(cuda_graphs=graphs)), []  # type: ignore[arg-type]
        for step in range(12):
            net.architecture.mix()
            loss = net.model(batch(step)[0]).square().mean()
            loss.backward()
            losses.append(loss.detach())
            change(net.model[0], step)  # type: ignore[index]
        found.append(losses)
    assert all(map(torch.equal, *found))
    assert recorders[-1].replays or change is _new_data


def test_mixed_precision_casts_the_weights_of_each_step(recorders: list[Any]) -> None:
    plain = train(make("blocks", Speed(cuda_graphs=False)), 7, bfloat16=True)
    found = train(make("blocks", Speed(cuda_graphs=True)), 7, bfloat16=True)
    assert recorders[-1].replays == (7 - 3) * 2 * 2
    assert all(map(torch.equal, found, plain))
    assert not torch.equal(plain[6], train(make("blocks", Speed(cuda_graphs=False)), 7)[6])


def recorded(factory: Callable[[], nn.Module] = network) -> RelaxedSupernet:
    """A supernet that has been warmed up."""
    net = RelaxedSupernet(ModelSpace(factory))
    net.model.train()
    compile_whole(net, Speed(cuda_graphs=True), Report())
    for _ in range(4):
        net.model(batch(0)[0]).sum().backward()
        net.architecture.mix()
    return net


def run(net: RelaxedSupernet, x: Tensor, rule: Rule = softmax) -> None:
    for _ in range(4):
        net.architecture.mix(rule)
        net.model(x).sum().backward()


def test_other_shapes_modes_and_candidates_are_recorded_apart(recorders: list[Any]) -> None:
    def without_skip(label: str, logits: Tensor) -> tuple[Tensor, list[int]]:
        return logits.softmax(-1), [0, 1]

    net = recorded()
    forward = vars(net.model)["forward"]
    assert forward.recorded == 1
    run(net, torch.randn(3, 3, 8, 8))
    assert forward.recorded == 2
    net.model[1].norm.eval()  # type: ignore[index, union-attr]
    run(net, batch(0)[0])
    assert forward.recorded == 3
    run(net, batch(0)[0], without_skip)
    assert forward.recorded == 4
    run(net, batch(0)[0])
    assert forward.recorded == 4


def test_what_is_not_trained_runs_as_it_is(recorders: list[Any]) -> None:
    net = recorded()
    done = recorders[-1].replays
    x = batch(1)[0]
    with torch.no_grad():
        net.model(x)
    with uncompiled(net.model):
        net.model(x)
    net.model.eval()(x)
    assert recorders[-1].replays == done


def test_a_second_pass_before_the_first_is_differentiated_runs_as_it_is(recorders: list[Any]) -> None:
    net = recorded()
    x = batch(1)[0]
    net.model[1].drop.p = net.model[2].drop.p = 0.0  # type: ignore[index, union-attr]
    vars(net.model)["forward"].forget()
    weight = net.model[0].weight  # type: ignore[index]
    net.architecture.mix()
    expected = torch.autograd.grad(net.model(x).sum() + net.model(2 * x).square().sum(), [weight])[0]
    with uncompiled(net.model):
        net.architecture.mix()
        plain = torch.autograd.grad(net.model(x).sum() + net.model(2 * x).square().sum(), [weight])[0]
    assert recorders[-1].replays == 2
    assert torch.allclose(expected, plain, atol=1e-5)


def test_an_output_that_is_let_go_makes_way(recorders: list[Any]) -> None:
    net = recorded()
    done = recorders[-1].replays
    y = net.model(batch(1)[0])
    net.model(batch(2)[0])
    assert recorders[-1].replays == done + 1, "the second waits for the first"
    del y
    gc.collect()
    net.model(batch(2)[0])
    assert recorders[-1].replays == done + 2


def test_gradients_of_a_pass_that_was_overwritten_are_refused(recorders: list[Any]) -> None:
    net = recorded()
    net.architecture.mix()
    loss = net.model(batch(1)[0]).sum()
    loss.backward(retain_graph=True)
    net.architecture.mix()
    net.model(batch(2)[0]).sum().backward()
    with pytest.raises(NasValueError, match="gone once another has been replayed"):
        loss.backward()


def test_what_waits_for_the_device_cannot_be_recorded(recorders: list[Any]) -> None:
    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.ReLU, nn.Tanh], label="op")
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.op(self.layer(x[:, :, 0, :3]))
            return y * y.max().item()

    with pytest.raises(
        NasValueError, match=r"must not wait for the device.*looks at what it has computed.*compile=True"
    ):
        recorded(Waits)


def test_equal_gradients_lie_apart(recorders: list[Any]) -> None:
    """Of two parameters that are added, of which clipping would otherwise scale one twice; and of the output itself."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.ReLU, nn.Tanh], label="op")
            self.one, self.two, self.end = (nn.Parameter(torch.ones(8)) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.op(x.mean((0, 1, 2)) * (self.one + self.two))
            return y + self.end

    net = recorded(Sum)
    net.model.zero_grad()
    net.architecture.mix()
    net.model(batch(1)[0]).square().sum().backward()
    gradients = [p.grad.clone() for p in net.model.parameters() if p.grad is not None]
    assert torch.equal(gradients[0], gradients[1])
    for parameter, gradient, factor in zip(net.model.parameters(), gradients, (2, 3, 5), strict=True):
        assert parameter.grad is not None
        parameter.grad.mul_(factor)
        assert torch.equal(parameter.grad, factor * gradient)
    places = {p.grad.data_ptr() for p in net.model.parameters() if p.grad is not None}
    assert len(places) == 3


def test_outputs_may_be_several_and_need_no_gradients(recorders: list[Any]) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.ReLU, nn.Tanh], label="op")
            self.layer = nn.Linear(8, 3)

        def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
            y = self.op(self.layer(x.mean((1, 2))))
            return {"scores": [y * scale, y.sum(1)], "answer": y.argmax(1), "scale": scale}

    net = RelaxedSupernet(ModelSpace(Several))
    net.model.train()
    compile_whole(net, Speed(cuda_graphs=True), Report())
    for scale in (1.0, 2.0):
        for seed in range(5):
            net.architecture.mix()
            y = net.model(batch(seed)[0], scale=scale)
            with uncompiled(net.model):
                expected = net.model(batch(seed)[0], scale=scale)
            y["scores"][1].sum().backward()
            assert torch.equal(y["scores"][0], expected["scores"][0])
            assert torch.equal(y["answer"], expected["answer"])
            assert not y["answer"].requires_grad
            assert y["scale"] == scale
    assert vars(net.model)["forward"].recorded == 2
    assert recorders[-1].replays == 2 * 2 * 2


def test_where_all_steps_differ_it_says_so(recorders: list[Any]) -> None:
    net = recorded()
    xs = [torch.randn(size, 3, 8, 8) for size in range(3, 66)]
    for x in xs:
        net.model(x)
    with pytest.warns(UserWarning, match="other candidates are computed in each step, so most steps are not recorded"):
        net.model(torch.randn(66, 3, 8, 8))
    assert vars(net.model)["forward"].recorded == 1


def test_recorded_steps_are_undone_with_the_rest(recorders: list[Any]) -> None:
    net = RelaxedSupernet(ModelSpace(network))
    speed = Speed(cuda_graphs=True)
    report = optimise(net, (batch(0)[0],), speed)
    compile_whole(net, speed, report)
    assert "forward and backward pass are recorded as CUDA graphs" in str(report)
    report.undo()
    assert "forward" not in vars(net.model)


def test_a_copy_computes_with_its_own_weights(recorders: list[Any]) -> None:
    net = recorded()
    twin = copy.deepcopy(net.model)
    assert vars(twin)["forward"].recorded == 0
    net.model.zero_grad()
    for _ in range(4):
        net.architecture.mix()
        twin(batch(0)[0]).sum().backward()
    assert vars(twin)["forward"].recorded == 1
    assert all(p.grad is None for p in net.model.parameters())
    assert all(p.grad is not None for p in twin.parameters())


def test_what_is_recorded_is_not_computed_again() -> None:
    with pytest.raises(NasValueError, match="what is recorded as CUDA graphs cannot be computed again"):
        Speed(cuda_graphs=True, checkpoint_cells=True)


@dataclass
class Batch:
    """What hides its tensor from torch."""

    x: Tensor


class Hiding(nn.Module):
    """A network of which one side is hidden in a batch."""

    def __init__(self, *, takes: bool) -> None:
        super().__init__()
        self.net, self.takes = network(), takes

    def forward(self, given: Any) -> Any:
        return self.net(given.x) if self.takes else Batch(self.net(given))


@pytest.mark.parametrize("takes", [True, False])
def test_what_hides_tensors_is_not_recorded(takes: bool, recorders: list[Any]) -> None:
    net = RelaxedSupernet(ModelSpace(lambda: Hiding(takes=takes)))
    net.model.train()
    example = (Batch(batch(0)[0]),) if takes else batch(0)[0]
    speed = Speed(cuda_graphs=True)
    compile_whole(net, speed, optimise(net, example, speed))

    def run(seed: int) -> Tensor:
        x = batch(seed)[0]
        torch.manual_seed(0)
        net.architecture.mix()
        found: Tensor = net.model(Batch(x)) if takes else net.model(x).x
        found.sum().backward()  # type: ignore[no-untyped-call]
        return found.detach()

    with pytest.warns(UserWarning, match="objects that hold tensors, so its passes are not recorded"):
        run(0)
    found = [run(seed) for seed in range(6)]
    assert recorders[-1].replays == 0
    assert len({float(y.sum()) for y in found}) == 6


class Awkward(nn.Module):
    """A layer to choose, and something that a replay would not do; `what` says what."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.op = LayerChoice([nn.ReLU, nn.Tanh], label="op")
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.what, self.calls, self.seen = what, 0, list[int]()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "writes into its input":
            x.add_(1)
        y: Tensor = self.op(self.norm(self.conv(x)))
        if self.what == "looks":
            y = y * 2 if float(y.detach().max()) > 1 else y
        elif self.what == "draws":
            y = y * random.random()
        elif self.what == "draws by numpy":
            y = y * float(numpy.random.rand())
        elif self.what == "counts":
            self.calls += 1
            y = y / self.calls
        elif self.what == "collects":
            self.seen.append(1)
            y = y / len(self.seen)
        elif self.what == "keeps":
            self.latest = y.detach()
        elif self.what == "reassigns":
            self.mean = 0.9 * self.mean + 0.1 * y.detach().mean()
            y = y - self.mean
        elif self.what == "registers hooks" and y.requires_grad:
            y.register_hook(lambda gradient: gradient * 2)
        return y.flatten(1)[:, :2]


REASONS = {
    "looks": "it looks at what it has computed",
    "draws": "it draws random numbers on the host",
    "draws by numpy": "it draws random numbers on the host",
    "counts": "it keeps something in a module",
    "collects": "it keeps something in a module",
    "keeps": "it keeps something in a module",
    "reassigns": "it keeps something in a module",
    "writes into its input": "it changes its inputs",
    "is listened to": "somebody listens to the calls of 'norm'",
    "has a gradient that is changed": "somebody listens to the gradient of 'norm.weight'",
    "registers hooks": "it registers hooks",
    "fails": "out of luck",
}


def by_itself(what: str, speed: Speed) -> tuple[RelaxedSupernet, Report]:
    net = RelaxedSupernet(ModelSpace(Awkward, what))
    net.model.train()
    report = optimise(net, (batch(0)[0],), speed)
    if what == "is listened to":
        net.model.get_submodule("norm").register_forward_hook(lambda *args: None)
    if what == "has a gradient that is changed":
        net.model.get_parameter("norm.weight").register_hook(lambda gradient: gradient / 2)
    compile_whole(net, speed, report)
    return net, report


def seeded_training(net: RelaxedSupernet, steps: int) -> list[Tensor]:
    random.seed(0)
    numpy.random.seed(0)
    found = train(net, steps)
    return [*found, torch.tensor([random.random(), numpy.random.rand()])]


@pytest.mark.parametrize("what", REASONS)
def test_what_cannot_be_replayed_runs_as_it_is_and_says_why(
    what: str, recorders: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = by_itself(what, Speed(cuda_graphs=False))
    net, report = by_itself(what, Speed())
    if what == "fails":
        record = type(recorders[-1]).record

        def broken(recorder: Any, work: Callable[[], Any]) -> Any:
            record(recorder, work)
            random.random()
            net.model.calls += 1  # type: ignore[operator]
            net.model.mean = torch.ones(())
            raise RuntimeError("out of luck\nCompile with X")

        monkeypatch.setattr(type(recorders[-1]), "record", broken)
    assert all(map(torch.equal, seeded_training(net, 6), seeded_training(plain, 6)))
    assert recorders[-1].replays == 0
    (line,) = [line for line in report.whole if line.startswith("not recorded")]
    assert line.startswith(f"not recorded as CUDA graphs: {REASONS[what]}")
    if what in ("counts", "fails"):
        assert net.model.calls == plain.model.calls


def test_by_itself_all_is_recorded_that_can_be(recorders: list[Any]) -> None:
    plain, _ = by_itself("nothing", Speed(cuda_graphs=False))
    net, report = by_itself("nothing", Speed())
    assert all(map(torch.equal, train(net, 6), train(plain, 6)))
    assert recorders[-1].replays == (6 - 3) * 2 * 2
    assert not [line for line in report.whole if line.startswith("not recorded")]


def test_a_cast_that_somebody_else_keeps_is_another_passes(recorders: list[Any]) -> None:
    found = []
    for speed in (Speed(cuda_graphs=False), Speed()):
        net, _ = by_itself("nothing", speed)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(train(net, 6))
    assert all(map(torch.equal, *found))
    assert recorders[-1].replays


def test_where_other_candidates_come_in_each_step_the_report_says_so(recorders: list[Any]) -> None:
    net, report = by_itself("nothing", Speed())
    for size in range(2, 70):
        net.model(torch.randn(size, 3, 8, 8))
    (line,) = [line for line in report.whole if line.startswith("CUDA graphs")]
    assert line.endswith("so most steps are not recorded")


def test_by_itself_nothing_is_recorded_that_is_computed_again_or_on_several_devices(
    recorders: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, report = by_itself("nothing", Speed(checkpoint_cells=True))
    assert "not recorded as CUDA graphs: cells are computed again in the backward pass" in report.whole
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    _, report = by_itself("nothing", Speed())
    assert "not recorded as CUDA graphs: several devices train together" in report.whole
    assert not recorders


def test_on_a_cpu_there_is_nothing_to_say() -> None:
    _, report = by_itself("nothing", Speed())
    assert not [line for line in report.whole if "CUDA" in line]
