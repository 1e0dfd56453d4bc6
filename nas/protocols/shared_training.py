"""The protocol of what a strategy trains before it proposes, and all of its samples share: a supernet, say."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from torch import nn

from nas.calls import explained
from nas.domains import Sample
from nas.errors import NasValueError, explain
from nas.protocols.evaluation import Evaluator
from nas.protocols.objectives import Direction, Objectives
from nas.protocols.trial import Trial
from nas.space import ModelSpace


def _same(deadline: float | None) -> float | None:
    return deadline


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class OneShotTask:
    """What is trained before the trials."""

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
    until: Callable[[], float | None] = lambda: None
    """Says what `deadline` is just now; it changes when the limits of a run do that is under way."""

    @property
    def deadline(self) -> float | None:
        """Of `time.monotonic()`, in seconds: training ends there, and is gone on with next time; None for none.

        To be asked anew each time.
        """
        return self.until()

    def __getstate__(self) -> dict[str, Any]:
        """For the processes of other devices: what shows lines on a terminal stays here, there they are printed.

        What asks for the deadline stays here too; there it is what it is now.
        """
        state = {**self.__dict__, "until": partial(_same, self.deadline)}
        try:
            pickle.dumps(self.note)
        except Exception:  # a console has locks and streams
            state["note"] = print
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class ExperimentArguments:
    """What an experiment was given, besides the strategy that looks at it."""

    space: ModelSpace
    evaluator: Evaluator
    objectives: Objectives
    executor: object
    """As the user gave it: a name or an executor."""
    repeats: int
    early_stopping: object
    """A rule, a pruner, or None."""

    def refuse_for_supernets(self) -> None:
        """Refuses what makes no sense where one supernet is trained in this process, and its subnets are only judged.

        Raises:
            NasValueError: another executor, repeats, early stopping or several objectives.
        """
        reasons: dict[str, tuple[object, str]] = {
            "executor": ("inline", "a supernet is trained in this process (give the Trainer devices=... for several)"),
            "repeats": (1, "a supernet is trained once"),
            "early_stopping": (None, "subnets are judged without training, so there is nothing to stop early"),
        }
        for name, (usual, reason) in reasons.items():
            given = getattr(self, name)
            if given != usual:
                raise NasValueError(explain(reason, got=given, where=name, mend=f"leave {name} out"))
        if len(self.objectives.names) > 1:
            raise NasValueError(
                explain(
                    "one-shot search has one objective",
                    got=self.objectives.describe(),
                    mend="give a penalty for the others",
                )
            )


class SharedTraining(ABC):
    """What a strategy trains before it proposes, and all of its samples share; see `Strategy.shared_training`.

    An experiment asks `refuse` when it is made, and `search` at the beginning of each run; what that returns judges the
    trials. `inherit` and `report` are asked for by the user, after `restore`.
    """

    @property
    def ranks(self) -> bool:
        """Whether the order in which the samples are proposed is their ranking, whatever the trials' values are."""
        return True

    @property
    def evaluator_may_change(self) -> frozenset[str]:
        """Arguments of the evaluator under others of which a training may be gone on with: how long it takes, say."""
        return frozenset()

    @property
    def steps(self) -> int | None:
        """Training steps of what `search` has returned a judge of; None where they are not counted.

        The trials are marked with it. Where it has been trained on since, the earlier ones are history: they are kept,
        and no more compared with those that it judges now.
        """
        return None

    @abstractmethod
    def refuse(self, arguments: ExperimentArguments) -> None:
        """Raises a NasError where an argument of the experiment cannot serve, before anything is written or trained."""

    @abstractmethod
    def search(self, task: OneShotTask) -> Evaluator | None:
        """Trains (or goes on, or finds that all is trained), so that there is something to propose.

        Returns:
            What judges a sample by the shared weights; None where the time was up before the end.
        """

    @abstractmethod
    def restore(self, task: OneShotTask) -> None:
        """Loads what was trained, without training.

        Raises:
            ExperimentError: there is nothing yet.
        """

    @abstractmethod
    def inherit(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with its own copy of the shared weights, its batch statistics taken afresh.

        Raises:
            NasError: there are no weights that it could take along.
        """

    @abstractmethod
    def report(self, trials: list[Trial], *, k: int, **options: Any) -> Any:
        """How far the judgement by shared weights can be trusted.

        Args:
            trials: of the experiment.
            k: how many architectures are trained alone and compared.
            **options: as the user gave them.
        """
