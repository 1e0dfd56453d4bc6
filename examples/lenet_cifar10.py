"""A search around LeNet on CIFAR-10, or with `--digits` offline on scikit-learn's handwritten digits.

python examples/lenet_cifar10.py --data ~/data --download     # the real data set, by torchvision
python examples/lenet_cifar10.py --digits                     # 1,797 digits of 8 x 8, padded to 16 x 16
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

import nas
from nas import Experiment, ModelSpace
from nas.evaluators import FunctionalEvaluator
from nas.model_zoo import LeNetSpace
from nas.strategies import Random


def load_cifar10(folder: Path, *, download: bool = False) -> Dataset[tuple[torch.Tensor, int]]:
    """The 50,000 training images (3, 32, 32) of CIFAR-10 in the format that torchvision keeps."""
    from torchvision import transforms
    from torchvision.datasets import CIFAR10

    scale = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))])
    images: Dataset[tuple[torch.Tensor, int]] = CIFAR10(str(folder), train=True, transform=scale, download=download)
    return images


def load_digits() -> Dataset[tuple[torch.Tensor, ...]]:
    """The handwritten digits that scikit-learn brings, (1, 16, 16) each."""
    from sklearn.datasets import load_digits as bundled

    images, labels = bundled(return_X_y=True)
    pixels = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
    return TensorDataset(pad(pixels, (4, 4, 4, 4)), torch.from_numpy(labels))


def train(model: nn.Module, loaders: tuple[DataLoader[object], DataLoader[object]], learning_rate: float) -> float:
    """One epoch of training after another, as long as the search lets it; the accuracy on the validation data."""
    training, validation = loaders
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    accuracy = 0.0
    for epoch in range(2):
        model.train()
        for images, labels in training:
            optimizer.zero_grad()
            cross_entropy(model(images.to(device)), labels.to(device)).backward()
            optimizer.step()
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in validation:
                right += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
                total += len(labels)
        accuracy = right / total
        nas.report(accuracy, step=epoch)
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", action="store_true", help="offline, on scikit-learn's digits")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of CIFAR-10")
    parser.add_argument("--download", action="store_true", help="fetch CIFAR-10 when it is not there")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--directory", type=Path, default=Path("nas-experiments"))
    options = parser.parse_args()

    images = load_digits() if options.digits else load_cifar10(options.data, download=options.download)
    parts = random_split(images, [0.8, 0.2], torch.Generator().manual_seed(0))
    loaders = (DataLoader(parts[0], 64, shuffle=True), DataLoader(parts[1], 256))
    channels, size = (1, 16) if options.digits else (3, 32)
    space = ModelSpace(LeNetSpace, channels, image_size=size)
    print(space)

    def evaluate(model: nn.Module, learning_rate: float) -> float:
        return train(model, loaders, learning_rate)

    experiment = Experiment(
        space,
        FunctionalEvaluator(evaluate, learning_rate=nas.Real(3e-4, 3e-3, log=True)),
        Random(),
        name=f"lenet-{datetime.datetime.now():%Y%m%d-%H%M%S}",
        directory=options.directory,
    )
    experiment.run(options.trials)
    print(f"best validation accuracy: {experiment.best_trial.value:.2%}")


if __name__ == "__main__":
    main()
