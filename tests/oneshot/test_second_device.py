"""Whole searches with everything on another device: nothing is left behind by a move, in whatever space."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Cell, Experiment, InputChoice, LayerChoice, ModelSpace, OneShotStrategy, Repeat, ValueChoice
from nas.evaluators import Classification
from nas.model_zoo import SPACES, TransformerRanges, list_spaces, space
from nas.oneshot import (
    DARTS,
    ENAS,
    PCDARTS,
    CostPenalty,
    CurvatureStop,
    GumbelDARTS,
    PathSupernet,
    ProxylessNAS,
    RandomOneShot,
    RelaxedSupernet,
    Speed,
    compile_whole,
    optimise,
)
from nas.profile import profile
from nas.testing import reachable_tensors

SHORT: Any = {"epochs": 2, "checkpoint_every": 2, "candidates": 2, "recalibration": 1}
FEW: Any = {"evaluations": 3, "population": 2}
RELAXED: dict[str, Callable[[], OneShotStrategy]] = {
    "darts": lambda: DARTS(**SHORT),
    "unrolled": lambda: DARTS(unrolled=True, warmup_epochs=1, **SHORT),
    "curvature": lambda: DARTS(stop=CurvatureStop(), speed=Speed(merge=False), **SHORT),
    "gumbel": lambda: GumbelDARTS(**SHORT),
    "gdas": lambda: GumbelDARTS(hard=True, **SHORT),
    "proxyless": lambda: ProxylessNAS(**SHORT),
    "sum": lambda: RandomOneShot(sampling="sum", **FEW, **SHORT),
}
PATHS: dict[str, Callable[[], OneShotStrategy]] = {
    "enas": lambda: ENAS(controller_steps=2, samples_per_step=2, draws=3, **SHORT),
    "random": lambda: RandomOneShot(judging="halving", **FEW, **SHORT),
    "sandwich": lambda: RandomOneShot(sampling="sandwich", **FEW, **SHORT),
}
PARTIAL: dict[str, Callable[[], OneShotStrategy]] = {
    "partial": lambda: PCDARTS(warmup_epochs=1, partial_channels=2, **SHORT)
}
ALGORITHMS = RELAXED | PATHS | PARTIAL

ONE_WIDTH = TransformerRanges(widths=(16,), heads=(1, 2), mlp_ratios=(1, 2.5), depth=(1, 2), head_width=4)
SMALLER: dict[str, dict[str, Any]] = {
    **{name: {"cells": 1} for name in ("amoebanet", "darts", "enas_micro", "nasnet", "nasnet_simple", "pnas")},
    "proxylessnas": {"blocks": (2, 1, 1, 1, 1, 1)},
    "shufflenet_v2": {"blocks": (1, 2), "widths": (32, 64), "search_channels": True},
    "transformer_lm": {"ranges": ONE_WIDTH},
    "vision_transformer": {"ranges": ONE_WIDTH},
}
WITH_EDGES = ("darts", "pnas")
REFUSED = ("amoebanet", "enas_micro", "lenet", "nasbench101", "nasnet", "nasnet_simple", "nats_bench_size", "resnet")
"""By relaxed supernets, on any device."""
DIFFERENTIATE_TWICE, ONCE = ("unrolled", "curvature"), ("mobilenet_v3",)
"""Algorithms that take second derivatives, and spaces of operations that have none: refused on any device."""


class Masked(nn.Module):
    """(batch, 3, 4, 4) -> (batch, 3): widths and depths by masks, gates, dropout, batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width")
        kinds = {"conv": lambda: nn.Conv2d(4, 4, 3, padding=1), "pool": lambda: nn.AvgPool2d(3, 1, 1)}
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, 4, 1))
        self.blocks = Repeat(lambda i: LayerChoice(kinds, label=f"block{i}"), (1, 2), label="depth")
        self.some = InputChoice(2, n_chosen=None, reduction="mean", label="any")
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        chosen = self.some([y, self.blocks(y)])
        found: Tensor = self.head((y if chosen is None else y + chosen).mean((2, 3)))
        return found


