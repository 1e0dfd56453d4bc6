"""Choosing connections: three pipelines, x*2, x*2*3 and x*2*3*4 of x = 1; two of the three are summed.

Run it by `python examples/input_choice.py`. One pipeline may be taken twice, so the best is 48: the last one, twice.
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn

from nas import Experiment, InputChoice, ModelSpace, model_space
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch


@model_space
class Pipelines(nn.Module):
    """The sum of two of the three products."""

    def __init__(self) -> None:
        super().__init__()
        self.two = InputChoice(n_candidates=3, n_chosen=2, reduction="sum", label="pipelines")

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.two([x * 2, x * 2 * 3, x * 2 * 3 * 4])
        return total


def output(model: nn.Module) -> float:
    """What the architecture makes of x = 1."""
    return float(model(torch.tensor([1.0])))


def main(directory: str | None = None) -> None:
    experiment = Experiment(
        ModelSpace(Pipelines),
        FunctionalEvaluator(output),
        GridSearch(),
        name="input-choice",
        directory=directory or tempfile.mkdtemp(),
    )
    experiment.run()
    best = experiment.best_trial
    print(f"best of {len(experiment.trials)}: {best.value} with {best.sample}")


if __name__ == "__main__":
    main()
