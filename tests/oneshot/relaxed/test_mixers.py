"""How logits become the weights of mixtures: draws of the Gumbel softmax, and binarised paths."""

import pytest
import torch
from torch import nn

from nas import LayerChoice, ModelSpace, ValueChoice
from nas.oneshot import GumbelMixer, Moment, RelaxedSupernet, TwoPathMixer


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
