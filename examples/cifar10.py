"""What `darts_cifar10.py` and `enas_cifar10.py` share: the data, and the training of what was found."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, random_split

from nas.evaluators import Classification
from nas.model_zoo import set_drop_path

Images = Dataset[tuple[Tensor, int]]
_MEAN, _DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Cutout:
    """Blanks a square of an image (channels, height, width) (DeVries and Taylor 2017, arXiv 1708.04552)."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        y, x = (int(torch.randint(size, ())) - self.side // 2 for size in (height, width))
        image = image.clone()
        image[:, max(y, 0) : max(y + self.side, 0), max(x, 0) : max(x + self.side, 0)] = 0
        return image


def load(options: argparse.Namespace, *, train: bool = True, augment: bool = True, cutout: int = 0) -> Images:
    """CIFAR-10: images (3, 32, 32) with their labels; in a smoke test 64 of noise.

    Args:
        options: of the command line.
        train: the 50,000 images to train with, or the 10,000 to test by.
        augment: whether crops and flips are taken by chance.
        cutout: the side of the square that is blanked.
    """
    from torchvision import transforms
    from torchvision.datasets import CIFAR10, FakeData

    steps: list[Callable[[Any], Any]] = []
    if augment:
        steps += [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(_MEAN, _DEVIATION)]
    if cutout:
        steps.append(Cutout(cutout))
    transform = transforms.Compose(steps)
    if options.smoke:
        noise: Images = FakeData(64, (3, 32, 32), 10, transform)
        return noise
    try:
        images: Images = CIFAR10(str(options.data), train=train, transform=transform, download=options.download)
    except RuntimeError as error:
        raise SystemExit(
            f"CIFAR-10 is not in {options.data.absolute()}: give the folder that holds {CIFAR10.base_folder} by "
            "--data, let torchvision fetch it (170 MB) by --download, or try --smoke, which needs no data"
        ) from error
    return images


def loader(options: argparse.Namespace, images: Images, batch: int, *, shuffle: bool) -> DataLoader[Any]:
    """Batches of images; small ones in a smoke test."""
    workers = 0 if options.smoke else options.workers
    size = 8 if options.smoke else batch
    return DataLoader(images, size, shuffle=shuffle, num_workers=workers, drop_last=shuffle)


def split(options: argparse.Namespace, share: float, batch: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """The images to train with in two parts by chance, always the same: `share` of them, and the others."""
    first, second = random_split(load(options), [share, 1 - share], torch.Generator().manual_seed(0))
    return loader(options, first, batch, shuffle=True), loader(options, second, batch, shuffle=False)


class GrowingDropPath(Callback):
    """Raises the probability of drop path from 0 in the first epoch to nearly its end in the last one."""

    def __init__(self, end: float) -> None:
        self.end = end

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.max_epochs is not None
        set_drop_path(pl_module, self.end * trainer.current_epoch / trainer.max_epochs)


def parser(description: str | None, *, name: str, search_epochs: int, retrain_epochs: int) -> argparse.ArgumentParser:
    """The command line of both examples; the numbers of epochs are those of the paper."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=Path("data"), help="the folder of CIFAR-10")
    made.add_argument("--download", action="store_true", help="fetch CIFAR-10 when it is not there")
    made.add_argument("--smoke", action="store_true", help="small networks on noise, one epoch of everything")
    made.add_argument("--directory", type=Path, default=Path("nas-experiments"))
    made.add_argument("--name", default=name, help="of the experiment; where there is one, it goes on")
    made.add_argument("--workers", type=int, default=4, help="processes that load data")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--search-epochs", type=int, default=search_epochs)
    made.add_argument("--retrain-epochs", type=int, default=retrain_epochs)
    return made


def train_alone(network: nn.Module, evaluator: Classification, folder: Path) -> dict[str, float]:
    """Trains a network from fresh weights, and goes on where that was broken off.

    Returns:
        The metrics on what the evaluator has as validation data: here the test images.
    """
    module, data, trainer = evaluator.module(network), evaluator.data(), evaluator.trainer(directory=folder)
    last = max(folder.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    trainer.fit(module, datamodule=data, ckpt_path=last)
    (metrics,) = trainer.validate(module, datamodule=data, verbose=False)
    return dict(metrics)
