"""Samples near a sample: one choice answered otherwise."""

from __future__ import annotations

import random

from nas.space import Answer, Choice, Domain, Integer, Real, Sample, SearchSpace

_MANY = 16
"""A domain with more answers than this is not gone through; answers near the present one are drawn."""
_DRAWN = 4
_STEP = 0.15
"""Standard deviation of a drawn step, as a share of the range."""


def with_answer(space: SearchSpace, sample: Sample, label: str, answer: Answer, rng: random.Random) -> Sample:
    """The sample with one choice answered otherwise. Choices that become active are drawn, inactive ones dropped."""

    def decide(choice: Choice) -> Answer:
        if choice.label == label:
            return answer
        return sample[choice.label] if choice.label in sample else choice.domain.sample(rng)

    child = space.walk(decide)
    return child | {name: given for name, given in sample.items() if name not in space.domains}


def other_answers(domain: Domain, answer: Answer, rng: random.Random) -> list[Answer]:
    """All other answers where they are few, else some that are near.

    Example:
        >>> from nas import Categorical
        >>> other_answers(Categorical(["relu", "gelu", "silu"]), "relu", random.Random(0))
        ['gelu', 'silu']
    """
    if domain.size <= _MANY:
        return [other for other in domain.values() if other != answer]
    return [near(domain, answer, rng) for _ in range(_DRAWN)]


def near(domain: Domain, answer: Answer, rng: random.Random) -> Answer:
    """Another answer: a small step in a large domain of numbers, any other one elsewhere."""
    if domain.size <= _MANY or not isinstance(domain, Integer | Real):
        return domain.mutate(answer, rng)
    position = domain.to_unit(answer)
    for _ in range(100):
        other = domain.from_unit(min(1.0, max(0.0, rng.gauss(position, _STEP))))
        if other != answer:
            return other
    return domain.mutate(answer, rng)
