"""The tree-structured Parzen estimator."""

from __future__ import annotations

import warnings
from typing import final

from nas.checks import check_int
from nas.domains import Sample
from nas.protocols import Strategy, Task, Trial
from nas.strategies.sampler import OptunaStrategy
from nas.whole_process import own_warnings


@final
class TPE(Strategy):
    """Optuna's tree-structured Parzen estimator, set up for architectures (Bergstra et al. 2011; Watanabe 2023).

    Multivariate and grouped: choices that are active together are modelled together, so that conditional choices keep
    their correlations. Trials under way count as bad ones ("constant liar"), so that concurrent proposals differ. Takes
    several objectives.

    Args:
        initial: random samples before the first model.
        candidates: drawn from the model of the good trials for each proposal, the most promising of which is taken.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = TPE()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32, 64])})))
        >>> strategy.ask(0)["width"] in (16, 32, 64)
        True
    """

    def __init__(self, initial: int = 10, *, candidates: int = 24) -> None:
        self.initial = check_int("initial", initial, least=0, where="TPE")
        self.candidates = check_int("candidates", candidates, least=1, where="TPE")

    def start(self, task: Task) -> None:
        """An empty study."""
        import optuna

        with own_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=self.initial,
                n_ei_candidates=self.candidates,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        self._strategy = OptunaStrategy(sampler)
        self._strategy.start(task)

    def ask(self, number: int) -> Sample:
        """What the estimator proposes, or a new neighbour of it."""
        return self._strategy.ask(number)

    def tell(self, trial: Trial) -> None:
        """Puts the trial in the study."""
        self._strategy.tell(trial)
