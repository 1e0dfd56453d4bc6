"""Random search: each choice drawn from its domain."""

from __future__ import annotations

from typing import final

from nas.checks import check_bool
from nas.domains import Sample
from nas.protocols import Strategy, Task, Trial
from nas.strategies.novelty import Novelty


@final
class Random(Strategy):
    """Draws samples independently of all results (Bergstra and Bengio 2012, JMLR 13).

    Args:
        distinct: never propose a sample twice; ends when the space is exhausted.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = Random()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32, 64])}), seed=0))
        >>> strategy.ask(0)["width"] in (16, 32, 64)
        True
    """

    def __init__(self, *, distinct: bool = True) -> None:
        self.distinct = check_bool("distinct", distinct, where="Random")

    def start(self, task: Task) -> None:
        """Forgets what was proposed."""
        self._task = task
        self._novelty = Novelty(task.space)

    def ask(self, number: int) -> Sample:
        """A draw; with `distinct`, one that was not proposed before."""
        rng = self._task.rng(number)
        return self._novelty.first((), rng) if self.distinct else self._task.space.sample(rng)

    def tell(self, trial: Trial) -> None:
        """Remembers what was proposed; results do not matter."""
        self._novelty.tell(trial)
