"""What a strategy has proposed already, and how it finds something that it has not."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import final

from nas.domains import Sample, sample_key
from nas.errors import SearchSpaceExhausted
from nas.protocols import Trial
from nas.space import SearchSpace

_DRAWS = 1000
_LISTED = 1_000_000
_REPEATS = 100


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
        self._repeats = 0

    def tell(self, trial: Trial) -> None:
        """Takes note of a trial, running or finished."""
        key = sample_key(trial.sample)
        before = self._proposed.setdefault(trial.number, key)
        self._seen.add(before)
        if key != before:
            # The build completed the sample, so what the tree calls one sample stands for many.
            self._seen.discard(before)
            self._repeats = self._repeats + 1 if key in self._seen else 0
            self._seen.add(key)

    def admits(self, sample: Sample) -> bool:
        """Whether this sample may be proposed: it has not been, and the space's constraint allows it."""
        return sample_key(sample) not in self._seen and self._space.allows(sample)

    def first(self, candidates: Iterable[Sample], rng: random.Random) -> Sample:
        """The first candidate that is new; where none is, a new sample drawn from the space.

        Raises:
            SearchSpaceExhausted: every sample has been proposed.
        """
        size = self._space.size if self._space.exact else math.inf
        if len(self._seen) >= size:
            raise SearchSpaceExhausted(f"the search space is exhausted: all {size} samples have been tried")
        if self._repeats >= _REPEATS:
            raise SearchSpaceExhausted(
                f"the last {_REPEATS} proposals were all completed to samples that had been tried: the search space is "
                "as good as exhausted"
            )
        for sample in candidates:
            if self.admits(sample):
                return sample
        # In a small space, drawing blindly for what is left takes longer than looking through it.
        for _ in range(_DRAWS if size > _DRAWS else 10):
            sample = self._space.sample(rng)
            if self.admits(sample):
                return sample
        if self._space.size == math.inf or (self._space.constraint is not None and self._space.size > _LISTED):
            kept = "" if self._space.constraint is None else " that satisfy the constraint"
            raise SearchSpaceExhausted(
                f"none of {_DRAWS} more draws{kept} is new, and the space is too large to look through: the search "
                "space is as good as exhausted"
            )
        left = list(islice(filter(self.admits, self._space.grid()), _DRAWS))
        if not left:
            raise SearchSpaceExhausted("the search space is exhausted: every sample has been tried")
        return rng.choice(left)

    def mutants(self, parents: Sequence[Sample], number: int, rng: random.Random) -> list[Sample]:
        """Up to `number` new samples, each a parent with one or two choices changed; the parents take turns."""
        found = []
        for i in range(number):
            child = self._space.mutate(parents[i % len(parents)], rng)
            if rng.random() < 0.5:
                child = self._space.mutate(child, rng)
            if self.admits(child):
                found.append(child)
        return found
