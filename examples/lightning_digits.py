"""The same digits, trained by pytorch-lightning: one search over architecture, optimizer, learning rate and batch size.

Run it by `python examples/lightning_digits.py`; it takes about half a minute and needs scikit-learn. `--smoke` does
the same in seconds. Each trial has a folder with its checkpoint, its TensorBoard log and its HParams record:
`tensorboard --logdir nas-experiments/lightning-digits/trials` shows them side by side.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from nas import Categorical, Experiment, LayerChoice, MedianStop, Real, Repeat, ValueChoice, model_space
from nas.evaluators import Classification
from nas.strategies import TPE

LOADS: list[str] = []
"""One entry each time the data is loaded."""


@model_space
class DigitNet(nn.Module):
    """Convolutional networks for images (batch, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([16, 24, 32], label="width")

        def block(i: int) -> nn.Module:
            activation = LayerChoice({"relu": nn.ReLU, "gelu": nn.GELU}, label="activation")
            return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), activation)

        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            Repeat(block, (1, 3), label="depth"),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(width * 16, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores


def load() -> tuple[Dataset[tuple[Tensor, ...]], Dataset[tuple[Tensor, ...]]]:
    """Training and validation data. The evaluator calls this once in each process, not once for each trial."""
    LOADS.append("digits")
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(labels)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    train, validation = order[:1400], order[1400:]
    return TensorDataset(inputs[train], targets[train]), TensorDataset(inputs[validation], targets[validation])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="3 trials of 2 epochs")
    options = parser.parse_args()
    torch.set_num_threads(1)  # networks this small are faster so
    evaluator = Classification(
        load,
        batch_size=Categorical([32, 64, 128]),
        optimizer=Categorical(["Adam", "AdamW", "RMSprop"]),
        learning_rate=Real(1e-4, 1e-2, log=True),
        max_epochs=2 if options.smoke else 8,  # this and what follows goes to the Trainer
        gradient_clip_val=1.0,
    )
    experiment = Experiment(DigitNet(), evaluator, TPE(), name="lightning-digits", early_stopping=MedianStop())
    experiment.run(max_trials=3 if options.smoke else 20)
    best = experiment.best_trial
    print(f"best validation accuracy: {100 * best.metrics['accuracy']:.1f}% with {best.sample}")
    print(f"its files: {', '.join(sorted(p.name for p in (experiment.path / 'trials' / str(best.number)).iterdir()))}")
    print(f"{len(experiment.trials)} trials, data loaded {len(LOADS)} time(s)")


if __name__ == "__main__":
    main()
