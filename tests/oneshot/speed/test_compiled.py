"""Every differentiable algorithm finds the same with compiled cells, and with steps that are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, InputChoice, LayerChoice, Sample
from nas.evaluators import Classification
from nas.oneshot import DARTS, PCDARTS, CurvatureStop, GumbelDARTS, ProxylessNAS, Speed, SupernetStrategy

pytestmark = [
    pytest.mark.long,
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
    """One cell, as compiling takes nearly all the time of these tests."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), Block(0), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


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
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that are compiled, by the parts of the compiler that take no C++: what they compute is the same."""
    found: list[Any] = []
    torch_compile = torch.compile

    def keep(graph: Any, inputs: Any) -> Any:
        found.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def compile_quickly(function: Any, **options: Any) -> Any:
        options.pop("options", None)
        return torch_compile(function, backend=keep, **options)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    yield found
    torch.compiler.reset()


Found: TypeAlias = list[tuple[Sample, dict[str, float]]]


def search(name: str, speed: Speed, folder: Path, *, batch_size: int, epochs: int = 2) -> Found:
    """The samples that an algorithm finds, with their metrics."""
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(32, 3, 8, 8), torch.randint(2, (32,)))
    evaluator = Classification(images, images, batch_size=batch_size, max_epochs=epochs, optimizer="SGD")
    factory = edges if name == "partial" else network
    kind = f"{name}, {speed.compile}, {speed.cuda_graphs}"
    experiment = Experiment(factory, evaluator, STRATEGIES[name](speed), name=kind, directory=folder)
    experiment.run(progress="silent")
    return [(trial.sample, dict(trial.metrics)) for trial in experiment.trials]


def check_alike(found: Found, expected: Found) -> None:
    assert [sample for sample, _ in found] == [sample for sample, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


# Each compiles for seconds; the others are among the slow tests.
COMPILED = [pytest.param(n, marks=[] if n == "proxyless" else [pytest.mark.slow]) for n in STRATEGIES]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_mixtures_find_the_same(name: str, tmp_path: Path, compiled: list[Any]) -> None:
    plain = search(name, Speed(), tmp_path, batch_size=16)
    check_alike(search(name, Speed(compile=True), tmp_path, batch_size=16), plain)
    # Where one candidate is drawn, it is a convolution and nothing else; the second order runs uncompiled.
    assert len(compiled) == {"gdas": 0, "proxyless": 0, "second order": 1}.get(name, 2)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "proxyless" else ()) for n in STRATEGIES]
)
def test_recorded_steps_find_the_same_to_the_bit(name: str, tmp_path: Path, recorders: list[Any]) -> None:
    plain = search(name, Speed(cuda_graphs=False), tmp_path, batch_size=4)
    assert search(name, Speed(cuda_graphs=True), tmp_path, batch_size=4) == plain
    if name in ("gdas", "proxyless"):
        return  # what is drawn seldom comes again
    assert len(recorders) == 2 * 2
    recorders, updates = recorders[::2], recorders[1::2]
    assert all(update.replays for update in updates)
    # An epoch of 8 steps. The second order's own phase is differentiated twice.
    phases = 1 if name == "second order" else 2
    assert [recorder.replays for recorder in recorders] == [(8 - 3) * phases * 2, 8 * phases * 2]


@pytest.mark.slow
def test_compiled_mixtures_are_recorded(tmp_path: Path, compiled: list[Any], recorders: list[Any]) -> None:
    plain = search("first order", Speed(cuda_graphs=False), tmp_path, batch_size=4, epochs=1)
    speed = Speed(compile=True, cuda_graphs=True)
    check_alike(search("first order", speed, tmp_path, batch_size=4, epochs=1), plain)
    assert len(compiled) == 2
    assert recorders[0].replays == (8 - 3) * 4


@pytest.mark.slow
def test_mixtures_in_checkpoints_are_compiled(tmp_path: Path, compiled: list[Any]) -> None:
    plain = search("first order", Speed(), tmp_path, batch_size=16, epochs=1)
    speed = Speed(compile=True, checkpoint_cells=True)
    check_alike(search("first order", speed, tmp_path, batch_size=16, epochs=1), plain)
    assert len(compiled) == 2
