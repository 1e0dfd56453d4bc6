"""What is alike in many mixtures is compiled once, computes the same, and falls back where it cannot be compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import LayerChoice, ModelSpace, NasValueError, ValueChoice
from nas.model_zoo import darts
from nas.oneshot import RelaxedSupernet, Report, Speed, compile_whole, frozen, optimise
from nas.oneshot.speed.compilation import Compiler
from nas.oneshot.speed.whole_passes import uncompiled


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that are compiled, by a backend that runs them as they are."""
    made: list[Any] = []
    torch_compile = torch.compile

    def count(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph

    def compile_quickly(function: Any, **options: Any) -> Any:
        options.pop("options", None)
        return torch_compile(function, backend=count, **options)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    yield made
    torch.compiler.reset()


def convolution(kernel: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, kernel, padding=kernel // 2), nn.BatchNorm2d(4))


class Block(nn.Module):
    """A mixture of its own label, and what stands around it."""

    def __init__(self, label: str, **more: Callable[[], nn.Module]) -> None:
        super().__init__()
        candidates = {"a": convolution(1), "b": convolution(3), "pool": lambda: nn.AvgPool2d(3, 1, 1)}
        self.op = LayerChoice({**candidates, **more}, label=label)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.op(x)
        return found


def blocks(number: int, **more: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(1, 4, 3), *(Block(f"op{i}", **more) for i in range(number)))


X = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def make(factory: Callable[[], nn.Module], speed: Speed | None, x: Tensor = X) -> tuple[RelaxedSupernet, Report]:
    net = RelaxedSupernet(ModelSpace(factory))
    net.model.to(x.dtype).train()
    net.architecture.to(x.dtype)
    report = Report()
    if speed is not None:
        report = optimise(net, (x[:2],), speed)
        compile_whole(net, speed, report)
    return net, report


def step(net: RelaxedSupernet, x: Tensor = X) -> list[Tensor]:
    """What a step of the architecture and one of the weights compute."""
    weights, architecture = list(net.model.parameters()), list(net.architecture.parameters())
    found: list[Any] = []
    with frozen(weights):
        net.architecture.mix()
        found += torch.autograd.grad(net.model(x).square().sum(), architecture)
    with torch.no_grad():
        net.architecture.mix()
    y = net.model(x)
    found += [y, *torch.autograd.grad(y.square().sum(), weights, allow_unused=True)]
    return [each for each in [*found, *(b.clone() for b in net.model.buffers())] if each is not None]


def check_alike(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float = 1e-10) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=tolerance, atol=tolerance)


def test_mixtures_of_one_structure_are_compiled_once_for_each_phase(graphs: list[Any]) -> None:
    counts = []
    for number in (3, 5):
        net, report = make(blocks(number), Speed(compile=True))
        plain, _ = make(blocks(number), None)
        for _ in range(3):
            check_alike(step(net), step(plain))
        counts.append(len(graphs))
        graphs.clear()
        assert f"{number} pieces of 1 structures are compiled; {counts[-1]} compilations" in report.whole[-1]
    # In the phase of the architecture what the first of them reads needs no gradient.
    assert counts == [3, 3]


@pytest.mark.slow
def test_another_size_is_compiled_where_it_is_no_exception(graphs: list[Any]) -> None:
    net, _ = make(blocks(1), Speed(compile=True))
    plain, _ = make(blocks(1), None)
    for number in range(1, 24):
        last = number % 12 == 0
        check_alike(step(net, X[:2] if last else X), step(plain, X[:2] if last else X))
    assert len(graphs) == 2, "the last batch of an epoch runs as it is"
    net, _ = make(blocks(1), Speed(compile=True))
    for _ in range(3):
        step(net)
        step(net, X[:2])
    assert len(graphs) == 2 + 4


class Waiting(nn.Module):
    """It looks at numbers, which no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if float(x.sum()) > 1e9 else x * self.weight * 2


def test_what_cannot_be_compiled_runs_as_it_is_with_a_line_in_the_report(graphs: list[Any]) -> None:
    odd = {"odd": lambda: nn.Sequential(nn.Tanh(), Waiting(), nn.BatchNorm2d(4))}
    net, report = make(blocks(2, **odd), Speed(compile=True))
    plain, _ = make(blocks(2, **odd), None)
    for _ in range(2):
        check_alike(step(net), step(plain))
    said = [line for line in report.kept if "is not compiled" in line]
    assert [line.partition(" is not compiled: ")[0] for line in said] == [
        "LayerChoice 'op0'",
        "candidate 'odd' of LayerChoice 'op0'",
    ]
    assert graphs, "the other candidates are"
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize("name", ["blocks", "widths"])
def test_an_error_of_the_compiler_is_none_of_the_search(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_compile = torch.compile

    def fail(graph: Any, inputs: Any) -> Any:
        raise ValueError("no compiler here\nat all")

    monkeypatch.setattr(torch, "compile", lambda f, options=None, **kwargs: torch_compile(f, backend=fail, **kwargs))
    factory = blocks(2) if name == "blocks" else widths
    net, report = make(factory, Speed(compile=True))
    plain, _ = make(factory, None)
    for _ in range(2):
        check_alike(step(net), step(plain))
    said = [line for line in report.kept if "is not compiled" in line]
    assert len(said) == {"blocks": 3, "widths": 1}[name], "the mixture, and two candidates of several layers"
    assert "no compiler here" in said[0]
    assert "\n" not in said[0]
    torch.compiler.reset()


class Writing(nn.Module):
    """It writes into what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


def test_what_writes_into_what_others_read_is_not_compiled(graphs: list[Any]) -> None:
    writes = {"w": lambda: nn.Sequential(nn.AvgPool2d(5, 1, 2), Writing(), nn.BatchNorm2d(4))}
    net, report = make(blocks(1, **writes), Speed(compile=True))
    plain, _ = make(blocks(1, **writes), None)
    for _ in range(2):
        check_alike(step(net), step(plain))
    assert any("it writes into its input" in line for line in report.kept)


def test_candidates_that_are_drawn_are_compiled_one_by_one(graphs: list[Any]) -> None:
    nets = [make(blocks(3), speed)[0] for speed in (Speed(compile=True), None)]
    for position in (0, 1, 2, 1, 0):
        found = []
        for net in nets:
            net.architecture.mix(lambda label, logits: (logits.softmax(-1) * (torch.arange(3) == position), [position]))  # noqa: B023
            y = net.model(X)
            wanted = [*net.model.parameters(), *net.architecture.parameters()]
            found.append([y, *(g for g in torch.autograd.grad(y.sum(), wanted, allow_unused=True) if g is not None)])
        check_alike(found[0], found[1])
    assert len(graphs) == 2, "the two that have several layers, for all mixtures"


def test_passes_without_gradients_and_the_second_order_run_as_they_are(graphs: list[Any]) -> None:
    net, _ = make(blocks(1), Speed(compile=True))
    net.architecture.mix()
    with torch.no_grad():
        net.model(X)
    with uncompiled(net.model):
        (first,) = torch.autograd.grad(net.model(X).square().sum(), net.model[0].weight, create_graph=True)  # type: ignore[index]
        assert torch.autograd.grad(first.square().sum(), list(net.architecture.parameters()))[0].any()
    assert not graphs


@pytest.mark.slow
def test_what_changes_from_step_to_step_is_seen(graphs: list[Any]) -> None:
    drops = {"drop": lambda: nn.Sequential(nn.Dropout(0.0), nn.Conv2d(4, 4, 1))}
    net, _ = make(blocks(1, **drops), Speed(compile=True))
    plain, _ = make(blocks(1, **drops), Speed())  # lies alike in memory, so that the same numbers are dropped
    for number in range(12):  # more often than torch compiles one function
        found = []
        for each in (net, plain):
            for module in each.model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = number / 20
                elif isinstance(module, nn.BatchNorm2d):
                    module.train(number != 5)
            torch.manual_seed(number)
            found.append(step(each))
        check_alike(found[0], found[1])


def test_a_candidate_that_somebody_listens_to_is_called(graphs: list[Any]) -> None:
    net, _ = make(blocks(1), Speed(compile=True))
    plain, _ = make(blocks(1), None)
    check_alike(step(net), step(plain))
    heard: list[str] = []
    norm = next(module for module in net.model.modules() if isinstance(module, nn.BatchNorm2d))
    handle = norm.register_forward_hook(lambda *_: heard.append("called"))
    check_alike(step(net), step(plain))
    assert len(heard) == 2
    handle.remove()
    check_alike(step(net), step(plain))
    assert len(heard) == 2


def test_undone_nothing_is_compiled(graphs: list[Any]) -> None:
    net, report = make(blocks(1), Speed(compile=True))
    report.undo()
    step(net)
    assert not graphs


def test_progress_is_shown_while_it_compiles(graphs: list[Any]) -> None:
    seconds, said = iter(range(0, 1000, 4)), list[str]()
    report = Report()
    compiler = Compiler(report, note=said.append, clock=lambda: next(seconds))
    for number in range(3):
        chain = (nn.Conv2d(2, 2, 1), *(nn.Tanh() for _ in range(number + 1)))
        piece = compiler.piece("candidate", [chain])
        assert compiler.run(piece, [torch.ones(1, 2, 3, 3)]) is not None
    assert said == ["supernet: compiling 2 of 4 (4 s)", "supernet: compiling 3 of 6 (8 s)"]
    assert report.whole == ["3 pieces of 3 structures are compiled; 3 compilations took 12 s"]


def test_outputs_of_two_shapes_are_refused_as_ever(graphs: list[Any]) -> None:
    def network(stride: int) -> nn.Module:
        kernels = {"a": convolution(3), "b": lambda: nn.Sequential(nn.Conv2d(4, 4, 1, stride), nn.BatchNorm2d(4))}
        return nn.Sequential(nn.Conv2d(1, 4, 3), LayerChoice(kernels, label="op"))

    net = RelaxedSupernet(ModelSpace(lambda: network(1)))
    net.model.double()
    net.architecture.double()
    speed = Speed(compile=True)
    compile_whole(net, speed, optimise(net, (X,), speed))
    net.model[1].candidates[1][0].stride = (2, 2)  # type: ignore[index]
    net.architecture.mix()
    with pytest.raises(NasValueError, match="only outputs of one shape can be mixed"):
        net.model(X)


def widths() -> nn.Module:
    width = ValueChoice([2, 4], label="width")
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2, 1))


