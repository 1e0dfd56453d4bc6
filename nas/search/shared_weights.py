"""What the strategy of an experiment trains before it proposes, loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

from torch import nn

from nas.checks import check_int
from nas.domains import Sample
from nas.errors import ExperimentError, explain, told_if_full
from nas.files import own_folder
from nas.protocols import Evaluator, OneShotTask, SharedTraining, Strategy, Trial


@final
class SharedWeights:
    """The shared training of an experiment's strategy.

    Args:
        strategy: of the experiment.
        task: what it works on.
    """

    def __init__(self, strategy: Strategy, task: OneShotTask) -> None:
        self._strategy, self._task = strategy, task

    def search(self, note: Callable[[str], None], until: Callable[[], float | None]) -> Evaluator | None:
        """Trains; see `SharedTraining.search`.

        Raises:
            ExperimentError: the folder of the supernet is a link.
            DiskFull: there is no room.
        """
        folder = self._task.directory
        with told_if_full(folder, "make room, and run it again with resume=True"):
            own_folder(folder.parent, folder.name)
            return self._training.search(replace(self._task, note=note, until=until))

    def inherit(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with the shared weights."""
        return self._restored.inherit(sample)

    def report(self, trials: list[Trial], k: int, **options: Any) -> Any:
        """How far they can be trusted."""
        k = check_int("k", k, least=2, where="one_shot_report")  # a rank correlation needs two
        return self._restored.report(trials, k=k, **options)

    @property
    def _restored(self) -> SharedTraining:
        training = self._training
        training.restore(self._task)
        return training

    @property
    def _training(self) -> SharedTraining:
        found = self._strategy.shared_training
        if found is None:
            raise ExperimentError(
                explain(
                    "only one-shot search has a supernet with shared weights",
                    got=type(self._strategy).__name__,
                    mend="take a strategy of nas.oneshot",
                )
            )
        return found
