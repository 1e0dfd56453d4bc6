"""Choices from outside: torchvision's ResNet-18, which nobody here wrote, becomes a model space by three mutators.

Run it by `python examples/resnet18.py`; it needs torchvision. The objective is the number of parameters.
"""

from __future__ import annotations

import tempfile

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock

from nas import Experiment, LayerChoice, ModelSpace, Mutator, ValueChoice, replace_module
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random


class Activation(Mutator):
    def mutate(self, model: nn.Module) -> None:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.ReLU):
                replace_module(model, name, LayerChoice({"relu": nn.ReLU, "silu": nn.SiLU}, label="activation"))


class Head(Mutator):
    def mutate(self, model: nn.Module) -> None:
        width = ValueChoice([64, 128, 256], label="head width")
        head = nn.Sequential(nn.Linear(512, width), nn.ReLU(), nn.Linear(width, 10))
        replace_module(model, "fc", head)


class SecondConvolution(Mutator):
    def mutate(self, model: nn.Module) -> None:
        for name, block in list(model.named_modules()):
            if isinstance(block, BasicBlock) and not ValueChoice([True, False], label=f"{name} second"):
                block.conv2, block.bn2 = nn.Identity(), nn.Identity()


def main(directory: str | None = None) -> None:
    space = ModelSpace(resnet18, mutators=[Head(), Activation(), SecondConvolution()])
    print(space)
    images = torch.randn(2, 3, 64, 64)
    for seed in (0, 1):
        print(f"architecture {seed}: output {tuple(space.build(space.sample(seed))(images).shape)}")
    experiment = Experiment(
        space,
        FunctionalEvaluator(lambda model: sum(weight.numel() for weight in model.parameters())),
        Random(),
        name="resnet18",
        directory=directory or tempfile.mkdtemp(),
        objective="minimize",
    )
    experiment.run(6)
    print(f"the smallest of {len(experiment.trials)}: {experiment.best_trial.value:,.0f} parameters")


if __name__ == "__main__":
    main()
