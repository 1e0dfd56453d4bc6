"""What a mixture costs: the plain loop over the candidates, and the same supernet made quick, side by side."""

from collections.abc import Callable, Sequence

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional

from nas import LayerChoice, ModelSpace
from nas.model_zoo import darts
from nas.oneshot import RelaxedSupernet, frozen, optimise, weighted_sum


def loop(outputs: Sequence[Tensor | None], weights: Tensor) -> Tensor:
    """What everybody writes."""
    terms = [output * weight for output, weight in zip(outputs, weights.unbind(), strict=True) if output is not None]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def kernels() -> nn.Module:
    return LayerChoice({str(k): lambda k=k: nn.Conv2d(16, 32, k, padding=k // 2) for k in (1, 3, 5)}, label="kernel")  # type: ignore[misc]


SPACES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "kernels": (kernels, (64, 16, 14, 14)),
    "darts": (lambda: darts(channels=16, cells=3, none=True), (8, 3, 32, 32)),
}


@pytest.mark.benchmark(group="mixed operation")
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_step(benchmark: BenchmarkFixture, name: str, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the architecture and one of the weights."""
    torch.set_num_threads(1)
    factory, shape = SPACES[name]
    net, x = RelaxedSupernet(ModelSpace(factory)), torch.randn(shape)
    if quick:
        optimise(net, (x[:2],))
    else:
        monkeypatch.setattr("nas.oneshot.relaxed.mixtures.weighted_sum", loop)

    def step() -> None:
        for of_architecture in (True, False):
            with frozen(net.model.parameters(), quick and of_architecture), torch.set_grad_enabled(of_architecture):
                net.architecture.mix()
            with frozen(net.model.parameters(), quick and of_architecture):
                loss = functional.mse_loss(y := net.model(x), torch.zeros_like(y))
            asked = [*net.architecture.parameters()] if of_architecture else []
            asked += [] if quick and of_architecture else [*net.model.parameters()]
            torch.autograd.grad(loss, asked, allow_unused=True)

    benchmark.pedantic(step, rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="weighted sum")
@pytest.mark.parametrize("way", ["loop", "operator"])
def test_weighted_sum(benchmark: BenchmarkFixture, way: str) -> None:
    """Of eight candidates, with all gradients."""
    torch.set_num_threads(1)
    outputs = [torch.randn(16, 16, 32, 32, requires_grad=True) for _ in range(8)]
    weights = torch.rand(8, requires_grad=True)
    add = loop if way == "loop" else weighted_sum
    toward = torch.randn(16, 16, 32, 32)
    benchmark.pedantic(
        lambda: torch.autograd.grad(add(outputs, weights), [*outputs, weights], toward), rounds=20, warmup_rounds=2
    )
