"""The ask/tell protocol of strategies, and that of those which train a supernet first."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from nas.calls import explained
from nas.domains import Sample
from nas.errors import NasValueError, explain
from nas.protocols.objectives import Direction, losses
from nas.protocols.remembered import Remembers
from nas.protocols.shared_training import SharedTraining
from nas.protocols.trial import Trial
from nas.space import SearchSpace


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What a strategy works on."""

    space: SearchSpace
    """The tree of choices; the evaluator's searched hyperparameters are among them."""
    directions: tuple[Direction, ...] = ("maximize",)
    """One for each objective, in the order of `Trial.values`."""
    seed: int = 0
    """The experiment's seed."""
    max_trials: int | None = None
    """How many trials are asked for, where that is known: for advice alone, since a resumed search may ask for more."""

    def rng(self, number: int) -> random.Random:
        """The random numbers for proposing the trial of this number: the same whenever they are asked for."""
        return random.Random(f"{self.seed}/{number}")

    def losses(self, trial: Trial) -> tuple[float, ...]:
        """The values of a trial with every sign such that smaller is better; none where it has no values."""
        return () if trial.values is None else losses(trial.values, self.directions)


class Strategy(Remembers, ABC):
    """Proposes samples and learns from trials.

    A strategy holds no durable state: `start` forgets everything, and after a restart the experiment tells it all
    that happened, in the order in which it happened. For that to lead to the same state,

    - `ask` changes nothing that a later `ask` depends on: state changes in `start` and `tell` alone;
    - randomness comes from `Task.rng(number)`.

    The experiment tells each trial twice: once RUNNING, right after its sample was asked for (so that a strategy knows
    what is under way), and once finished. `nas.testing.StrategyContract` checks all of this for any strategy.

    Example:
        >>> from nas import Categorical
        >>> class Halves(Strategy):
        ...     def start(self, task):
        ...         self.task = task
        ...     def ask(self, number):
        ...         return self.task.space.sample(self.task.rng(number))
        ...     def tell(self, trial):
        ...         pass
        >>> strategy = Halves()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32])})))
        >>> strategy.ask(0) == strategy.ask(0)
        True
    """

    @abstractmethod
    def start(self, task: Task) -> None:
        """Begins a search from nothing."""

    @abstractmethod
    def ask(self, number: int) -> Sample:
        """The sample of the trial with this number.

        Raises:
            SearchSpaceExhausted: there is nothing left to propose.
        """

    @abstractmethod
    def tell(self, trial: Trial) -> None:
        """Takes note of a trial: RUNNING when it has been started, later COMPLETE, STOPPED or FAILED."""

    @property
    def shared_training(self) -> SharedTraining | None:
        """What is trained before the first sample is proposed, and all samples share; nothing in ordinary strategies.

        All that an experiment must know of one-shot search it asks of what this returns, which may be the strategy.
        """
        return None


class OneShotStrategy(Strategy, SharedTraining):
    """Trains a supernet, and then proposes its subnets, the best first; they are judged with the shared weights.

    As a strategy it proposes what `search` has ranked. `nas.oneshot` has those that train by pytorch-lightning. Nothing
    asks for this class: any strategy whose `shared_training` is there is treated the same.
    """

    @property
    @final
    def shared_training(self) -> SharedTraining:
        """Itself."""
        return self


def check_single(task: Task, name: str) -> None:
    """Refuses several objectives, on behalf of the strategy of this name.

    Raises:
        NasValueError: there are several.
    """
    if len(task.directions) > 1:
        raise NasValueError(
            explain(
                f"{name} searches for one objective",
                got=f"{len(task.directions)} objectives",
                mend="use RegularizedEvolution, TPE, Random or OptunaStrategy(optuna.samplers.NSGAIISampler()), or "
                "make one of them by nas.objectives.weighted_product",
            )
        )
