"""Answers that reach the ends of a search space: which shapes its architectures can have, at the most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from nas.domains import Answer
from nas.space import Choice, Question, SearchSpace

Answers: TypeAlias = Callable[[Question], Answer]

_ROUNDS = 8
"""Answers of each value that are tried one after the other; of longer domains as many in equal distances."""


def extremes(space: SearchSpace) -> Iterator[Answers]:
    """The largest values, the smallest, and each place of their domains; layers and inputs at their defaults."""
    sizes = [min(choice.domain.size, _ROUNDS) for choice in _nodes(space.choices) if choice.kind in ("value", "repeat")]
    rounds = int(max(sizes, default=0))
    yield _largest
    if rounds:
        yield _smallest
    for number in range(rounds):
        yield _place(number, rounds)


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


def _spread(question: Question, most: int) -> list[Answer]:
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
