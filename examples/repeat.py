"""Choosing a depth: blocks that add their own index, 1 to 5 of them.

Run it by `python examples/repeat.py`. The deepest makes the most of x = 1: 1 + 0 + 1 + 2 + 3 + 4 = 11.
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn

from nas import Experiment, ModelSpace, Repeat, model_space
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch


class Add(nn.Module):
    """Adds a number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number


@model_space
class Sums(nn.Module):
    """x + 0 + 1 + ... as deep as chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Repeat(lambda index: Add(index), depth=(1, 5), label="depth")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x)
        return y


def output(model: nn.Module) -> float:
    """What the architecture makes of x = 1."""
    return float(model(torch.tensor([1.0])))


def main(directory: str | None = None) -> None:
    experiment = Experiment(
        ModelSpace(Sums),
        FunctionalEvaluator(output),
        GridSearch(),
        name="repeat",
        directory=directory or tempfile.mkdtemp(),
    )
    experiment.run()
    best = experiment.best_trial
    print(f"best of {len(experiment.trials)}: {best.value} with {best.sample}")


if __name__ == "__main__":
    main()
