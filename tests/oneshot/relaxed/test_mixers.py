"""How logits become the weights of mixtures: draws of the Gumbel softmax, and binarised paths."""

import pytest
import torch
from torch import Tensor, nn

from nas import Cell, InputChoice, LayerChoice, ModelSpace, Repeat, ValueChoice
from nas.oneshot import GumbelMixer, Moment, RelaxedSupernet, Speed, SumMixer, TwoPathMixer, optimise


def choose(*widths: int) -> ModelSpace:
    kinds = {f"wide{n}": lambda n=n: nn.Sequential(nn.Linear(4, n), nn.Linear(n, 4)) for n in widths}
    return ModelSpace(
        lambda: nn.Sequential(LayerChoice(kinds, label="kind"), nn.Linear(4, ValueChoice([2, 6], label="out")))
    )


def at(step: int, *, epoch: int = 0, epochs: int = 1) -> Moment:
    return Moment(step=step, epoch=epoch, epochs=epochs)


def test_two_paths_keep_what_they_have_together() -> None:
    architecture = RelaxedSupernet(choose(1, 2, 3, 4, 5), seed=1).architecture
    mixer = TwoPathMixer(seed=5)
    seen = set()
    for step in range(20):
        before = architecture.probabilities("kind").detach()
        architecture.mix(mixer.rule(at(step), "architecture"))
        weights = architecture.weights["kind"]
        assert sorted(weights.tolist()) == [0, 0, 0, 0, 1]
        (gradient,) = torch.autograd.grad((weights * torch.arange(5.0)).sum(), [architecture.parameter("kind")])
        pair = gradient.nonzero().flatten()
        assert len(pair) == 2
        with torch.no_grad():
            architecture.parameter("kind").sub_(0.3 * gradient)
        mixer.after_architecture_step(architecture)
        after = architecture.probabilities("kind").detach()
        assert after[pair].sum().item() == pytest.approx(before[pair].sum().item(), rel=1e-5)
        assert not torch.equal(after[pair], before[pair])
        others = [i for i in range(5) if i not in pair]
        assert torch.allclose(after[others], before[others])
        seen.add(tuple(pair.tolist()))
    assert len(seen) > 5
    architecture.mix(mixer.rule(at(0), "weights"))
    assert sorted(architecture.weights["kind"].tolist()) == [0, 0, 0, 0, 1]


def test_the_temperature_reaches_its_end() -> None:
    mixer = GumbelMixer(start=8.0, end=0.5, hard=False, seed=0)
    temperatures = [mixer.temperature(epoch, 7) for epoch in range(7)]
    assert temperatures[0] == 8.0
    assert temperatures[-1] == pytest.approx(0.5)
    assert temperatures == sorted(temperatures, reverse=True)
    assert mixer.temperature(0, 1) == 0.5
    architecture = RelaxedSupernet(choose(1, 2, 3), seed=1).architecture
    sharpest = []
    for epoch in (0, 6):
        draws = []
        for step in range(50):
            architecture.mix(mixer.rule(at(step, epoch=epoch, epochs=7), "weights"))
            assert architecture.weights["kind"].sum().item() == pytest.approx(1.0)
            draws.append(architecture.weights["kind"].max().item())
        sharpest.append(sum(draws) / len(draws))
    assert sharpest[0] < 0.5 < 0.75 < sharpest[1]


def test_hard_draws_are_exactly_0_and_1_and_their_gradient_is_soft() -> None:
    architecture = RelaxedSupernet(choose(1, 2, 3), seed=1).architecture
    hard, soft = (GumbelMixer(start=2.0, end=1.0, hard=hard, seed=0) for hard in (True, False))
    drawn = set()
    for step in range(50):
        gradients = []
        for mixer in (hard, soft):
            architecture.mix(mixer.rule(at(step), "architecture"))
            weights = architecture.weights["kind"]
            loss = (weights * torch.arange(3.0)).sum()
            gradients.append(torch.autograd.grad(loss, [architecture.parameter("kind")])[0])
            if mixer is hard:
                assert sorted(weights.tolist()) == [0.0, 0.0, 1.0]
                drawn.add(weights.argmax().item())
        assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
        assert gradients[0].abs().sum() > 0
    assert drawn == {0, 1, 2}


