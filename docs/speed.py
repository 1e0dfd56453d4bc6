"""Measures what the framework itself costs, as ratios within one run; `python docs/speed.py` prints the table."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from torch import nn

from nas import Experiment, LayerChoice, ModelSpace
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

CHANNELS, CELLS, EDGES = 16, 20, 14


def separable(kernel: int) -> nn.Module:
    """Twice depthwise and pointwise, as in DARTS."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, groups=CHANNELS, bias=False),
            nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
            nn.BatchNorm2d(CHANNELS),
        ]
    return nn.Sequential(*layers)


def dilated(kernel: int) -> nn.Module:
    """Depthwise with holes, and pointwise."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel - 1, dilation=2, groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
        nn.BatchNorm2d(CHANNELS),
    )


OPERATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "skip": nn.Identity,
    "max": lambda: nn.MaxPool2d(3, 1, 1),
    "average": lambda: nn.AvgPool2d(3, 1, 1),
    "separable 3": lambda: separable(3),
    "separable 5": lambda: separable(5),
    "dilated 3": lambda: dilated(3),
    "dilated 5": lambda: dilated(5),
}


class Network(nn.Module):
    """20 cells of 14 edges; normal and reduction cells share their operations: 28 choices of 8."""

    def __init__(self, edge: Callable[[str], nn.Module]) -> None:
        super().__init__()
        kinds = ["reduce" if cell in (6, 13) else "normal" for cell in range(CELLS)]
        self.cells = nn.ModuleList(nn.ModuleList(edge(f"{kind} {number}") for number in range(EDGES)) for kind in kinds)


def chosen(label: str) -> nn.Module:
    """An edge with choices."""
    return LayerChoice(OPERATIONS, label=label)


def seconds(*sides: Callable[[], object], repeat: int = 9) -> list[float]:
    """The median time of each side; the sides take turns, so that a noisy machine is noisy to all of them."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(repeat):
        for side, found in zip(sides, times, strict=True):
            begin = time.perf_counter()
            side()
            found.append(time.perf_counter() - begin)
    return [statistics.median(found) for found in times]


def all_by_hand() -> None:
    """Every candidate on the meta device, without the framework."""
    with torch.device("meta"):
        Network(lambda label: nn.ModuleList(make() for make in OPERATIONS.values()))


def trials(storage: str | None, number: int) -> float:
    """Seconds for so many trivial trials."""
    folder = tempfile.mkdtemp()
    experiment = Experiment(
        ModelSpace(lambda: nn.Sequential(*(LayerChoice([nn.Identity, nn.ReLU], label=str(i)) for i in range(10)))),
        FunctionalEvaluator(lambda model: 1.0),
        Random(distinct=False),
        name="trivial",
        directory=folder,
        storage=None if storage is None else storage.format(folder=folder),
    )
    begin = time.perf_counter()
    experiment.run(number, progress="silent")
    return time.perf_counter() - begin


def measure() -> list[tuple[str, str, str]]:
    """Rows of the table: what, measured, aim."""
    space = ModelSpace(Network, chosen)
    sample = space.sample(0)
    (sampling,) = seconds(lambda: [space.sample(seed) for seed in range(1000)])
    meta, discovery = seconds(all_by_hand, lambda: ModelSpace(Network, chosen), repeat=5)
    plain, build = seconds(
        lambda: Network(lambda label: OPERATIONS[sample[label]]()), lambda: space.build(sample), repeat=25
    )
    journal, sqlite = trials(None, 1000), trials("sqlite:///{folder}/ledger.db", 100)
    return [
        ("1,000 random samples of a DARTS-like space", f"{sampling * 1e3:.0f} ms", "under 50 ms"),
        ("discovering it / one construction of all candidates on meta", f"{discovery / meta:.2f}", "at most 2"),
        ("building a sample / the same network by hand", f"{build / plain:.2f}", "at most 1.15"),
        ("1,000 trivial trials with the durable journal", f"{journal:.1f} s", "under 5 s"),
        ("a trial with SQLite / with the journal", f"{sqlite * 10 / journal:.1f}", ""),
    ]


if __name__ == "__main__":
    print("| what | measured | aim |\n| --- | --- | --- |")
    for row in measure():
        print("| " + " | ".join(row) + " |")
