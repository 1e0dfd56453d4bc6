"""What a strategy has proposed already, and how it finds something that it has not."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice
from typing import final

from nas.errors import SearchSpaceExhausted
from nas.samples import Sample, sample_key
from nas.search_space import SearchSpace
from nas.trial import Trial

_DRAWS = 1000


@final
class Novelty:
    """Remembers proposals, for strategies that try nothing twice.

    Args:
        space: of the samples.

    Example:
        >>> from nas import Categorical
        >>> novelty = Novelty(SearchSpace.of({"width": Categorical([16, 32])}))
        >>> novelty.tell(Trial(number=0, sample={"width": 16}))
        >>> novelty.first([{"width": 16}], random.Random(0))
        {'width': 32}
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._proposed: dict[int, str] = {}
        self._seen: set[str] = set()

    def tell(self, trial: Trial) -> None:
        """Takes note of a trial, running or finished."""
        key = sample_key(trial.sample)
        before = self._proposed.setdefault(trial.number, key)
        self._seen.add(before)
        if key != before:
            # The build completed the sample, so what the tree calls one sample stands for many.
            self._seen.discard(before)
            self._seen.add(key)

    def knows(self, sample: Sample) -> bool:
        """Whether this sample has been proposed."""
        return sample_key(sample) in self._seen

    def first(self, candidates: Iterable[Sample], rng: random.Random) -> Sample:
        """The first candidate that is new; where none is, a new sample drawn from the space.

        Raises:
            SearchSpaceExhausted: every sample has been proposed.
        """
        size = self._space.size
        if len(self._seen) >= size:
            raise SearchSpaceExhausted(f"the search space is exhausted: all {size} samples have been tried")
        for sample in candidates:
            if not self.knows(sample):
                return sample
        # In a small space, drawing blindly for what is left takes longer than looking through it.
        for _ in range(_DRAWS if size > _DRAWS else 10):
            sample = self._space.sample(rng)
            if not self.knows(sample):
                return sample
        left = list(islice((s for s in self._space.grid() if not self.knows(s)), _DRAWS))
        if not left:
            raise SearchSpaceExhausted("the search space is exhausted: every sample has been tried")
        return rng.choice(left)
