"""One-shot search beside multi-trial search on handwritten digits, each result looked up in a table of the whole space.

Run it by `python examples/one_shot_digits.py`; it takes some three minutes on two cores and needs scikit-learn.
`--smoke` does the same in seconds, with hardly any training.

The space is that of `docs/benchmark/digits_table.py`, whose 624 architectures have all been trained, so it is known how
good each result is. A search sees 897 images, one half to train with and the other to judge by; the 900 others judge
what was found, after it is trained again on the 897, as it was for the table.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import TensorDataset, random_split

from nas import Experiment, ModelSpace, NasError, Sample, Strategy
from nas.evaluators import Classification
from nas.oneshot import DARTS, ENAS, RandomOneShot
from nas.strategies import GaussianProcess

BENCHMARK = Path(__file__).parents[1] / "docs/benchmark"
sys.path.append(str(BENCHMARK))
import digits_table  # noqa: E402 - it lies beside its table, not on the path


class Known:
    """The accuracy of every architecture, the mean of two trainings, with its rank among those of the same space.

    Args:
        fixed: answers that an architecture must have to belong to the space.
    """

    def __init__(self, fixed: Sample) -> None:
        rows = json.loads(gzip.decompress((BENCHMARK / "digits.json.gz").read_bytes()))["rows"]
        self._fixed = fixed
        self._accuracy = {
            _key(row["sample"]): statistics.fmean(curve[-1] for curve in row["accuracy"])
            for row in rows
            if row["sample"].items() >= fixed.items()
        }

    def __len__(self) -> int:
        return len(self._accuracy)

    def accuracy(self, sample: Mapping[str, object]) -> float:
        """Of an architecture."""
        return self._accuracy[_key({**self._fixed, **sample})]

    def rank(self, sample: Mapping[str, object]) -> int:
        """1 for the best one."""
        return 1 + sum(other > self.accuracy(sample) for other in self._accuracy.values())

    def at(self, share: float) -> float:
        """The accuracy that this share of the architectures passes."""
        return sorted(self._accuracy.values(), reverse=True)[int(share * (len(self) - 1))]


def _key(sample: Mapping[str, object]) -> str:
    return json.dumps(sample, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Search:
    """One line of the table."""

    name: str
    strategy: Strategy
    trials: int | None = None
    """None for as many as a one-shot strategy proposes."""
    space: ModelSpace = field(default_factory=lambda: ModelSpace(digits_table.convolutional))
    fixed: Sample = field(default_factory=lambda: {"body": "convolutional"})


def searches(*, smoke: bool) -> list[Search]:
    """What is compared."""
    few = 2 if smoke else None
    return [
        Search(name="DARTS", strategy=DARTS(epochs=few or 20, learning_rate=3e-2)),
        Search(
            name="ENAS",
            strategy=ENAS(
                epochs=few or 60,
                warmup_epochs=1 if smoke else 30,
                controller_steps=few or 10,
                entropy_weight=1e-2,
                draws=few or 100,
            ),
        ),
        Search(name="single path", strategy=RandomOneShot(epochs=few or 200, evaluations=4 if smoke else 200)),
        Search(
            name="single path, all 624",
            strategy=RandomOneShot(epochs=few or 200, evaluations=4 if smoke else 200),
            space=ModelSpace(digits_table.Digits),
            fixed={},
        ),
        Search(name="Gaussian process", strategy=GaussianProcess(), trials=few or 40),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two epochs of everything")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=int, metavar="K", help="train K architectures of each supernet alone, too")
    parser.add_argument("--directory", type=Path, default=Path("nas-experiments"))
    parser.add_argument(
        "--name",
        default=f"{datetime.datetime.now():%Y%m%d-%H%M%S}",
        help="what the names of the experiments begin with",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # networks this small are faster so

    images, labels, test_images, test_labels = digits_table.load()
    seen, test = TensorDataset(images, labels), TensorDataset(test_images, test_labels)
    train, validation = random_split(seen, [0.5, 0.5], torch.Generator().manual_seed(0))
    epochs = 2 if options.smoke else digits_table.EPOCHS
    settings: dict[str, Any] = {
        "optimizer": "Adam",
        "learning_rate": 3e-3,
        "max_epochs": epochs,
        "enable_checkpointing": False,
    }
    evaluator = Classification(train, validation, batch_size=32, **settings)
    retraining = Classification(seen, test, batch_size=digits_table.BATCH, executions=digits_table.SEEDS, **settings)

    console = Console()
    try:
        Experiment(ModelSpace(digits_table.Digits), evaluator, DARTS(), name="whole", directory=options.directory).run()
    except NasError as error:
        console.print(
            "The whole space cannot be relaxed, so DARTS searches its convolutional architectures:", style="bold"
        )
        console.print(str(error), markup=False)

    table = Table(title="Handwritten digits, by one-shot and by multi-trial search", title_justify="left")
    for column in ("search", "CPU s", "searched", "retrained", "table", "rank"):
        table.add_column(column, justify="left" if column == "search" else "right", no_wrap=True)
    compared = searches(smoke=options.smoke)
    experiments = [
        Experiment(
            search.space,
            evaluator,
            search.strategy,
            name=f"{options.name}-{search.name}",
            directory=options.directory,
            seed=options.seed,
        )
        for search in compared
    ]
    spent = []
    for search, experiment in zip(compared, experiments, strict=True):
        console.rule(search.name)
        begin = time.process_time()
        experiment.run(search.trials)
        spent.append(time.process_time() - begin)
    for search, experiment, seconds in zip(compared, experiments, spent, strict=True):
        best, known = experiment.best_trial, Known(search.fixed)
        if options.report and search.strategy.shared_training is not None:
            console.print(experiment.one_shot_report(k=options.report))
        retrained = experiment.retrain(evaluator=retraining)
        table.add_row(
            search.name,
            f"{seconds:.0f}",
            f"{best.value:.2%}",
            f"{retrained.metrics['accuracy']:.2%}",
            f"{known.accuracy(best.sample):.2%}",
            f"{known.rank(best.sample)} of {len(known)}",
        )
    console.print(table)
    console.print(
        "searched: on the half to judge by, with shared weights where there are; retrained: on the images that no "
        "search saw, the mean of two trainings; table: the same, as the table has it."
    )
    known = Known({"body": "convolutional"})
    console.print(
        f"In the table the best of {len(known)} convolutional architectures has {known.at(0):.2%}, the best tenth "
        f"{known.at(0.1):.2%} or more, and one half {known.at(0.5):.2%} or more."
    )


if __name__ == "__main__":
    main()
