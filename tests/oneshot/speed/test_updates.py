"""A replayed step of an optimizer does what the step does; on tapes that stand for CUDA graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from nas.oneshot.speed import RecordedClipping, record_updates
from tests.oneshot.conftest import TapeRecorder

Disturb = Callable[[Optimizer, int], object]


class Recordings:
    """What stands between a net's optimizer and the tapes."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.tape = TapeRecorder()
        self.told: list[str] = []
        self.again = lambda: record_updates([optimizer], lambda: self.tape, self.told.append)
        self.again()


def train(
    make: Callable[[list[nn.Parameter]], Optimizer],
    *,
    recorded: bool,
    steps: int = 8,
    disturb: Disturb = lambda optimizer, step: None,
    closure: bool = False,
) -> tuple[list[Tensor], Recordings | None]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    unused = nn.Parameter(torch.ones(2))
    optimizer = make([*net.parameters(), unused])
    recordings = Recordings(optimizer) if recorded else None
    places = [torch.zeros_like(p) for p in net.parameters()]

    def differentiate(x: Tensor) -> Tensor:
        loss: Tensor = net(x).square().sum()
        found = torch.autograd.grad(loss, list(net.parameters()))
        for parameter, place, gradient in zip(net.parameters(), places, found, strict=True):
            parameter.grad = place.copy_(gradient)  # as what is recorded hands them out: always in one place
        return loss.detach()

    losses = []
    for step in range(steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        if closure:
            losses.append(optimizer.step(lambda x=x: differentiate(x)))  # type: ignore[misc]
        else:
            losses.append(differentiate(x))
            optimizer.step()
        disturb(optimizer, step)
    return [*losses, *(p.detach() for p in net.parameters()), unused.detach()], recordings  # type: ignore[list-item]


def check(make: Callable[[list[nn.Parameter]], Optimizer], *, replays: int, **options: Any) -> Recordings:
    plain, _ = train(make, recorded=False, **options)
    found, recordings = train(make, recorded=True, **options)
    assert all(map(torch.equal, found, plain))
    assert recordings is not None
    assert recordings.tape.replays == replays
    return recordings


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.5}],
    ids=str,
)
def test_steps_are_the_same_bit_by_bit(options: dict[str, Any], foreach: bool, closure: bool) -> None:
    # Without a state, three steps to warm up; momentum is made in the first, after which it is another step.
    replays = 8 - 3 - bool(options)
    assert not check(lambda ps: SGD(ps, lr=0.1, foreach=foreach, **options), replays=replays, closure=closure).told


def test_several_groups_have_their_own_rates() -> None:
    check(lambda ps: SGD([{"params": ps[:2], "lr": 0.5}, {"params": ps[2:]}], lr=0.01), replays=5)


@pytest.mark.parametrize("make", [Adam, AdamW, Adagrad])
def test_what_counts_on_the_host_runs_as_it_is_and_says_why(make: Callable[..., Optimizer]) -> None:
    recordings = check(lambda ps: make(ps, lr=0.1), replays=0)
    (line,) = recordings.told
    assert line.startswith(f"steps of {make.__name__} are not recorded as CUDA graphs: it ")  # type: ignore[attr-defined]


def test_what_is_not_torchs_own_is_left_alone() -> None:
    class Twice(SGD):
        def step(self, closure: Any = None) -> Any:
            super().step()
            return super().step(closure)

    check(lambda ps: Twice(ps, lr=0.1), replays=0)
    check(lambda ps: LBFGS(ps), replays=0, closure=True, steps=3)


def scheduled(make: Callable[[Optimizer], Any]) -> dict[str, Any]:
    """An optimizer whose rate a scheduler sets."""
    schedulers: dict[int, Any] = {}

    def optimizer(parameters: list[nn.Parameter]) -> Optimizer:
        found = SGD(parameters, lr=0.1)
        schedulers[id(found)] = make(found)
        return found

    return {"make": optimizer, "disturb": lambda optimizer, step: schedulers[id(optimizer)].step()}


def test_a_rate_that_changes_is_heeded() -> None:
    """One that a schedule sets anew now and then, and one that changes in each step."""
    check(**scheduled(lambda optimizer: StepLR(optimizer, 6, gamma=0.1)), replays=3 + 3, steps=12)
    (line,) = check(**scheduled(lambda optimizer: ExponentialLR(optimizer, 0.99)), replays=0, steps=70).told
    assert line.endswith("other rates, or other gradients, in each step")


def _load(optimizer: Optimizer) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def _restart(optimizer: Optimizer) -> None:
    optimizer.state.clear()


def _replace(optimizer: Optimizer) -> None:
    for state in optimizer.state.values():
        state["momentum_buffer"] = torch.zeros_like(state["momentum_buffer"])


@pytest.mark.parametrize("change", [_load, _restart, _replace])
def test_a_state_that_is_replaced_is_heeded(change: Callable[[Optimizer], None]) -> None:
    def disturb(optimizer: Optimizer, step: int) -> None:
        if step == 6:
            change(optimizer)

    check(lambda ps: SGD(ps, lr=0.1, momentum=0.9), replays=3, steps=9, disturb=disturb)


