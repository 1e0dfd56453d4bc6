"""The protocol of one-shot strategies: one supernet is trained, and its best subnets become the trials."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from torch import nn

from nas.errors import ExperimentError, NasValueError, explain
from nas.protocols.evaluation import Evaluator
from nas.protocols.objectives import Direction, Objectives
from nas.protocols.strategy import Strategy
from nas.space import ModelSpace, Sample

if TYPE_CHECKING:
    from nas.protocols.trial import Trial


@final
@dataclass(frozen=True, kw_only=True)
class OneShotTask:
    """What a one-shot strategy works on."""

    space: ModelSpace
    evaluator: Evaluator
    """How the weights are trained and validated."""
    direction: Direction
    """Of the metric that subnets are ranked by."""
    objective: str | None
    """The name of that metric; None for the evaluator's first."""
    seed: int
    directory: Path
    """For checkpoints and logs; what lies there is gone on with."""
    note: Callable[[str], None] = print
    """Shows a line to the user."""
    deadline: float | None = None
    """Of `time.monotonic()`, in seconds: training ends there, and is gone on with next time."""

    def __getstate__(self) -> dict[str, Any]:
        """For the processes of other devices: what shows lines on a terminal stays here, there they are printed."""
        try:
            pickle.dumps(self.note)
        except Exception:  # a console has locks and streams
            return {**self.__dict__, "note": print}
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class OneShotStrategy(Strategy):
    """Trains a supernet, and then proposes its subnets, the best first; they are judged with the shared weights.

    As a strategy it proposes what `search` has ranked. `nas.oneshot` has those that train by pytorch-lightning.
    """

    @abstractmethod
    def refuse(self, space: ModelSpace, evaluator: Evaluator) -> None:
        """Raises a NasError where the space or the evaluator cannot serve, before anything is written or trained."""

    @abstractmethod
    def search(self, task: OneShotTask) -> Evaluator | None:
        """Trains the supernet (or goes on, or finds that it is trained), and ranks its subnets.

        Returns:
            What judges a sample by the shared weights; None where the time was up before the end.
        """

    @abstractmethod
    def restore(self, task: OneShotTask) -> None:
        """Loads the trained supernet without training.

        Raises:
            ExperimentError: there is none yet.
        """

    @abstractmethod
    def inherit(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with its own copy of the shared weights, its batch statistics taken afresh."""

    @abstractmethod
    def report(self, trials: list[Trial], *, k: int, **options: Any) -> Any:
        """How far the supernet can be trusted."""


@final
class Supernet:
    """The supernet of an experiment, loaded when it is asked for.

    Args:
        strategy: of the experiment.
        task: of the supernet.
    """

    def __init__(self, strategy: Strategy, task: OneShotTask) -> None:
        self._given, self._task = strategy, task

    def search(self, note: Callable[[str], None], end: float | None) -> Evaluator | None:
        """Trains it; see `OneShotStrategy.search`."""
        return self._strategy.search(replace(self._task, note=note, deadline=end))

    def inherit(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with the shared weights."""
        self._strategy.restore(self._task)
        return self._strategy.inherit(sample)

    def report(self, trials: list[Trial], k: int, **options: Any) -> Any:
        """How far it can be trusted."""
        self._strategy.restore(self._task)
        return self._strategy.report(trials, k=k, **options)

    @property
    def _strategy(self) -> OneShotStrategy:
        if not isinstance(self._given, OneShotStrategy):
            raise ExperimentError(
                explain(
                    "only one-shot search has a supernet with shared weights",
                    got=type(self._given).__name__,
                    mend="take a strategy of nas.oneshot",
                )
            )
        return self._given


def refuse_for_one_shot(objectives: Objectives, **given: object) -> None:
    """Raises where an experiment's arguments make no sense for a supernet: those given that are not the usual ones."""
    reasons = {
        "executor": ("inline", "a supernet is trained in this process (give the Trainer devices=... for several)"),
        "repeats": (1, "a supernet is trained once"),
        "early_stopping": (None, "subnets are judged without training, so there is nothing to stop early"),
    }
    for name, (usual, reason) in reasons.items():
        if given[name] != usual:
            raise NasValueError(explain(reason, got=given[name], where=name, mend=f"leave {name} out"))
    if len(objectives.names) > 1:
        raise NasValueError(
            explain(
                "one-shot search has one objective", got=objectives.describe(), mend="give a penalty for the others"
            )
        )
