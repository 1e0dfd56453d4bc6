"""Every differentiable algorithm finds the same with compiled cells, and with steps that are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, InputChoice, LayerChoice
from nas.evaluators import Classification
from nas.oneshot import DARTS, PCDARTS, CurvatureStop, GumbelDARTS, ProxylessNAS, Speed
from nas.oneshot.strategy import SupernetStrategy

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # torch looks at it itself
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


class Block(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        kernels = {f"c{k}": lambda k=k: nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
        self.op = LayerChoice({**kernels, "skip": nn.Identity}, label=f"op{number}")
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.op(x)))


def network() -> nn.Module:
    blocks = [Block(number) for number in range(3)]
    return nn.Sequential(nn.Conv2d(3, 4, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class Node(nn.Module):
    """Edges, whose channels may be partial."""

    def __init__(self) -> None:
        super().__init__()
        self.input = InputChoice(2, 2, replace=False, each=self._edge, label="node")

    @staticmethod
    def _edge(number: int) -> nn.Module:
        kernels = {f"c{k}": lambda k=k: nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
        return LayerChoice({**kernels, "skip": nn.Identity}, label=f"edge{number}")

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.input([x, torch.relu(x)])
        return found


def edges() -> nn.Module:
    nodes = nn.Sequential(Node())
    return nn.Sequential(nn.Conv2d(3, 4, 3), nodes, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


STRATEGIES: dict[str, Callable[[Speed], SupernetStrategy]] = {
    "first order": lambda speed: DARTS(speed=speed, candidates=2),
    "second order": lambda speed: DARTS(unrolled=True, speed=speed, candidates=2),
    "early stop": lambda speed: DARTS(stop=CurvatureStop(), speed=speed, candidates=2),
    "gumbel": lambda speed: GumbelDARTS(speed=speed, candidates=2),
    "gdas": lambda speed: GumbelDARTS(hard=True, speed=speed, candidates=2),
    "proxyless": lambda speed: ProxylessNAS(speed=speed, candidates=2),
    "partial": lambda speed: PCDARTS(partial_channels=2, warmup_epochs=0, speed=speed, candidates=2),
}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The modules that are compiled, by the parts of the compiler that take no C++: what they compute is the same."""
    found: list[str] = []
    compile_module = nn.Module.compile

    def compile_quickly(self: nn.Module, **options: Any) -> None:
        found.append(type(self).__name__)
        compile_module(self, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    # Cells whose candidates are drawn run as they stand all the sooner.
    with torch._dynamo.config.patch(recompile_limit=4):
        yield found


@pytest.mark.parametrize("name", STRATEGIES)
def test_compiled_cells_find_the_same(name: str, tmp_path: Path, compiled: list[str]) -> None:
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(32, 3, 8, 8), torch.randint(2, (32,)))
    found = []
    for on in (False, True):
        evaluator = Classification(images, images, batch_size=16, max_epochs=2)
        factory = edges if name == "partial" else network
        strategy = STRATEGIES[name](Speed(compile=on))
        experiment = Experiment(factory, evaluator, strategy, name=f"{on}", directory=tmp_path)
        experiment.run(progress="silent")
        found.append([(trial.sample, trial.metrics) for trial in experiment.trials])
    plain, quick = found
    assert compiled == (["Node"] if name == "partial" else ["Block"] * 3)
    assert [sample for sample, _ in plain] == [sample for sample, _ in quick]
    for (_, expected), (_, metrics) in zip(plain, quick, strict=True):
        assert metrics == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", STRATEGIES)
def test_recorded_steps_find_the_same_to_the_bit(name: str, tmp_path: Path, recorders: list[Any]) -> None:
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(32, 3, 8, 8), torch.randint(2, (32,)))
    found = []
    for on in (False, True):
        evaluator = Classification(images, images, batch_size=4, max_epochs=2)
        factory = edges if name == "partial" else network
        strategy = STRATEGIES[name](Speed(cuda_graphs=on))
        experiment = Experiment(factory, evaluator, strategy, name=f"{on}", directory=tmp_path)
        experiment.run(progress="silent")
        found.append([(trial.sample, trial.metrics) for trial in experiment.trials])
    assert found[0] == found[1]
    # An epoch of 8 steps. The second order's own phase is differentiated twice, and what is drawn seldom comes again.
    phases = {"second order": 1, "gdas": None, "proxyless": None}.get(name, 2)
    assert len(recorders) == 1 + 1  # anew in the second epoch
    if phases is not None:
        assert [recorder.replays for recorder in recorders] == [(8 - 3) * phases * 2, 8 * phases * 2]


def test_compiled_cells_are_recorded(tmp_path: Path, compiled: list[str], recorders: list[Any]) -> None:
    images = TensorDataset(torch.randn(32, 3, 8, 8), torch.randint(2, (32,)))
    found = []
    for speed in (Speed(), Speed(compile=True, cuda_graphs=True)):
        torch.manual_seed(0)
        evaluator = Classification(images, images, batch_size=4, max_epochs=1)
        strategy = DARTS(speed=speed, candidates=2)
        experiment = Experiment(network, evaluator, strategy, name=f"{speed.compile}", directory=tmp_path)
        experiment.run(progress="silent")
        found.append([(trial.sample, trial.metrics) for trial in experiment.trials])
    assert compiled == ["Block"] * 3
    assert recorders[-1].replays == (8 - 3) * 4
    plain, quick = found
    assert [sample for sample, _ in plain] == [sample for sample, _ in quick]
    for (_, expected), (_, metrics) in zip(plain, quick, strict=True):
        assert metrics == pytest.approx(expected, rel=1e-3)


def test_cells_of_one_class_do_not_use_up_each_others_compilations(tmp_path: Path, compiled: list[str]) -> None:
    """Three of them, in two phases and two modes, are more than the four that torch is told to make of one forward."""
    images = TensorDataset(torch.randn(8, 3, 8, 8), torch.randint(2, (8,)))
    evaluator = Classification(images, images, batch_size=4, max_epochs=1)
    strategy = DARTS(speed=Speed(compile=True), candidates=1)
    experiment = Experiment(network, evaluator, strategy, name="three", directory=tmp_path)
    with torch._dynamo.config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
        experiment.run(progress="silent")
    assert compiled == ["Block"] * 3
