"""A search whose trials wait for a word: what the contract of executors interrupts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

from torch import nn

from nas.domains import Domain, Real
from nas.execution import Executor
from nas.protocols import Evaluator, Job
from nas.search import Experiment
from nas.space import ValueChoice
from nas.strategies import Random


@final
class Waits(Evaluator):
    """Trials that wait until there is a file `go`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def hyperparameters(self) -> Mapping[str, Domain]:
        """So that there are as many samples as anybody wants."""
        return {"rate": Real(0, 1)}

    def evaluate(self, job: Job) -> float:
        """Tells that it has begun, and waits."""
        (self.folder / f"begun-{job.number}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        return job.number


def search_and_wait(folder: Path, executor: Executor) -> None:
    """Six trials, or the rest of them; what has become of each is in a file `states`."""
    experiment = Experiment(
        lambda: nn.Linear(2, ValueChoice([1, 2], label="width")),
        Waits(folder),
        Random(),
        name="interrupted",
        directory=folder,
        resume=True,
        executor=executor,
    )
    with suppress(KeyboardInterrupt):
        experiment.run(6, progress="silent")
    (folder / "states").write_text(" ".join(trial.state.name for trial in experiment.trials))
