"""Gradients of a replayed pass that are given at once are those that torch hands out one by one; on tapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import LayerChoice, ModelSpace
from nas.oneshot import RelaxedSupernet, Speed, compile_whole, optimise
from nas.oneshot.speed import RecordedForward


class TwoHeads(nn.Module):
    """A choice, and two things that it says."""

    def __init__(self) -> None:
        super().__init__()
        self.body = LayerChoice({f"c{k}": lambda k=k: nn.Linear(3, 4, bias=k) for k in (False, True)}, label="body")  # type: ignore[misc]
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        body = torch.tanh(self.body(x))
        return self.heads[0](body), self.heads[1](body)


Loss = Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]


def of_both(model: nn.Module, said: tuple[Tensor, Tensor]) -> Tensor:
    return said[0].square().sum() + 0.5 * said[1].square().mean()


def of_one(model: nn.Module, said: tuple[Tensor, Tensor]) -> Tensor:
    return said[1].sigmoid().sum() * said[1].mean()


def with_decay(model: nn.Module, said: tuple[Tensor, Tensor]) -> Tensor:
    return said[0].square().sum() + sum(p.square().sum() for p in model.parameters())


def steps(loss_of: Loss, *, quick: bool, prepare: Callable[[nn.Module], object] = lambda model: None) -> Any:
    """The gradients of some steps, and how many were taken at once."""
    net = RelaxedSupernet(ModelSpace(TwoHeads))
    net.model.train()
    speed = Speed(cuda_graphs=True)
    recorded = compile_whole(net, speed, optimise(net, (torch.zeros(5, 3),), speed))
    assert isinstance(recorded, RecordedForward)
    kept = prepare(net.model)
    found: list[Tensor | None] = []
    taken = 0
    for step in range(7):
        with torch.no_grad():
            net.architecture.mix()
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        loss = loss_of(net.model, net.model(x))
        net.model.zero_grad()
        at_once = quick and recorded.differentiate(loss)
        taken += at_once
        if not at_once:
            loss.backward()  # type: ignore[no-untyped-call]
        found += [None if p.grad is None else p.grad.clone() for p in net.model.parameters()]
        with torch.no_grad():
            for parameter in net.model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        del loss  # as after a step of Lightning
    del kept
    return found, taken


def same(found: list[Tensor | None], expected: list[Tensor | None]) -> bool:
    pairs = list(zip(found, expected, strict=True))
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("loss", [of_both, of_one])
def test_they_are_the_same_bit_by_bit(loss: Loss, recorders: list[Any]) -> None:
    plain, none = steps(loss, quick=False)
    found, taken = steps(loss, quick=True)
    assert same(found, plain)
    assert (none, taken) == (0, 7 - 3), "three to warm up"
    assert recorders[-1].replays == 2 * 4


def _hear_gradients(called: list[object]) -> Callable[[nn.Module], object]:
    def hear(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(called.append)

    return hear


def _hear_nodes(called: list[object]) -> Callable[[nn.Module], object]:
    def hear(model: nn.Module) -> object:
        views: list[Any] = [parameter.expand_as(parameter) for parameter in model.parameters()]
        nodes = [view.grad_fn.next_functions[0][0] for view in views]
        for node in nodes:
            node.register_hook(lambda *_: called.append(None))
        return nodes

    return hear


@pytest.mark.parametrize("hear", [_hear_gradients, _hear_nodes])
def test_who_wants_to_know_of_gradients_is_told(hear: Any, recorders: list[Any]) -> None:
    called: list[object] = []
    plain, _ = steps(of_both, quick=False)
    found, taken = steps(of_both, quick=True, prepare=hear(called))
    assert same(found, plain)
    assert taken == 0
    assert len(called) == len(found)
    assert recorders[-1].replays, "the passes are recorded all the same"


def test_a_loss_of_the_weights_themselves_is_differentiated_by_torch(recorders: list[Any]) -> None:
    plain, _ = steps(with_decay, quick=False)
    found, taken = steps(with_decay, quick=True)
    assert same(found, plain)
    assert taken == 0


def test_hooks_of_what_the_model_says_are_called(recorders: list[Any]) -> None:
    def doubled(model: nn.Module, said: tuple[Tensor, Tensor]) -> Tensor:
        said[0].register_hook(lambda gradient: 2 * gradient)
        said[1].retain_grad()
        kept.append(said[1])
        return of_both(model, said)

    kept: list[Tensor] = []
    plain, _ = steps(doubled, quick=False)
    expected = [said.grad for said in kept]
    kept.clear()
    found, _ = steps(doubled, quick=True)
    assert same(found, plain)
    assert same([said.grad for said in kept], expected)


def test_what_is_there_is_added_to_by_torch(recorders: list[Any]) -> None:
    net = RelaxedSupernet(ModelSpace(TwoHeads))
    net.model.train()
    recorded = compile_whole(net, speed := Speed(cuda_graphs=True), optimise(net, (torch.zeros(5, 3),), speed))
    assert isinstance(recorded, RecordedForward)
    for step in range(6):
        with torch.no_grad():
            net.architecture.mix()
        loss = of_both(net.model, net.model(torch.ones(5, 3)))
        if step == 4:
            assert recorded.differentiate(loss)
            once = [p.grad.clone() for p in net.model.parameters() if p.grad is not None]
        elif step == 5:
            assert not recorded.differentiate(loss)
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            loss.backward()  # type: ignore[no-untyped-call]
            net.model.zero_grad()
        del loss
    twice = [p.grad for p in net.model.parameters() if p.grad is not None]
    assert all(torch.equal(b, 2 * a) for a, b in zip(once, twice, strict=True))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch says where
def test_gradients_that_are_no_numbers_are_found_by_torch(recorders: list[Any]) -> None:
    def infinite(model: nn.Module, said: tuple[Tensor, Tensor]) -> Tensor:
        return (said[0] - said[0]).sqrt().sum() * math.inf

    with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="returned nan values"):  # type: ignore[no-untyped-call]
        steps(infinite, quick=True)
