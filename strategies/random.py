"""Random search: each choice drawn from its domain."""

from __future__ import annotations

from typing import final

from nas.errors import SearchSpaceExhausted
from nas.samples import Sample, sample_key
from nas.strategy import Strategy, Task
from nas.trial import Trial

_TRIES = 1000


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
        self.distinct = distinct

    def start(self, task: Task) -> None:
        """Forgets what was proposed."""
        self._task = task
        self._proposed: dict[int, str] = {}
        self._seen: set[str] = set()

    def ask(self, number: int) -> Sample:
        """A draw; with `distinct`, one that was not proposed before."""
        space, rng = self._task.space, self._task.rng(number)
        if not self.distinct:
            return space.sample(rng)
        if len(self._seen) >= space.size:
            raise SearchSpaceExhausted(f"the search space is exhausted: all {space.size} samples have been tried")
        for _ in range(_TRIES):
            sample = space.sample(rng)
            if sample_key(sample) not in self._seen:
                return sample
        # Few are left, or they are seldom drawn: take one of them, each equally likely.
        chosen: Sample | None = None
        for count, sample in enumerate((s for s in space.grid() if sample_key(s) not in self._seen), 1):
            if rng.random() < 1 / count:
                chosen = sample
            if count == _TRIES:
                break
        if chosen is None:
            raise SearchSpaceExhausted("the search space is exhausted: every sample has been tried")
        return chosen

    def tell(self, trial: Trial) -> None:
        """Remembers what was proposed; results do not matter."""
        key = sample_key(trial.sample)
        before = self._proposed.setdefault(trial.number, key)
        self._seen.add(before)
        if key != before:
            # The build completed the sample, so what the tree calls one sample stands for many.
            self._seen.discard(before)
            self._seen.add(key)