class Edges(nn.Module):
    """(batch, 3, 4, 4) -> (batch, 3) by a cell whose edges share pooling."""

    def __init__(self) -> None:
        super().__init__()
        operations = {
            "skip": lambda i: nn.Identity(),
            "conv": lambda i: nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)),
            "average": lambda i: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(4, affine=False)),
            "most": lambda i: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(4, affine=False)),
        }
        self.stem = nn.Conv2d(3, 4, 1)
        self.cell = Cell(operations, nodes=2, distinct=True, output="all", label="cell")
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        found: Tensor = self.head(self.cell(y, y).mean((2, 3)))
        return found


class Scores(nn.Module):
    """Of the language model, as Classification takes them: (batch, classes, length)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.model(tokens).transpose(1, 2)
        return found


OWN: dict[str, Callable[[], nn.Module]] = {"masked": Masked, "edges": Edges}


def model_space(name: str) -> ModelSpace:
    if name in OWN:
        return ModelSpace(OWN[name])
    entry, arguments = SPACES[name], {**SPACES[name].tiny, **SMALLER.get(name, {})}
    if entry.tokens is not None:
        return ModelSpace(lambda: Scores(entry.source(**arguments)))
    return space(name, **arguments)


def inputs(name: str, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if name in OWN:
        return torch.randn(number, 3, 4, 4, generator=generator)
    shape, tokens = SPACES[name].input_shape, SPACES[name].tokens
    if tokens is not None:
        return torch.randint(tokens, (number, *shape), generator=generator)
    return torch.randn(number, *shape, generator=generator)


def pairs(name: str, number: int) -> TensorDataset:
    x = inputs(name, number)
    return TensorDataset(x, x if name not in OWN and SPACES[name].tokens is not None else torch.arange(number) % 3)


def search(name: str, strategy: OneShotStrategy, folder: Path, accelerator: Any, *, resume: bool = False) -> Experiment:
    evaluator = Classification(
        pairs(name, 8), pairs(name, 4), batch_size=4, accelerator=accelerator, logger=False, max_epochs=1
    )
    return Experiment(model_space(name), evaluator, strategy, name="search", directory=folder, resume=resume)


def check_whole_search(name: str, make: Callable[[], OneShotStrategy], folder: Path, other: Any) -> None:
    """Begins there, is interrupted, goes on there, and from the same checkpoint here; judges, reports, exports."""
    begun = search(name, make(), folder / "there", other.accelerator)
    begun.run(timeout=1e-3, progress="silent")
    assert begun.trials == []
    shutil.copytree(folder / "there", folder / "here")
    for place, accelerator in (("there", other.accelerator), ("here", "cpu")):
        experiment = search(name, make(), folder / place, accelerator, resume=True)
        experiment.run(progress="silent")
        assert [trial.error for trial in experiment.trials] == [None] * len(experiment.trials)
        assert experiment.trials
    finished = search(name, make(), folder / "there", other.accelerator, resume=True)
    finished.run(progress="silent")
    has_weights = not isinstance(finished.strategy, PCDARTS)
    for weights in (False, True)[: 1 + has_weights]:
        (model,) = finished.export_top_models(1, "model", inherit_weights=weights)
        assert {tensor.device.type for tensor in model.state_dict().values()} <= {"cpu"}
        with torch.no_grad():
            expected = model.eval()(inputs(name, 2))
            there = model.to(other.device)(inputs(name, 2).to(other.device))
        assert there.device == other.device
        torch.testing.assert_close(there.cpu(), expected, rtol=1e-3, atol=1e-4)
    if has_weights:
        measured = finished.one_shot_report(k=2)
        assert len(measured.compared) == 2


OFTEN = (("masked", "darts"), ("edges", "partial"))
OWN_CASES = [*(("masked", kind) for kind in (*RELAXED, *PATHS)), *(("edges", kind) for kind in ("darts", "partial"))]


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [pytest.param(*case, marks=() if case in OFTEN else pytest.mark.slow) for case in OWN_CASES],
)
def test_a_search_runs_on_another_device(name: str, algorithm: str, tmp_path: Path, other_device: Any) -> None:
    check_whole_search(name, ALGORITHMS[algorithm], tmp_path, other_device)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("make", [DARTS, pytest.param(ENAS, marks=pytest.mark.slow)])
def test_costs_and_losses_of_the_architecture_are_computed_there(
    name: str, make: Any, tmp_path: Path, other_device: Any
) -> None:
    flops = profile(model_space(name), inputs(name, 1)).flops
    options: dict[str, Any] = {"penalty": CostPenalty(cost=flops, weight=0.1, target=100)}
    if make is DARTS:
        options["extra_loss"] = lambda architecture: sum(map(architecture.entropy, architecture.labels))
    else:
        options |= {"controller_steps": 2, "samples_per_step": 2, "draws": 3}
    found = []
    for accelerator in (other_device.accelerator, "cpu"):
        experiment = search(name, make(**options, **SHORT), tmp_path / str(accelerator), accelerator)
        experiment.run(progress="silent")
        found.append(experiment.trials)
    assert all(trial.error is None for trials in found for trial in trials)
    assert found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", list_spaces())
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_searches_every_zoo_space_there(
    name: str, algorithm: str, tmp_path: Path, other_device: Any
) -> None:
    if (algorithm in RELAXED and name in REFUSED) or (algorithm in PARTIAL and name not in WITH_EDGES):
        pytest.skip("this space is refused on any device: tests/oneshot/relaxed/test_supernet.py")
    if algorithm in DIFFERENTIATE_TWICE and name in ONCE:
        pytest.skip("Hardsigmoid cannot be differentiated twice on any device: tests/oneshot/test_trust.py")
    check_whole_search(name, ALGORITHMS[algorithm], tmp_path, other_device)


def left_behind(*roots: object, space: ModelSpace) -> list[str]:
    """The ways to tensors that are still on the CPU, but for what no forward pass reads.

    That is the space itself, by which architectures are built; the example, which is moved where it is looked at; and
    what buffers of masks were made of.
    """

    def leave(found: object) -> bool:
        return found is space or isinstance(found, torch.Generator) or type(found).__name__ in ("Inputs", "MaskPart")

    return [way for way, tensor in reachable_tensors(*roots, leave=leave) if tensor.device.type == "cpu"]


WALKED = ("masked", "edges", "darts", "nasbench201", "mobilenet_v3")


WALKS = {n: pytest.param(n, marks=() if n in WALKED else pytest.mark.slow) for n in (*OWN, *list_spaces())}


@pytest.mark.parametrize("name", [walk for name, walk in WALKS.items() if name not in REFUSED])
def test_no_tensor_of_a_relaxed_supernet_is_left_behind(name: str, other_device: Any) -> None:
    net = RelaxedSupernet(model_space(name))
    net.model.train()
    speed = Speed(merge=True, checkpoint_cells=True)
    report = optimise(net, (inputs(name, 2),), speed)
    compile_whole(net, speed, report)
    net.model.to(other_device.device)
    net.architecture.to(other_device.device)
    assert left_behind(net.model, net.architecture, net.architecture.mixing, space=net.space) == []


@pytest.mark.parametrize("name", WALKS.values())
def test_no_tensor_of_a_supernet_of_paths_is_left_behind(name: str, other_device: Any) -> None:
    x = inputs(name, 2)
    net = PathSupernet(model_space(name), example_input=x)
    net.select(net.space.search_space.default())
    net.train()
    net(x)
    net.zero_grad()
    net.to(other_device.device)
    net(x.to(other_device.device))  # binds the tensors of its path
    del x
    assert left_behind(net, space=net.space) == []