class Whole(nn.Module):
    """Choices of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 6, 4], label="width")
        self.into, self.out = nn.Linear(4, width), nn.Linear(width, 4)
        self.op = LayerChoice({"a": lambda: nn.Linear(4, 4), "tanh": nn.Tanh, "same": nn.Identity}, label="op")
        self.depth = Repeat(lambda i: nn.Linear(4, 4), (1, 3), label="depth")
        self.one, self.mean = InputChoice(3, 1, label="one"), InputChoice(3, 1, reduction="mean", label="mean")
        self.two, self.twice = InputChoice(3, 2, replace=False, label="two"), InputChoice(3, 2, label="twice")
        self.some = InputChoice(3, None, label="some")

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(self.op(self.out(self.into(x).relu())))
        inputs = [x, x * x, x.sin()]
        picked: Tensor = self.one(inputs) + 2 * self.two(inputs) + 3 * self.mean(inputs)
        some: Tensor | None = self.some(inputs)
        y: Tensor = picked + 5 * self.twice(inputs) + (0 if some is None else 4 * some)
        return y


def mix_whole(net: RelaxedSupernet) -> None:
    net.architecture.mix(SumMixer(net.architecture).rule(at(0), "weights"))


@pytest.mark.parametrize("quick", [False, True])
def test_a_whole_supernet_adds_all_there_is(quick: bool) -> None:
    net, x = RelaxedSupernet(ModelSpace(Whole)), torch.randn(3, 4)
    if quick:
        optimise(net, x, Speed(merge=True))
    mix_whole(net)
    weights = dict(net.model.named_parameters())

    def linear(name: str, x: Tensor) -> Tensor:
        return nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    h = linear("out", linear("into", x).relu())
    h = linear("op.candidates.0", h) + h.tanh() + h
    for i in range(3):
        h = linear(f"depth.{i}", h)
    total = h + h * h + h.sin()
    expected = total + 2 * total + 3 * total / 3 + 4 * total + 5 * total
    found = net.model(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in net.model.parameters())
    assert all(parameter.grad is None for parameter in net.architecture.parameters())


def test_a_cell_that_is_whole_adds_all_its_edges() -> None:
    operations = {"tanh": lambda _: nn.Tanh(), "same": lambda _: nn.Identity()}
    net = RelaxedSupernet(ModelSpace(lambda: Cell(operations, nodes=1, label="cell", distinct=True, output="all")))
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    mix_whole(net)
    assert torch.allclose(net.model(x, y), x + x.tanh() + y + y.tanh(), atol=1e-6)


def test_a_supernet_trained_whole_is_judged_with_the_others_switched_off() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=generator)
    target = (x[:, :1] * x[:, 1:2]).sign()
    useless = lambda: nn.Sequential(nn.Linear(4, 4), nn.Identity())  # noqa: E731
    useful = lambda: nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))  # noqa: E731
    space = ModelSpace(
        lambda: nn.Sequential(
            LayerChoice({"linear": useless, "hidden": useful}, label="op"), nn.BatchNorm1d(4), nn.Linear(4, 1)
        )
    )
    net = RelaxedSupernet(space)
    net.check(x)
    mixer = SumMixer(net.architecture)
    assert not mixer.learns
    mixer.refuse(net.architecture)
    optimizer = torch.optim.Adam(net.model.parameters(), lr=0.03)
    before = [parameter.clone() for parameter in net.architecture.parameters()]
    for step in range(150):
        net.architecture.mix(mixer.rule(at(step), "weights"))
        optimizer.zero_grad()
        nn.functional.mse_loss(net.model(x), target).backward()
        optimizer.step()
    assert all(map(torch.equal, before, net.architecture.parameters()))
    losses = {}
    for sample in space.grid():
        net.architecture.one_hot(sample)
        net.model.train()
        losses[sample["op"]] = float(nn.functional.mse_loss(net.model(x), target).detach())
        built = net.extract(sample)
        assert torch.allclose(net.model.eval()(x), built.eval()(x), atol=1e-5)
    assert losses["hidden"] < 0.8 * losses["linear"], losses
