"""What architecture parameters are, and that everything else of an architecture follows from it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas import InputChoice, LayerChoice, ModelSpace, NasError
from nas.oneshot import (
    Architecture,
    Concentrations,
    CostPenalty,
    Logits,
    Moment,
    Parametrisation,
    RelaxedSupernet,
    Simplex,
    TwoPathMixer,
    softmax,
)
from nas.profile import profile

KINDS = (Logits(), Concentrations(), Simplex())


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 9), nn.Linear(9, 3))


class Net(nn.Module):
    """A choice of answers, one of gates."""

    def __init__(self) -> None:
        super().__init__()
        kinds = {"same": nn.Identity, "linear": lambda: nn.Linear(3, 3), "wide": wide}
        self.op = LayerChoice(kinds, label="op")
        self.inputs = InputChoice(2, None, label="inputs")

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inputs([self.op(x), x])
        return found


def supernet(kind: Parametrisation | None) -> RelaxedSupernet:
    return RelaxedSupernet(ModelSpace(Net), seed=1, parametrisation=kind)


def set_probabilities(architecture: Architecture, shares: dict[str, Tensor]) -> None:
    """Parameters that stand for these probabilities."""
    inverse = {
        Logits: lambda p: p.log() + 3.0,
        Concentrations: lambda p: torch.where(4 * p > 1, 4 * p - 1, (4 * p).log()),
        Simplex: lambda p: p,
    }[type(architecture.parametrisation)]
    with torch.no_grad():
        for label, share in shares.items():
            architecture.parameter(label).copy_(inverse(share))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_all_follows_from_the_probabilities(kind: Parametrisation) -> None:
    net = supernet(kind)
    architecture = net.architecture
    shares = {"op": torch.tensor([0.2, 0.1, 0.7]), "inputs": torch.tensor([[0.4, 0.6], [0.75, 0.25]])}
    set_probabilities(architecture, shares)
    assert torch.allclose(architecture.probabilities("op"), shares["op"])
    assert torch.allclose(architecture.probabilities("inputs"), torch.tensor([0.6, 0.25]))
    for label, share in shares.items():
        assert torch.allclose(architecture.log_probabilities(label).exp(), share)
        assert torch.allclose(architecture.entropy(label), -(share * share.log()).sum())
        for rule in (None, softmax):
            architecture.mix(*([] if rule is None else [rule]))
            assert torch.allclose(architecture.weights[label], share)
    assert net.discretise()[0] == {"op": "wide", "inputs": [0]}
    cost = profile(ModelSpace(Net), (1, 3)).parameters
    penalty = CostPenalty(cost=cost, weight=1.0, target=1.0)
    assert penalty.expected(architecture).item() == pytest.approx(0.1 * 12 + 0.7 * 66)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_step_against_the_gradient_makes_an_answer_likelier(kind: Parametrisation) -> None:
    architecture = supernet(kind).architecture
    (-architecture.log_probabilities("op")[1]).backward()
    parameter = architecture.parameter("op")
    assert parameter.grad is not None
    with torch.no_grad():
        before = architecture.probabilities("op")
        parameter -= 0.01 * parameter.grad
        assert architecture.probabilities("op")[1] > before[1]


def test_what_they_begin_with() -> None:
    usual, logits = supernet(None).architecture, supernet(Logits()).architecture
    generator = torch.Generator().manual_seed(1)
    for label in usual.labels:
        assert torch.equal(usual.parameter(label), logits.parameter(label))
        assert torch.equal(usual.logits_of(label), usual.parameter(label))
        assert torch.equal(
            usual.parameter(label), 1e-3 * torch.randn(usual.parameter(label).shape, generator=generator)
        )
    for kind in KINDS:
        shares = supernet(kind).architecture.probabilities("op")
        assert torch.allclose(shares, torch.full((3,), 1 / 3), atol=1e-2)
    assert torch.equal(supernet(Simplex()).architecture.parameter("inputs"), torch.full((2, 2), 0.5))


def test_concentrations_are_elu_plus_one() -> None:
    parameters = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    found = Concentrations().logits(parameters)
    assert torch.allclose(found.exp(), functional.elu(parameters) + 1)
    assert torch.autograd.gradcheck(Concentrations().logits, (parameters + 0.1,))
    low = torch.tensor([-200.0, -300.0], requires_grad=True)
    assert torch.allclose(Concentrations().logits(low), low), "no logarithm of 0"


def test_a_probability_of_zero_stays_finite() -> None:
    parameters = torch.tensor([0.0, 1.0], requires_grad=True)
    shares = Simplex().logits(parameters).softmax(-1)
    assert torch.allclose(shares.detach(), torch.tensor([0.0, 1.0]))
    shares[0].backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(NasError, match="a parametrisation says what the parameters are"):
        supernet(Simplex)  # type: ignore[arg-type]
    mixer = TwoPathMixer(seed=0)
    mixer.refuse(supernet(None).architecture)
    with pytest.raises(NasError, match="the parameters must be these; received 'Simplex'"):
        mixer.refuse(supernet(Simplex()).architecture)


def test_each_phase_of_a_step_has_a_seed() -> None:
    moments = [Moment(step=step, epoch=0, epochs=2) for step in (0, 1)]
    seeds = {moment.seed(base, phase) for moment in moments for base in (0, 1) for phase in ("weights", "architecture")}
    assert len(seeds) == 8
    assert moments[0].seed(0, "weights") == Moment(step=0, epoch=1, epochs=9).seed(0, "weights")
