"""A user's own activation checkpoints: the gradients are those without them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice, ModelSpace, Repeat, ValueChoice
from nas.evaluators import Classification
from nas.oneshot import (
    DARTS,
    CurvatureStop,
    GumbelDARTS,
    ProxylessNAS,
    RelaxedSupernet,
    SupernetStrategy,
    largest_eigenvalue,
    softmax,
)
from nas.oneshot.relaxed import GumbelMixer, Mixer, Moment, SoftmaxMixer, TwoPathMixer, recomputing_as_before


class Block(nn.Module):
    def __init__(self, label: str, width: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, width), nn.Linear(width, 4)
        self.drop = nn.Dropout(0.3)
        self.op = LayerChoice({"a": lambda: nn.Linear(4, 4), "tanh": nn.Tanh, "same": nn.Identity}, label=label)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.op(self.drop(self.out(self.into(x).relu())))
        return x + y


class Net(nn.Module):
    """Blocks that are computed again while they are trained, in one of the ways that torch has."""

    def __init__(self, how: str | None, *, masks: bool) -> None:
        super().__init__()
        width = ValueChoice([2, 6], label="width") if masks else 6
        self.how, self.stem = how, nn.Linear(4, 4)
        self.blocks = nn.Sequential(*(Block(f"op{i}", width) for i in range(3)))
        self.depth = Repeat(lambda i: nn.Linear(4, 4), (1, 2), label="depth")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.how is None or not self.training:
            x = self.blocks(x)
        elif self.how == "sequential":
            x = checkpoint_sequential(self.blocks, 2, x, use_reentrant=False)  # type: ignore[no-untyped-call]
        elif self.how == "reentrant sequential":
            x = checkpoint_sequential(self.blocks, 2, x, use_reentrant=True)  # type: ignore[no-untyped-call]
        else:
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=self.how == "reentrant")
        y: Tensor = self.depth(x)
        return y


WAYS = ["functional", "reentrant", "sequential", "reentrant sequential"]
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
MIXERS: dict[str, Callable[[], Mixer]] = {
    "softmax": SoftmaxMixer,
    "gumbel": lambda: GumbelMixer(start=2.0, end=1.0, hard=False, seed=0),
    "hard": lambda: GumbelMixer(start=2.0, end=1.0, hard=True, seed=0),
    "proxyless": lambda: TwoPathMixer(seed=0),
}


def supernet(how: str | None, *, masks: bool) -> RelaxedSupernet:
    net = RelaxedSupernet(ModelSpace(Net, how, masks=masks))
    net.model.train()
    return net


def of_weights(net: RelaxedSupernet, mixer: Mixer) -> list[Tensor | None]:
    with torch.no_grad():
        net.architecture.mix(mixer.rule(Moment(step=0, epoch=0, epochs=1), "weights"))
    torch.manual_seed(0)
    loss = net.model(X).square().mean()
    net.architecture.mix()  # for somebody else, before the backward pass
    return list(torch.autograd.grad(loss, list(net.model.parameters()), allow_unused=True))


def of_architecture(net: RelaxedSupernet, mixer: Mixer) -> list[Tensor | None]:
    net.architecture.mix(mixer.rule(Moment(step=0, epoch=0, epochs=1), "architecture"))
    torch.manual_seed(0)
    weights = list(net.model.parameters())
    for weight in weights:
        weight.requires_grad_(False)
    loss = net.model(X).square().mean()
    for weight in weights:
        weight.requires_grad_(True)
    found = list(torch.autograd.grad(loss, list(net.architecture.parameters()), allow_unused=True))
    assert all(weight.requires_grad for weight in weights)
    return found


def unrolled(net: RelaxedSupernet, mixer: Mixer) -> list[Tensor | None]:
    net.architecture.mix(mixer.rule(Moment(step=0, epoch=0, epochs=1), "architecture"))
    torch.manual_seed(0)
    weights = dict(net.model.named_parameters())
    loss = functional_call(net.model, weights, (X,)).square().mean()
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    ahead = {n: w if g is None else w - 0.5 * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
    after = functional_call(net.model, ahead, (1 - X,)).square().mean()
    return list(torch.autograd.grad(after, list(net.architecture.parameters()), allow_unused=True))


def check_alike(ours: list[Tensor | None], theirs: list[Tensor | None]) -> None:
    assert [a is None for a in ours] == [b is None for b in theirs]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    assert pairs
    assert any(bool(b.any()) for _, b in pairs)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_the_gradients_are_those_without_checkpoints(how: str, masks: bool, mixer: str) -> None:
    for gradients in (of_weights, of_architecture, unrolled):
        ours, theirs = (gradients(supernet(way, masks=masks), MIXERS[mixer]()) for way in (how, None))
        check_alike(ours, theirs)


@pytest.mark.parametrize("how", WAYS)
def test_so_are_those_of_a_copy(how: str) -> None:
    net, plain = supernet(how, masks=True), supernet(None, masks=True)
    found = []
    for model in (copy.deepcopy(net.model), plain.model):
        torch.manual_seed(0)
        found.append([*torch.autograd.grad(model(X).square().mean(), list(model.parameters()))])
    check_alike(*found)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_around_the_whole_supernet_needs_the_context_around_it(reentrant: bool) -> None:
    net, plain = (supernet(None, masks=True) for _ in range(2))
    mixing = net.architecture.mixing

    def gradients(model: Callable[[Tensor], Any], network: RelaxedSupernet) -> list[Tensor | None]:
        network.architecture.mix()
        torch.manual_seed(0)
        with recomputing_as_before(network.model, mixing):
            loss = model(X).square().mean()
        network.architecture.mix(lambda label, logits: torch.ones_like(logits))
        return list(torch.autograd.grad(loss, list(network.architecture.parameters())))

    ours = gradients(lambda x: checkpoint(net.model, x, use_reentrant=reentrant), net)
    check_alike(ours, gradients(plain.model, plain))


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_curvature_is_that_without_checkpoints(reentrant: bool) -> None:
    net = supernet(None, masks=True)

    def curvature(model: Callable[[Tensor], Any]) -> float:
        return largest_eigenvalue(lambda x: model(x).square().mean(), net.model, net.architecture, X)

    expected = curvature(net.model)
    assert expected
    found = curvature(lambda x: checkpoint(net.model, x, use_reentrant=reentrant))
    assert found == pytest.approx(expected, rel=1e-3)


def test_afterwards_torch_is_as_it_was() -> None:
    before = vars(torch.utils.checkpoint).copy()
    net = supernet("reentrant", masks=False)
    net.architecture.mix(softmax)
    net.model(X).sum().backward()
    assert vars(torch.utils.checkpoint) == before
    assert "apply" not in vars(torch.utils.checkpoint.CheckpointFunction)
    with pytest.raises(RuntimeError, match="shape"):
        net.model(torch.zeros(1, 3))
    assert vars(torch.utils.checkpoint) == before


STRATEGIES: dict[str, Callable[[], SupernetStrategy]] = {
    "first order": lambda: DARTS(candidates=1),
    "second order": lambda: DARTS(unrolled=True, candidates=1),
    "early stop": lambda: DARTS(stop=CurvatureStop(), candidates=1),
    "gumbel": lambda: GumbelDARTS(candidates=1),
    "gdas": lambda: GumbelDARTS(hard=True, candidates=1),
    "proxyless": lambda: ProxylessNAS(candidates=1),
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_trains_the_same(name: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 4, generator=generator), torch.randint(4, (16,), generator=generator))
    found = []
    for way in ("reentrant", None):
        torch.manual_seed(0)
        evaluator = Classification(data, data, batch_size=8, max_epochs=1)
        space = ModelSpace(Net, way, masks=True)
        experiment = Experiment(space, evaluator, STRATEGIES[name](), name=str(way), directory=tmp_path)
        experiment.run(progress="silent")
        (trial,) = experiment.trials
        built = experiment.export_top_models(1, formatter="model", inherit_weights=True)[0]
        found.append((trial.sample, trial.metrics, built.state_dict()))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4)
    for key, tensor in found[0][2].items():
        assert torch.allclose(tensor, found[1][2][key], rtol=1e-4, atol=1e-6)