def test_hooks_are_called_at_every_step() -> None:
    called: list[Optimizer] = []

    def disturb(optimizer: Optimizer, step: int) -> None:
        if step == 5:
            optimizer.register_step_post_hook(lambda optimizer, *_: called.append(optimizer))

    check(lambda ps: SGD(ps, lr=0.1), replays=3, disturb=disturb)
    assert len(called) == 2 + 2


def test_a_scaler_that_leaves_its_scale_to_the_optimizer_is_heeded() -> None:
    def run(recorded: bool) -> Tensor:
        parameter = nn.Parameter(torch.ones(3))
        optimizer = SGD([parameter], lr=0.1, fused=True)
        if recorded:
            Recordings(optimizer)
        place = torch.zeros(3)
        for step in range(8):
            optimizer.grad_scale = torch.tensor(float(step + 1))  # type: ignore[attr-defined]
            optimizer.found_inf = torch.tensor(float(step == 6))  # type: ignore[attr-defined]
            parameter.grad = place.copy_(parameter.detach() * (step + 2))
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
        return parameter.detach()

    assert torch.equal(run(True), run(False))


def test_a_recording_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(recorder: Any, work: Callable[[], Any]) -> Any:
        raise RuntimeError("out of luck\nCompile with X")

    monkeypatch.setattr(TapeRecorder, "record", broken)
    (line,) = check(lambda ps: SGD(ps, lr=0.1, momentum=0.9), replays=0).told
    assert line == "steps of SGD are not recorded as CUDA graphs: out of luck"


def test_a_new_epoch_records_anew() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = SGD([parameter], lr=0.1)
    recordings = Recordings(optimizer)
    place = torch.ones(3)
    for _ in range(5):
        parameter.grad = place
        optimizer.step()
    assert recordings.tape.replays == 2
    step = optimizer.step
    recordings.again()
    assert optimizer.step is step
    optimizer.step()
    assert recordings.tape.replays == 3


def clipped(
    make: Callable[[list[nn.Parameter]], Optimizer], *, apart: str | None, recorded: bool, steps: int = 9
) -> Any:
    """What steps leave behind that begin with a clipping, as in Lightning's closure; told lines; and the tape."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3)) for _ in range(4)]
    optimizer, tape = make(parameters), TapeRecorder()
    told: list[str] = []

    def clip(optimizer: Optimizer, clip_val: float) -> None:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_val)

    clipping: Any = clip
    if recorded:
        record_updates([optimizer], lambda: tape, told.append)
        clipping = RecordedClipping(clip, lambda: tape, told.append, apart=apart)
    places = [torch.zeros(3) for _ in parameters]
    for step in range(steps):

        def closure(step: int = step) -> float:
            for parameter, place in zip(parameters[: 3 + (step > 6)], places, strict=False):
                parameter.grad = place.copy_(parameter.detach() * (step + 1))
            clipping(optimizer, 0.5 if step != 5 else 0.25)
            return float(step)

        assert optimizer.step(closure) == step
    return [p.detach() for p in parameters], told, tape


@pytest.mark.parametrize(
    ("apart", "options", "replays", "says"),
    [
        # Three to warm up; another norm, and another parameter, come too seldom to be recorded.
        (None, {}, 3, "gradients are clipped and weights updated as one CUDA graph"),
        ("somebody looks", {}, 3 + 4, "gradients are clipped and weights updated as two CUDA graphs: somebody looks"),
    ],
)
def test_clipping_is_recorded_with_the_step_or_apart(
    apart: str | None, options: dict[str, Any], replays: int, says: str
) -> None:
    plain, *_ = clipped(lambda ps: SGD(ps, lr=0.1, **options), apart=apart, recorded=False)
    found, told, tape = clipped(lambda ps: SGD(ps, lr=0.1, **options), apart=apart, recorded=True)
    assert all(map(torch.equal, found, plain))
    assert tape.replays == replays
    assert told == [says]


def test_clipping_is_recorded_where_the_step_is_not() -> None:
    plain, *_ = clipped(lambda ps: Adam(ps, lr=0.1), apart=None, recorded=False, steps=14)
    found, told, tape = clipped(lambda ps: Adam(ps, lr=0.1), apart=None, recorded=True, steps=14)
    assert all(map(torch.equal, found, plain))
    assert tape.replays
    assert [line.partition(":")[0] for line in told] == ["steps of Adam are not recorded as CUDA graphs"]


def test_a_closure_that_fails_clips_nothing_later() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer, tape = SGD([parameter], lr=0.1), TapeRecorder()
    record_updates([optimizer], lambda: tape, lambda line: None)
    done: list[float] = []
    clipping = RecordedClipping(lambda optimizer, clip_val: done.append(clip_val), lambda: tape, lambda line: None)

    def fails() -> None:
        clipping(optimizer, 0.5)
        raise ValueError("a closure")

    with pytest.raises(ValueError, match="a closure"):
        optimizer.step(fails)  # type: ignore[arg-type]
    optimizer.step(lambda: 1.0)
    assert done == []
