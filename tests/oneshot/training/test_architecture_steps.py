"""How architecture parameters are optimised: by Adam, or by another optimizer, with a loss of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD, Adam
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice, ModelSpace, NasError
from nas.evaluators import Classification
from nas.oneshot import DARTS, PCDARTS, Architecture, ArchitectureSteps, RelaxedLearner, RelaxedSupernet, SoftmaxMixer
from nas.oneshot.training.architecture_steps import on_device


def network() -> nn.Module:
    kinds = {"tanh": nn.Tanh, "linear": lambda: nn.Linear(3, 3), "same": nn.Identity}
    return nn.Sequential(LayerChoice(kinds, label="op"), nn.Linear(3, 3))


def learner(steps: ArchitectureSteps) -> RelaxedLearner:
    return RelaxedLearner(RelaxedSupernet(ModelSpace(network)), SoftmaxMixer(), steps)


def test_adam_is_left_as_it_is_on_a_cpu() -> None:
    made = ArchitectureSteps().make_optimizer([nn.Parameter(torch.zeros(2))])
    on_device(made)
    assert made.param_groups[0]["fused"] is None


@pytest.mark.parametrize(("given", "expected"), [({}, True), ({"foreach": True}, None), ({"fused": False}, False)])
def test_adam_steps_in_one_kernel_on_a_device(given: dict[str, bool], expected: bool | None) -> None:
    with FakeTensorMode():
        optimizer = Adam([nn.Parameter(torch.zeros(2, device="cuda"))], **given)
    on_device(optimizer)
    assert optimizer.param_groups[0]["fused"] is expected
    sgd = SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    on_device(sgd)
    assert sgd.param_groups[0]["fused"] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_one_kernel_finds_the_same() -> None:
    found = []
    for fuses in (True, False):
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.randn(8, device="cuda"))
        optimizer = ArchitectureSteps().make_optimizer([parameter])
        if fuses:
            on_device(optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            parameter.square().sum().backward()
            optimizer.step()
        found.append(parameter.detach())
    torch.testing.assert_close(*found)


def searched(folder: Path, strategy: DARTS) -> Tensor:
    """The logits after a search of 2 epochs of 5 steps."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 3, generator=generator)
    pairs = TensorDataset(inputs, inputs.argmax(1))
    evaluator = Classification(
        pairs, pairs, batch_size=8, max_epochs=2, optimizer="SGD", accelerator="cpu", logger=False
    )
    search = Experiment(network, evaluator, strategy, name="search", directory=folder)
    search.run(1, progress="silent")
    state = torch.load(search.path / "supernet" / "last.ckpt", weights_only=True)["nas"]["learner"]
    found: Tensor = state["architecture.logits.[op]"]
    return found


def test_adam_with_the_values_of_darts_is_usual(tmp_path: Path) -> None:
    (usual,) = learner(ArchitectureSteps()).optimizers()
    assert isinstance(usual, Adam)
    group = usual.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-3)

    def adam(parameters: list[nn.Parameter]) -> Adam:
        return Adam(parameters, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    assert torch.equal(searched(tmp_path / "1", DARTS()), searched(tmp_path / "2", DARTS(optimizer=adam)))


def test_another_optimizer_takes_the_steps(tmp_path: Path) -> None:
    """A rate of 0 leaves the parameters as they began."""
    begun = RelaxedSupernet(ModelSpace(network)).architecture.parameter("op").detach()
    still = searched(tmp_path / "still", DARTS(optimizer=lambda parameters: SGD(parameters, lr=0.0)))
    assert torch.equal(still, begun)
    moved = searched(tmp_path / "moved", DARTS(optimizer=lambda parameters: SGD(parameters, lr=1.0)))
    assert (moved - begun).abs().max() > 1e-2


@pytest.mark.parametrize("unrolled", [False, True])
def test_an_extra_loss_is_minimised_too(unrolled: bool, tmp_path: Path) -> None:
    """A large one alone decides: here for the third answer."""

    def third(architecture: Architecture) -> Tensor:
        return -100 * architecture.log_probabilities("op")[2]

    found = searched(tmp_path, DARTS(unrolled=unrolled, learning_rate=0.1, extra_loss=third))
    assert found.argmax() == 2
    assert found.softmax(0)[2] > 0.5


def test_the_warm_up_of_the_paper_stays_with_an_optimizer_of_ones_own() -> None:
    strategy = PCDARTS(optimizer=lambda parameters: SGD(parameters, lr=0.1))
    assert strategy._steps.warmup_epochs == 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": lambda parameters: "SGD"}, "optimizer must make a torch optimizer; received 'SGD'"),
        ({"extra_loss": lambda architecture: 1.0}, "extra_loss must yield a scalar tensor that depends on"),
        ({"extra_loss": lambda architecture: torch.ones(())}, "extra_loss must yield a scalar tensor"),
        ({"extra_loss": lambda architecture: architecture.parameter("op")}, "extra_loss must yield a scalar tensor"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(NasError, match=message):
        learner(ArchitectureSteps(**arguments))
