"""Candidates for predictors to choose among: mutants of the best samples that were not tried yet."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nas.space import Sample, SearchSpace
from nas.strategies.novelty import Novelty


def mutants(
    space: SearchSpace, parents: Sequence[Sample], number: int, *, novelty: Novelty, rng: random.Random
) -> list[Sample]:
    """Up to `number` new samples, each a parent with one or two choices changed; the parents take turns."""
    found = []
    for i in range(number):
        child = space.mutate(parents[i % len(parents)], rng)
        if rng.random() < 0.5:
            child = space.mutate(child, rng)
        if novelty.admits(child):
            found.append(child)
    return found
