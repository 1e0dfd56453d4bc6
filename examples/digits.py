"""The main job, end to end: search a convolutional network for handwritten digits, retrain the best, ship it as ONNX.

Run it by `python examples/digits.py`; it takes about a minute on two cores and needs scikit-learn and onnxruntime.
`--smoke` does the same in seconds, with a few trials and little training.
"""

from __future__ import annotations

import argparse
import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import nas
from nas import Experiment, InputChoice, LayerChoice, ModelSpace, Repeat, ValueChoice, model_space
from nas.evaluators import FunctionalEvaluator
from nas.export import to_onnx
from nas.strategies import Random


class Block(nn.Module):
    """A convolution, and perhaps a way around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = ValueChoice([3, 5], label="kernel")
        self.convolution = nn.Conv2d(channels, channels, kernel, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = LayerChoice({"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}, label="activation")
        self.skip = InputChoice(2, 1, label="skip")  # the input, or nothing

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm(self.convolution(x)))
        around = self.skip([x, None])
        combined: Tensor = y if around is None else y + around
        return combined


@model_space
class DigitNet(nn.Module):
    """Convolutional networks for images (batch, 1, 8, 8), with 864 architectures."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        width = ValueChoice([16, 24, 32], label="width")
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.early = Repeat(lambda i: Block(width), (1, 2), label="early depth")
        self.pool = LayerChoice({"max": lambda: nn.MaxPool2d(2), "average": lambda: nn.AvgPool2d(2)}, label="pool")
        self.late = Repeat(lambda i: Block(width), (0, 2), label="late depth")
        hidden = ValueChoice([64, 128], label="hidden")
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(width * 16, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.late(self.pool(self.early(self.stem(x)))))
        return out


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images (batch, 1, 8, 8) and labels (batch,)."""

    images: Tensor
    labels: Tensor


def load() -> tuple[Data, Data, Data]:
    """1,797 digits as training, validation and test data; the search never sees the last."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(numpy.float32).reshape(-1, 1, 8, 8)
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=0
    )
    train, valid, train_labels, valid_labels = train_test_split(
        rest, rest_labels, test_size=300, stratify=rest_labels, random_state=0
    )
    pairs = ((train, train_labels), (valid, valid_labels), (test, test_labels))
    first, second, third = (Data(images=torch.from_numpy(i), labels=torch.from_numpy(n)) for i, n in pairs)
    return first, second, third


def accuracy(model: nn.Module, data: Data) -> float:
    """The share of the images that the model gets right."""
    model.eval()
    with torch.no_grad():
        return float((model(data.images).argmax(1) == data.labels).float().mean())


def fit(model: nn.Module, train: Data, epochs: int, valid: Data | None = None) -> float:
    """Trains with Adam and a one-cycle schedule, reporting the validation accuracy of each epoch.

    Returns:
        The last validation accuracy, or 0 without validation data.
    """
    batch, reached = 64, 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = -(-len(train.labels) // batch) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        for chosen in torch.randperm(len(train.labels)).split(batch):
            optimizer.zero_grad()
            cross_entropy(model(train.images[chosen]), train.labels[chosen]).backward()
            optimizer.step()
            schedule.step()
        if valid is not None:
            reached = accuracy(model, valid)
            nas.report(reached, step=epoch)
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=5, help="of each trial")
    parser.add_argument("--retrain-epochs", type=int, default=30)
    parser.add_argument("--directory", type=Path, default=Path("nas-experiments"))
    parser.add_argument(
        "--name", default=f"digits-{datetime.datetime.now():%Y%m%d-%H%M%S}", help="resumes if it exists"
    )
    parser.add_argument("--smoke", action="store_true", help="3 trials of 1 epoch, and 4 epochs of retraining")
    options = parser.parse_args()
    if options.smoke:
        options.trials, options.epochs, options.retrain_epochs = 3, 1, 4

    train, valid, test = load()
    space = ModelSpace(DigitNet())
    print(space)

    def evaluate(model: nn.Module, epochs: int) -> float:
        return fit(model, train, epochs, valid)

    experiment = Experiment(
        space,
        FunctionalEvaluator(evaluate, epochs=options.epochs),
        Random(),
        name=options.name,
        directory=options.directory,
        resume=True,
    )
    experiment.run(options.trials)

    best = nas.save_sample(experiment.best_trial.sample, experiment.path / "best.json")
    print(f"\nRetraining the best architecture from {best} for {options.retrain_epochs} epochs")
    torch.manual_seed(0)
    model = space.build(nas.load_sample(best))
    everything = Data(images=torch.cat([train.images, valid.images]), labels=torch.cat([train.labels, valid.labels]))
    fit(model, everything, options.retrain_epochs)
    print(f"test accuracy: {accuracy(model, test):.2%} of {len(test.labels)} digits that the search never saw")

    print(to_onnx(model, test.images[:2], experiment.path / "best.onnx"))
    session = onnxruntime.InferenceSession(str(experiment.path / "best.onnx"))
    (scores,) = session.run(None, {session.get_inputs()[0].name: test.images.numpy()})
    right = (scores.argmax(1) == test.labels.numpy()).mean()
    print(f"test accuracy of the ONNX file in onnxruntime: {right:.2%}")


if __name__ == "__main__":
    main()
