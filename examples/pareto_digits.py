"""Accuracy, latency and size at once: a Pareto front of networks for handwritten digits, drawn to a PNG.

Run it by `python examples/pareto_digits.py`; it takes a few minutes on two cores and needs scikit-learn and matplotlib.
`--smoke` does the same in seconds, with a few trials and little training.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import matplotlib
import numpy
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nas import Experiment, LayerChoice, ModelSpace, Repeat, Trial, ValueChoice, model_space
from nas.evaluators import FunctionalEvaluator
from nas.profile import SpaceProfile, latency, profile
from nas.strategies import RegularizedEvolution

IMAGE = (1, 1, 8, 8)


def block(channels: int) -> nn.Module:
    """A convolution, plain or separable, of a chosen kernel."""
    kernel = ValueChoice([1, 3, 5], label=None)
    convolution = LayerChoice(
        {
            "plain": lambda: nn.Conv2d(channels, channels, kernel, padding="same", bias=False),
            "separable": lambda: nn.Sequential(
                nn.Conv2d(channels, channels, kernel, padding="same", groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            ),
        }
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


@model_space
class DigitNet(nn.Sequential):
    """Convolutional networks for images (batch, 1, 8, 8)."""

    def __init__(self) -> None:
        width = ValueChoice([4, 8, 16, 32], label="width")
        stride = ValueChoice([1, 2], label="stride")
        super().__init__(
            nn.Conv2d(1, width, 3, stride, padding=1),
            nn.ReLU(),
            Repeat(lambda i: block(width), (0, 4), label="depth"),
            nn.AdaptiveAvgPool2d(ValueChoice([1, 2, 4], label="pooled")),
            nn.Flatten(),
            nn.LazyLinear(10),
        )


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, validation images and labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(numpy.float32).reshape(-1, 1, 8, 8)
    train, valid, train_labels, valid_labels = train_test_split(
        images, labels, test_size=450, stratify=labels, random_state=0
    )
    return tuple(map(torch.from_numpy, (train, train_labels, valid, valid_labels)))  # type: ignore[return-value]


def fit(model: nn.Module, data: tuple[Tensor, Tensor, Tensor, Tensor], epochs: int) -> float:
    """Trains with Adam, and returns the validation accuracy."""
    images, labels, valid_images, valid_labels = data
    model(images[:2])  # sizes the lazy layer
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return float((model(valid_images).argmax(1) == valid_labels).float().mean())


def draw(trials: list[Trial], front: list[Trial], path: Path) -> None:
    """Accuracy over latency, the size of a point that of the network, the front on top."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for chosen, colour, label in ((trials, "0.75", "all trials"), (front, "tab:blue", "Pareto front")):
        metrics = [trial.metrics for trial in chosen]
        axes.scatter(
            [m["latency"] * 1e3 for m in metrics],
            [100 * m["accuracy"] for m in metrics],
            s=[12 + m["parameters"] / 150 for m in metrics],
            c=colour,
            alpha=0.8,
            edgecolors="white",
            linewidths=0.5,
            label=f"{label} ({len(chosen)})",
        )
    axes.set_xlabel("latency of one image on one thread (ms)")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title("Digits: the larger a point, the more parameters")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", markerscale=0.7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=8, help="of each trial")
    parser.add_argument("--most-flops", type=float, default=2e6, help="networks above are not looked at")
    parser.add_argument("--directory", type=Path, default=Path("nas-experiments"))
    parser.add_argument(
        "--name", default=f"pareto-{datetime.datetime.now():%Y%m%d-%H%M%S}", help="resumes if it exists"
    )
    parser.add_argument("--smoke", action="store_true", help="6 trials of 1 epoch")
    options = parser.parse_args()
    if options.smoke:
        options.trials, options.epochs = 6, 1

    torch.set_num_threads(1)
    space = ModelSpace(DigitNet())
    costs: SpaceProfile = profile(space, IMAGE)
    within = costs.flops <= options.most_flops
    print(costs)
    print(f"{within}: {costs.flops.bounds(within).share:.0%} of the samples")
    data = load()

    def evaluate(model: nn.Module, epochs: int) -> dict[str, float]:
        return {
            "accuracy": fit(model, data, epochs),
            "latency": latency(model, IMAGE).median,
            "parameters": profile(model, IMAGE).parameters,
        }

    experiment = Experiment(
        space.where(within),
        FunctionalEvaluator(evaluate, epochs=options.epochs),
        RegularizedEvolution(population_size=24, sample_size=6),
        name=options.name,
        directory=options.directory,
        objective={"accuracy": "maximize", "latency": "minimize", "parameters": "minimize"},
        resume=True,
    )
    experiment.run(options.trials)

    front = sorted(experiment.pareto_front, key=lambda trial: trial.metrics["latency"])
    for trial in front:
        found = trial.metrics
        print(
            f"{found['accuracy']:7.2%} {found['latency'] * 1e3:7.3f} ms {found['parameters']:8,.0f} parameters "
            f"{costs.flops(trial.sample):10,} flops  {trial.sample}"
        )
    path = experiment.path / "front.png"
    draw(list(experiment.trials), front, path)
    print(f"{len(front)} of {len(experiment.trials)} trials on the front, drawn to {path}")


if __name__ == "__main__":
    main()
