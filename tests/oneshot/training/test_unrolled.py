"""What the algorithms compute by calculus, against finite differences and the full matrices."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import Precision
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import LayerChoice, ModelSpace, ValueChoice
from nas.evaluators import Regression
from nas.oneshot import (
    Architecture,
    ArchitectureSteps,
    CostPenalty,
    CurvatureStop,
    RelaxedLearner,
    RelaxedSupernet,
    SoftmaxMixer,
    largest_eigenvalue,
    softmax,
)
from nas.oneshot.training.relaxed_learner import unrolled_loss
from nas.oneshot.training.steering import Steering
from nas.profile import profile
from nas.testing import differences


def network() -> nn.Module:
    """(batch, 3) -> (batch, 2), smooth, so that differences are small; with a frozen layer and batch statistics."""
    kinds = {"tanh": lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "linear": lambda: nn.Linear(4, 4, bias=False)}
    return nn.Sequential(
        nn.Linear(3, 4),
        LayerChoice(kinds, label="first"),
        nn.BatchNorm1d(4),
        LayerChoice(kinds | {"skip": nn.Identity}, label="second"),
        nn.Linear(4, 4).requires_grad_(False),
        nn.Linear(4, 2),
    )


def searched() -> tuple[Steering, RelaxedLearner, list[list[Tensor]]]:
    """A search in float64 and three batches."""
    supernet = RelaxedSupernet(ModelSpace(network), seed=3)
    learner = RelaxedLearner(supernet, SoftmaxMixer(), ArchitectureSteps())
    data = TensorDataset(torch.zeros(2, 3), torch.zeros(2, 2))
    inner = Regression(data, data, max_epochs=1).module(learner.model)
    inner.double()
    learner.double()
    search = Steering(inner, learner, metric="loss", direction="minimize", seed=0)
    with torch.no_grad():
        for parameter in learner.architecture.parameters():
            parameter.copy_(torch.linspace(-0.3, 0.5, len(parameter)))
    generator = torch.Generator().manual_seed(0)
    batches = [[torch.randn(16, n, generator=generator, dtype=torch.float64) for n in (3, 2)] for _ in range(3)]
    return search, learner, batches


def gradients_by_differences(function: Any, architecture: Architecture, step: float = 1e-5) -> list[Tensor]:
    found = []
    for parameter in architecture.parameters():
        gradient = torch.zeros_like(parameter)
        for i in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[i] += sign * step
                values.append(function().item())
                with torch.no_grad():
                    parameter.view(-1)[i] -= sign * step
            gradient.view(-1)[i] = (values[0] - values[1]) / (2 * step)
        found.append(gradient)
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_second_order_gradient_is_that_of_a_step_of_the_optimizer(momentum: float) -> None:
    search, learner, (before, train, validation) = searched()
    optimizer = torch.optim.SGD(
        [p for p in search.inner.parameters() if p.requires_grad], lr=0.2, momentum=momentum, weight_decay=0.01
    )
    search.trainer = SimpleNamespace(optimizers=[optimizer], precision_plugin=Precision())
    learner.architecture.mix(softmax)
    search.loss(before).backward()
    optimizer.step()  # so that there is momentum

    def after_a_step() -> Tensor:
        """By the optimizer itself, on a copy."""
        other_search, other_optimizer = copy.deepcopy((search, optimizer))
        architecture = other_search.learner.architecture
        architecture.load_state_dict(learner.architecture.state_dict())
        architecture.mix(softmax)
        other_optimizer.zero_grad()
        other_search.loss(train).backward()
        other_optimizer.step()
        return other_search.loss(validation)

    expected = gradients_by_differences(after_a_step, learner.architecture)
    learner.architecture.mix(softmax)
    loss = unrolled_loss(search, train, validation)
    assert loss.item() == pytest.approx(after_a_step().item(), rel=1e-12)
    found = torch.autograd.grad(loss, list(learner.architecture.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-9), (one, other)
    learner.architecture.mix(softmax)
    first_order = torch.autograd.grad(search.loss(validation), list(learner.architecture.parameters()))
    assert not torch.allclose(first_order[0], expected[0], rtol=1e-2)


def test_neither_weights_nor_batch_statistics_are_touched() -> None:
    search, learner, (_, train, validation) = searched()
    optimizers = [torch.optim.SGD(search.inner.parameters(), lr=0.2)]
    search.trainer = SimpleNamespace(optimizers=optimizers, precision_plugin=Precision())
    state = copy.deepcopy([search.inner.state_dict(), learner.state_dict()])
    learner.architecture.mix(softmax)
    unrolled_loss(search, train, validation).backward(inputs=list(learner.architecture.parameters()))
    assert differences([search.inner.state_dict(), learner.state_dict()], state) == []
    assert all(p.grad is None for p in search.inner.parameters())


def test_the_curvature_is_the_largest_eigenvalue() -> None:
    search, learner, (batch, _, _) = searched()
    architecture = learner.architecture
    parameters = list(architecture.parameters())
    found = largest_eigenvalue(search.loss, search.inner, architecture, batch, iterations=500, tolerance=1e-10)
    search.inner.eval()
    architecture.mix(softmax)
    gradients = torch.autograd.grad(search.loss(batch), parameters, create_graph=True)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(entry, parameters, retain_graph=True)])
        for gradient in gradients
        for entry in gradient
    ]
    eigenvalues = torch.linalg.eigvalsh(torch.stack(rows))
    assert found == pytest.approx(eigenvalues[eigenvalues.abs().argmax()].item(), rel=1e-5)
    search.inner.train()
    largest_eigenvalue(search.loss, search.inner, architecture, batch)
    assert all(module.training for module in search.inner.modules())


def test_the_stop_goes_by_means_over_a_window() -> None:
    stop = CurvatureStop(ratio=0.5, patience=2, window=2)
    assert not stop.says([1, 1, 100])
    assert not stop.says([1, 1, 1, 2])
    assert stop.says([1, 1, 2, 3])
    assert not stop.says([9, 9, 1, 1, 2, 2])


def choose(*widths: int) -> ModelSpace:
    kinds = {f"wide{n}": lambda n=n: nn.Sequential(nn.Linear(4, n), nn.Linear(n, 4)) for n in widths}
    return ModelSpace(
        lambda: nn.Sequential(LayerChoice(kinds, label="kind"), nn.Linear(4, ValueChoice([2, 6], label="out")))
    )


def test_the_gradient_of_a_penalty() -> None:
    space = choose(2, 4, 8)
    cost = profile(space, (1, 4)).flops
    penalty = CostPenalty(cost=cost, weight=0.7, target=100)
    architecture = RelaxedSupernet(space, seed=1).architecture.double()
    loss = penalty.expected(architecture)
    # By hand: the mean over all samples.
    kind, out = (architecture.probabilities(label).tolist() for label in ("kind", "out"))
    mean = sum(
        kind[i] * out[j] * float(cost({"kind": a, "out": b}))
        for i, a in enumerate(architecture.answers("kind"))
        for j, b in enumerate(architecture.answers("out"))
    )
    assert loss.item() == pytest.approx(0.7 * mean / 100, rel=1e-6)
    expected = gradients_by_differences(lambda: penalty.expected(architecture), architecture)
    found = torch.autograd.grad(loss, list(architecture.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-9)
        assert other.abs().max() > 1e-2
