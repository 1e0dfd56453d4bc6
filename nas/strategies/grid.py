"""Grid search: every sample once, in product order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

from nas.calls import explained
from nas.domains import Sample, sample_key
from nas.errors import SearchSpaceExhausted
from nas.protocols import Strategy, Task, Trial


@explained()
@final
class GridSearch(Strategy):
    """Goes through the whole space, the last choice changing fastest; starts at once, however large the space.

    Raises:
        NasValueError: from `start`, a domain with infinitely many answers.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = GridSearch()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32])})))
        >>> strategy.ask(0)
        {'width': 16}
    """

    def start(self, task: Task) -> None:
        """Back to the first sample."""
        task.space.require(
            lambda domain: domain.size != math.inf,
            "a grid needs domains that can be listed",
            "give it a step, as in Real(low, high, step=), or list the candidates",
        )
        self._grid: Iterator[Sample] = task.space.grid()
        known = "" if task.space.exact else " that are known, of a space that is not exact,"
        self._number = f"{task.space.size if task.space.constraint is None else 'allowed'} samples{known}"
        self._upcoming: Sample | None = None
        self._tried: set[str] = set()

    def ask(self, number: int) -> Sample:
        """The next sample of the grid that has not been tried."""
        while self._upcoming is None or sample_key(self._upcoming) in self._tried:
            self._upcoming = next(self._grid, None)
            if self._upcoming is None:
                raise SearchSpaceExhausted(f"the grid is done: all {self._number} have been tried")
        return dict(self._upcoming)

    def tell(self, trial: Trial) -> None:
        """Remembers what has been tried, as it was proposed and as the build completed it."""
        self._tried.add(sample_key(trial.sample))