def test_a_model_without_mixtures_of_layers_is_compiled_as_a_whole(graphs: list[Any]) -> None:
    net, report = make(widths, Speed(compile=True))
    plain, _ = make(widths, None)
    for _ in range(3):
        check_alike(step(net), step(plain))
    assert len(graphs) == 2, report
    assert "the model is compiled as a whole" in report.whole


def wide_mixtures() -> nn.Module:
    width = ValueChoice([2, 4], label="width")

    def candidate(kernel: int) -> Callable[[], nn.Module]:
        return lambda: nn.Sequential(
            nn.ReLU(), nn.Conv2d(4, width, kernel, padding=kernel // 2), nn.Tanh(), nn.Conv2d(width, 4, 1)
        )

    kernels = {"a": candidate(1), "b": candidate(3)}
    return nn.Sequential(nn.Conv2d(1, 4, 3), *(LayerChoice(kernels, label=f"op{i}") for i in range(2)))


def test_masked_parameters_are_compiled(graphs: list[Any]) -> None:
    net, report = make(wide_mixtures, Speed(compile=True))
    plain, _ = make(wide_mixtures, None)
    for _ in range(3):
        check_alike(step(net), step(plain))
    assert len(graphs) <= 3
    assert not any("is not compiled" in line for line in report.kept)


def test_mixed_precision_is_another_compilation(graphs: list[Any]) -> None:
    x = X.float()
    net, report = make(blocks(2), Speed(compile=True), x)
    plain, _ = make(blocks(2), Speed(), x)
    for _ in range(2):
        check_alike(step(net, x), step(plain, x), 1e-4)
    before = len(graphs)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            check_alike(step(net, x), step(plain, x), 0.1)
    assert len(graphs) == 2 * before
    assert not any("is not compiled" in line for line in report.kept)


@pytest.mark.slow
def test_the_darts_space_has_as_few_structures_whatever_its_depth(graphs: list[Any]) -> None:
    counts = []
    for cells in (8, 20):
        x = torch.randn(2, 3, 32, 32)
        net, report = make(lambda cells=cells: darts(channels=4, cells=cells, none=True), Speed(compile=True), x)  # type: ignore[misc]
        for _ in range(2):
            step(net, x)
        assert f"{14 * cells} pieces of 5 structures" in report.whole[-1]
        counts.append(len(graphs))
        graphs.clear()
    # Two phases each; and in one of them the first cells read what needs no gradients.
    assert counts == [11, 11]


PROCESS = """
import json, sys, torch
from nas._compat.compiler import cache_counts
sys.path.insert(0, sys.argv[1])
from test_compilation import blocks, check_alike, make, step
from nas.oneshot import Speed
from torch import nn
torch.set_num_threads(1)
depthwise = {"d": lambda: nn.Sequential(nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.Dropout(0.5), nn.BatchNorm2d(4))}
x = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
nets = [make(blocks(2, **depthwise), speed, x)[0] for speed in (Speed(compile=True), Speed())]
found = []
for net in nets:
    torch.manual_seed(0)
    found.append(step(net, x))
check_alike(found[0], found[1], 1e-3)
print(json.dumps(cache_counts()))
"""


@pytest.mark.slow
def test_another_process_finds_everything_on_disk(tmp_path: Any) -> None:
    folder = str(tmp_path / "cache")
    counts = []
    for _ in range(2):
        command = [sys.executable, "-c", PROCESS, __file__.rpartition("/")[0]]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not found.returncode, found.stderr
        counts.append(json.loads(found.stdout.splitlines()[-1]))
    first, second = counts
    assert first["miss"]
    assert "bypass" not in first
    assert second["hit"]
    assert not second.get("miss")
    assert "bypass" not in second
