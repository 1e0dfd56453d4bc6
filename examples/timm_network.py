"""A network of timm becomes a model space by three mutators; then costs, a search, an ONNX file.

Run it by `python examples/timm_network.py [trials] [epochs]`; it needs timm, scikit-learn and onnx. It searches a small
MobileNetV3, which nobody here wrote, on 1,797 handwritten digits, in about half a minute on one core.
"""

from __future__ import annotations

import sys
import tempfile

import timm
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Subset, TensorDataset

from nas import Experiment, LayerChoice, ModelSpace, Mutator, ValueChoice, replace_module
from nas.evaluators import Classification
from nas.profile import profile
from nas.strategies import RegularizedEvolution


class Activations(Mutator):
    """One choice for all activations."""

    def mutate(self, model: nn.Module) -> None:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Hardswish):
                replace_module(model, name, LayerChoice([nn.Hardswish, nn.ReLU, nn.GELU], label="activation"))


class Attention(Mutator):
    """Each block keeps its squeeze-and-excitation, or does without."""

    def mutate(self, model: nn.Module) -> None:
        for name, module in list(model.named_modules()):
            if name.endswith(".se") and not isinstance(module, nn.Identity):
                choice = LayerChoice({"keep": module, "drop": nn.Identity()}, label=name)
                replace_module(model, name, choice)


class Head(Mutator):
    """A head of a chosen width for ten classes."""

    def mutate(self, model: nn.Module) -> None:
        width = ValueChoice([128, 256, 512], label="head width")
        last = model.get_submodule("conv_head")
        assert isinstance(last, nn.Conv2d)
        replace_module(model, "conv_head", nn.Conv2d(last.in_channels, width, 1))
        replace_module(model, "classifier", nn.Linear(width, 10))


def digits() -> tuple[Subset[tuple[torch.Tensor, ...]], Subset[tuple[torch.Tensor, ...]]]:
    """Images of 32 x 32 pixels: the first 1,400 to train on, the others to judge by."""
    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    images = nn.functional.interpolate(small, scale_factor=4, mode="bilinear")
    data = TensorDataset(images, torch.tensor(bunch.target))
    return Subset(data, range(1400)), Subset(data, range(1400, len(data)))


def main(trials: int = 4, epochs: int = 3) -> None:
    # With `pretrained=True` every architecture begins with the published weights of what it keeps.
    base = timm.create_model("mobilenetv3_small_050", in_chans=1, pretrained=False)
    space = ModelSpace(base, mutators=[Activations(), Attention(), Head()])
    print(space)
    costs = profile(space, (1, 1, 32, 32))
    print(costs)

    train, validation = digits()
    experiment = Experiment(
        space.where(costs.flops < 4e6),
        Classification(train, validation, batch_size=50, max_epochs=epochs, learning_rate=5e-3),
        RegularizedEvolution(population_size=3),
        name="timm",
        directory=tempfile.mkdtemp(),
    )
    experiment.run(trials)
    best = experiment.best_trial
    print(f"best of {len(experiment.trials)}: {best.value:.1%} with {costs.parameters(best.sample):,.0f} parameters")
    print(experiment.export_top_models(formatter="onnx", example_input=torch.zeros(1, 1, 32, 32))[0])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
