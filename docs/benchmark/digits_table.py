"""Makes `digits.json.gz`: every architecture of a small conditional space, trained on digits with two seeds.

`python docs/benchmark/digits_table.py` takes ten minutes on two cores. It may be killed and run again: what has
been trained stands in a file of lines beside the table, which is written when the last line is there.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from parallel import parallel
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nas import LayerChoice, ModelSpace, Repeat, Sample, ValueChoice, model_space

TABLE = Path(__file__).parent / "digits.json.gz"
EPOCHS, BATCH, SEEDS = 15, 64, 2


def activation() -> nn.Module:
    return LayerChoice({"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}, label="activation")


def convolution(channels: int, kernel: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, padding="same")


def separable(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding="same", groups=channels), nn.Conv2d(channels, channels, 1)
    )


def convolutional() -> nn.Module:
    """An image (batch, 1, 8, 8) to 10 scores, by a stem and up to three blocks."""
    width = ValueChoice([4, 8, 16], label="width")
    kernel = ValueChoice([3, 5], label="kernel")

    def block(i: int) -> nn.Module:
        layers = {"full": lambda: convolution(width, kernel), "separable": lambda: separable(width, kernel)}
        return nn.Sequential(LayerChoice(layers, label=f"layer {i}"), activation())

    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        activation(),
        Repeat(block, (0, 3), label="depth"),
        LayerChoice({"max": lambda: nn.MaxPool2d(2), "average": lambda: nn.AvgPool2d(2)}, label="pool"),
        nn.Flatten(),
        nn.Linear(16 * width, 10),
    )


def dense() -> nn.Module:
    """An image (batch, 1, 8, 8) to 10 scores, by up to three hidden layers."""
    hidden = ValueChoice([8, 16, 32, 64], label="hidden")

    def block(i: int) -> nn.Module:
        norms: dict[str, Callable[[], nn.Module]] = {"none": nn.Identity, "layer norm": lambda: nn.LayerNorm(hidden)}
        return nn.Sequential(nn.Linear(hidden, hidden), LayerChoice(norms, label=f"norm {i}"), activation())

    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, hidden),
        activation(),
        Repeat(block, (0, 2), label="more layers"),
        nn.Linear(hidden, 10),
    )


@model_space
class Digits(nn.Module):
    """Small networks for images (batch, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = LayerChoice({"convolutional": convolutional, "dense": dense}, label="body")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


@functools.cache
def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """897 images to train with and 900 to judge by."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(numpy.float32).reshape(-1, 1, 8, 8)
    halves = train_test_split(images, labels, test_size=900, stratify=labels, random_state=0)
    train, valid, train_labels, valid_labels = (torch.from_numpy(half) for half in halves)
    return train, train_labels, valid, valid_labels


def train(sample: Sample, seed: int) -> dict[str, Any]:
    """Trains one architecture.

    Returns:
        The share of right answers after each epoch, the number of parameters, and the seconds it took.
    """
    torch.set_num_threads(1)
    images, labels, valid, valid_labels = load()
    torch.manual_seed(seed)
    model = ModelSpace(Digits).build(sample)
    begin = time.monotonic()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        with torch.no_grad():
            curve.append(round(float((model(valid).argmax(1) == valid_labels).float().mean()), 4))
    return {
        "sample": sample,
        "seed": seed,
        "accuracy": curve,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.monotonic() - begin, 2),
    }


def read(lines: Path) -> list[dict[str, Any]]:
    """What the file of lines holds; a last line that a kill has torn is cut off."""
    if not lines.exists():
        return []
    whole = [line for line in lines.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    lines.write_text("".join(whole))
    return [json.loads(line) for line in whole]


def fill(lines: Path, samples: list[Sample], workers: int) -> list[dict[str, Any]]:
    """Trains what the file of lines does not hold yet."""
    found = read(lines)
    there = {(json.dumps(row["sample"]), row["seed"]) for row in found}
    jobs = [(s, seed) for s in samples for seed in range(SEEDS) if (json.dumps(s), seed) not in there]
    with lines.open("a") as file:
        for row in track(parallel(train, jobs, workers), f"{len(jobs)} to train", total=len(jobs)):
            found.append(row)
            file.write(json.dumps(found[-1]) + "\n")
            file.flush()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--first", type=int, help="so many architectures only")
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    space = ModelSpace(Digits)
    print(space)
    samples = list(space.grid())[: options.first]
    rows = fill(options.table.with_suffix(".lines"), samples, options.workers)
    by_sample: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        entry = by_sample.setdefault(
            json.dumps(row["sample"]),
            {"sample": row["sample"], "parameters": row["parameters"], "accuracy": [], "seconds": []},
        )
        entry["accuracy"].append(row["accuracy"])
        entry["seconds"].append(row["seconds"])
    table = [by_sample[json.dumps(sample)] for sample in samples]
    with options.table.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(json.dumps({"epochs": EPOCHS, "rows": table}).encode())
    best = max(table, key=lambda row: sum(curve[-1] for curve in row["accuracy"]))
    print(f"{len(table)} architectures in {options.table}; the best: {best}")


if __name__ == "__main__":
    main()
