"""A grid search over plain arithmetic: choose a function, times 2, plus 0, 1 or 2, times 4, choose a function again.

Run it by `python examples/arithmetic.py`. Of the 27 architectures, relu, plus 2, relu makes the most of x = 1: 16.0.
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn

from nas import Experiment, LayerChoice, ModelSpace, ValueChoice, model_space
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch


@model_space
class Arithmetic(nn.Module):
    """(f(x) * 2 + addend) * 4, and g of that."""

    def __init__(self) -> None:
        super().__init__()
        functions = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
        self.first = LayerChoice(functions, label="first")
        self.addend = ValueChoice([0, 1, 2], label="addend")
        self.second = LayerChoice(functions, label="second")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second((self.first(x) * 2 + self.addend) * 4)
        return y


def output(model: nn.Module) -> float:
    """What the architecture makes of x = 1."""
    return float(model(torch.tensor([1.0])))


def main(directory: str | None = None) -> None:
    experiment = Experiment(
        ModelSpace(Arithmetic),
        FunctionalEvaluator(output),
        GridSearch(),
        name="arithmetic",
        directory=directory or tempfile.mkdtemp(),
    )
    experiment.run()
    best = experiment.best_trial
    print(f"best of {len(experiment.trials)}: {best.value} with {best.sample}")


if __name__ == "__main__":
    main()
