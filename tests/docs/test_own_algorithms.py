"""The algorithms of the documentation, made of the public parts of one-shot search: DrNAS and GAEA."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet
from torch.utils.data import TensorDataset

from nas import Evaluator, Experiment, InputChoice, LayerChoice, ModelSpace, NasError, OneShotStrategy, Zero
from nas.evaluators import Classification, Regression
from nas.oneshot import Concentrations, Moment, RelaxedSupernet, Simplex
from nas.testing import OneShotContract, differences

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS))
import drnas  # noqa: E402 - it lies in the documentation, not on the path
import gaea  # noqa: E402

pytestmark = pytest.mark.long

SHORT: Any = {"epochs": 2, "checkpoint_every": 3, "candidates": 3, "recalibration": 2}


class Small(OneShotContract):
    onnx = False

    def evaluator(self, **arguments: Any) -> Evaluator:
        generator = torch.Generator().manual_seed(0)
        inputs, noise = torch.randn(64, 6, generator=generator), torch.randn(64, 3, generator=generator)
        labels = (inputs[:, :3] + 0.3 * noise).argmax(1)
        train, validation = TensorDataset(inputs[:40], labels[:40]), TensorDataset(inputs[40:], labels[40:])
        given = {"batch_size": 8, "learning_rate": 0.05, "accelerator": "cpu", "logger": False}
        return Classification(train, validation, optimizer="SGD", **(given | arguments))


@pytest.mark.slow  # CI runs the slow tests of the documentation too
class TestDrNAS(Small):
    def make(self) -> OneShotStrategy:
        return drnas.DrNAS(**SHORT)


@pytest.mark.slow  # as DrNAS is made: the planted optimum and the rules of its optimizer are tested below
class TestGAEA(Small):
    def make(self) -> OneShotStrategy:
        return gaea.GAEA(**SHORT)


def operations() -> nn.Module:
    """The targets have both signs and mix the inputs, so nothing but a Linear will do."""
    kinds = {
        "skip": nn.Identity,
        "none": Zero,
        "relu": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
        "linear": lambda: nn.Linear(8, 8),
    }
    return nn.Sequential(LayerChoice(kinds, label="operation"))


def linear_task() -> tuple[TensorDataset, TensorDataset]:
    """Pairs of (8,) and (8,) under a linear map, with some noise."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 8, generator=generator) / 8**0.5
    inputs = torch.randn(400, 8, generator=generator)
    targets = inputs @ weight + 0.1 * torch.randn(400, 8, generator=generator)
    return TensorDataset(inputs[:256], targets[:256]), TensorDataset(inputs[256:], targets[256:])


ALGORITHMS: dict[str, Callable[[], OneShotStrategy]] = {
    "drnas": lambda: drnas.DrNAS(epochs=6, learning_rate=0.05),
    "gaea": lambda: gaea.GAEA(epochs=6, learning_rate=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_planted_optimum_is_found(name: str, tmp_path: Path) -> None:
    found = []
    for seed in range(3):
        evaluator = Regression(
            *linear_task(), batch_size=32, optimizer="SGD", learning_rate=1.0, logger=False, accelerator="cpu"
        )
        search = Experiment(operations, evaluator, ALGORITHMS[name](), name=f"{seed}", directory=tmp_path, seed=seed)
        search.run(1, progress="silent")
        found.append(search.best_trial.sample)
    assert found == [{"operation": "linear"}] * 3


def two_choices() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice({"a": nn.Identity, "b": nn.Tanh, "c": nn.Sigmoid}, label="op")
            self.inputs = InputChoice(2, None, label="inputs")

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.inputs([self.op(x), x])
            return found

    return Net()


def test_the_weights_of_drnas_are_samples_of_the_distributions() -> None:
    """Their mean over many steps is that of the distribution, which is what is derived and shown."""
    net = RelaxedSupernet(ModelSpace(two_choices), parametrisation=Concentrations())
    architecture = net.architecture
    with torch.no_grad():
        architecture.parameter("op").copy_(torch.tensor([2.0, -1.0, 0.5]))
        architecture.parameter("inputs").copy_(torch.tensor([[1.0, 0.0], [-0.5, 3.0]]))
    mixer, drawn = drnas.DirichletMixer(seed=3), []
    for step in range(800):
        architecture.mix(mixer.rule(Moment(step=step, epoch=0, epochs=1), "weights"))
        drawn.append({label: weights.detach().clone() for label, weights in architecture.weights.items()})
    for label in ("op", "inputs"):
        mean = torch.stack([weights[label] for weights in drawn]).mean(0)
        expected = architecture.log_probabilities(label).detach().exp()
        assert torch.allclose(mean, expected, atol=0.03)
    assert not torch.equal(drawn[0]["inputs"][0], drawn[0]["inputs"][1]), "each gate has a draw of its own"
    again = drnas.DirichletMixer(seed=3)
    architecture.mix(again.rule(Moment(step=7, epoch=0, epochs=1), "weights"))
    assert differences(architecture.weights, drawn[7]) == []
    concentration = torch.nn.functional.elu(architecture.parameter("op").detach()) + 1
    assert torch.allclose(architecture.probabilities("op"), Dirichlet(concentration).mean)


def test_the_anchor_of_drnas_is_the_uniform_distribution() -> None:
    architecture = RelaxedSupernet(ModelSpace(two_choices), parametrisation=Concentrations()).architecture
    with torch.no_grad():
        for parameter in architecture.parameters():
            parameter.zero_()
    assert drnas.anchored(architecture, weight=1.0).item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        architecture.parameter("op")[0] = 1.0
    loss = drnas.anchored(architecture, weight=1.0)
    loss.backward()
    assert loss.item() > 0
    gradient = architecture.parameter("op").grad
    assert gradient is not None
    assert gradient[0] > 0, "a step leads back"


class TestExponentiatedGradient:
    gradients: ClassVar = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])

    def test_it_multiplies_and_normalises(self) -> None:
        weights = nn.Parameter(torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]))
        before = weights.detach().clone()
        weights.grad = self.gradients.clone()
        gaea.ExponentiatedGradient([weights], lr=0.5).step()
        expected = before * torch.exp(-0.5 * self.gradients)
        assert torch.allclose(weights.detach(), expected / expected.sum(1, keepdim=True))

    def test_it_stays_on_the_simplex(self) -> None:
        """Also where a weight has become 0."""
        net = RelaxedSupernet(ModelSpace(two_choices), parametrisation=Simplex())
        optimizer = gaea.ExponentiatedGradient(net.architecture.parameters(), lr=50.0)
        for _ in range(20):
            net.architecture.mix()
            optimizer.zero_grad()
            net.model(torch.full((4,), 2.0)).square().sum().backward()
            optimizer.step()
            for parameter in net.architecture.parameters():
                assert (parameter >= 0).all()
                assert torch.allclose(parameter.sum(-1), torch.ones(()))
        assert net.discretise()[0]["op"] == "c", "the smallest output"


def test_unknown_arguments_are_explained() -> None:
    with pytest.raises(NasError, match=r"DrNAS has no argument 'epoch'.*'epochs'"):
        drnas.DrNAS(epoch=3)
