"""Answers that reach the ends of a search space: which shapes its architectures can have, at the most."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from nas.domains import Answer, Sample, as_key, sample_key
from nas.space import Choice, ModelSpace, Question, SearchSpace

Answers: TypeAlias = Callable[[Question], Answer]

_ROUNDS = 8
"""Answers of each value that are tried one after the other; of longer domains as many in equal distances."""
_FEW, _MOST, _AROUND = 64, 1000, 4000
"""Samples of a space that are all tried; random ones that are tried at the most; all after which no neighbours are."""


def extremes(space: SearchSpace) -> Iterator[Answers]:
    """The largest values, the smallest, and each place of their domains; layers and inputs at their defaults."""
    sizes = [min(choice.domain.size, _ROUNDS) for choice in _nodes(space.choices) if choice.kind in ("value", "repeat")]
    rounds = int(max(sizes, default=0))
    yield _largest
    if rounds:
        yield _smallest
    for number in range(rounds):
        yield _place(number, rounds)


def look_through(
    space: ModelSpace, rng: random.Random, note: Callable[[Sample, bool], tuple[bool, bool]], *, quiet: int
) -> bool:
    """Tries random samples until many in a row have brought nothing new, and what is near those that have.

    Where a random sample makes something larger than the extremes do, several answers together decide a shape, or what
    there is. Then the neighbours of it are tried too, and those of each that makes something larger still: answer by
    answer that leads to what is rare among random samples. A space of few samples is tried whole.

    Args:
        space: of the samples.
        rng: draws the random ones.
        note: looks at a sample, and says whether it has brought something new, and whether something larger; is told
            whether nothing may be amiss with it, as a program may refuse what no random sample is.
        quiet: so many in a row.

    Returns:
        Whether several answers decide together, and not all samples were tried: a larger one may be left.
    """
    tried: set[str] = set()
    fruitful: deque[Sample] = deque()
    joint = False

    def look(sample: Sample, *, surely: bool = False) -> bool:
        if (key := sample_key(sample)) in tried:
            return False
        tried.add(key)
        new, larger = note(sample, surely)
        if larger:
            fruitful.append(sample)
        return new

    still = 0
    for _ in range(_MOST):
        still = 0 if look(space.sample(rng), surely=True) else still + 1
        if still == quiet:
            break
    if space.exact and space.size <= _FEW:
        for sample in space.grid():
            look(sample)
        return False
    while fruitful and len(tried) < _AROUND:
        joint = True
        for sample in neighbours(space.search_space, fruitful.popleft()):
            look(sample)
    return joint or not space.exact


def neighbours(space: SearchSpace, sample: Sample) -> Iterator[Sample]:
    """The samples that give one answer otherwise: each of its domain, or as many in equal distances.

    What an answer makes active gets its default.
    """
    foreign = {label: answer for label, answer in sample.items() if label not in space.domains}
    asked = {choice.label: choice for choice in _nodes(space.choices) if choice.label in sample}
    for label, changed in asked.items():
        for other in _spread(changed, _ROUNDS):
            if as_key(other) == as_key(sample[label]):
                continue
            answers = {**sample, label: other}

            def answer(choice: Choice, answers: Sample = answers) -> Answer:
                given = answers.get(choice.label, choice.default)
                return given if choice.domain.contains(given) else choice.default

            found = {**foreign, **space.walk(answer)}
            if space.allows(found):
                yield found


def has_values(space: SearchSpace) -> bool:
    """Whether the program computes with answers, rather than only putting them together."""
    return any(choice.kind == "value" for choice in _nodes(space.choices))


def _nodes(choices: Iterable[Choice]) -> Iterator[Choice]:
    for choice in choices:
        yield choice
        for branch in choice.branches:
            yield from _nodes(branch.choices)


def _largest(question: Question) -> Answer:
    return _extreme(question, max)


def _smallest(question: Question) -> Answer:
    return _extreme(question, min)


def _extreme(question: Question, choose: Callable[[Iterable[Any]], Any]) -> Answer:
    if question.kind in ("layer", "input"):
        return question.default
    values = _spread(question, _ROUNDS)
    numbers = all(isinstance(value, int | float) for value in values)
    return choose(values) if numbers else question.default


def _place(number: int, rounds: int) -> Answers:
    def answer(question: Question) -> Answer:
        if question.kind in ("layer", "input"):
            return question.default
        values = _spread(question, rounds)
        return values[number % len(values)]

    return answer


def _spread(question: Question | Choice, most: int) -> list[Answer]:
    """All answers, or as many in equal distances, the first and the last among them."""
    domain = question.domain
    if domain.size <= 1024:
        values = list(domain.values())
        if len(values) <= most:
            return values
        return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
    if domain.numeric:
        return [domain.from_unit(0), domain.from_unit(1)]
    return [question.default]
