"""Grid search: every sample once, in product order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from nas.errors import SearchSpaceExhausted
from nas.samples import Sample, sample_key
from nas.strategy import Strategy, Task
from nas.trial import Trial


@final
class GridSearch(Strategy):
    """Goes through the whole space, the last choice changing fastest; starts at once, however large the space.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = GridSearch()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32])})))
        >>> strategy.ask(0)
        {'width': 16}
    """

    def start(self, task: Task) -> None:
        """Back to the first sample."""
        self._grid: Iterator[Sample] = task.space.grid()
        self._size = task.space.size
        self._upcoming: Sample | None = None
        self._proposed: set[int] = set()

    def ask(self, number: int) -> Sample:
        """The next sample of the grid."""
        if self._upcoming is None:
            self._upcoming = next(self._grid, None)
        if self._upcoming is None:
            raise SearchSpaceExhausted(f"the grid is done: all {self._size} samples have been tried")
        return dict(self._upcoming)

    def tell(self, trial: Trial) -> None:
        """Goes on when the sample of the grid has been taken."""
        if trial.number in self._proposed:
            return
        self._proposed.add(trial.number)
        if sample_key(trial.sample) == sample_key(self.ask(trial.number)):
            self._upcoming = None
