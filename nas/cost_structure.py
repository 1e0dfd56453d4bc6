"""The tree of a search space as cost tables need it: which labels go together, and samples with some answers given."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import final

from nas.counting import count
from nas.domains import Answer
from nas.samples import Sample
from nas.search_space import SearchSpace
from nas.tree import Branch, Choice, as_key

Key = tuple[Answer, ...]
ABSENT = ...
"""Stands in a key for the answer of a label that is not active."""


@final
class Structure:
    """Labels with the labels that decide whether they are asked, and ways to make samples."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = SearchSpace(space.choices)
        self.domains = self.space.domains
        self.position = {label: number for number, label in enumerate(self.domains)}
        self.open = [label for label, domain in self.domains.items() if domain.size > 1]
        self._above = _above(space.choices)
        self._counts: dict[frozenset[str], float] = {}

    def closed(self, labels: Iterable[str]) -> frozenset[str]:
        """The labels and all that decide whether they are asked."""
        found: set[str] = set()
        waiting = list(labels)
        while waiting:
            label = waiting.pop()
            if label not in found:
                found.add(label)
                waiting += self._above[label]
        return frozenset(found)

    def ordered(self, labels: Iterable[str]) -> tuple[str, ...]:
        """In the order of the tree."""
        return tuple(sorted(labels, key=self.position.__getitem__))

    def part(self, labels: frozenset[str]) -> SearchSpace:
        """The tree without all other labels; `labels` must be closed."""
        return SearchSpace(_pruned(self.space.choices, labels))

    def count(self, labels: frozenset[str]) -> float:
        """How many samples that part has."""
        if labels not in self._counts:
            self._counts[labels] = count(_pruned(self.space.choices, labels))
        return self._counts[labels]

    def walk(self, answer: Callable[[str], Answer], rng: random.Random) -> Sample:
        """A sample with the given answers; where `answer` says ABSENT, a draw."""

        def decide(choice: Choice) -> Answer:
            given = answer(choice.label)
            return choice.domain.sample(rng) if given is ABSENT else given

        return self.space.walk(decide)

    def extend(self, given: Mapping[str, Answer], rng: random.Random) -> Sample:
        """A sample with the given answers, all others drawn."""
        return self.walk(lambda label: given.get(label, ABSENT), rng)

    def sample_with(self, label: str, rng: random.Random) -> Sample:
        """A sample that asks a label."""
        return self.extend(self._reach(self.space.choices, label) or {}, rng)

    def _reach(self, level: tuple[Choice, ...], label: str) -> Sample | None:
        """Answers that lead to a label."""
        for choice in level:
            if choice.label == label:
                return {}
            if label in choice.labels:
                for branch in choice.branches:
                    deeper = self._reach(branch.choices, label)
                    if deeper is not None:
                        answer = min(branch.answers, key=repr)
                        return {choice.label: self.domains[choice.label].canonical(answer), **deeper}
        return None

    def values(self, label: str) -> list[Answer]:
        """All answers, in the order of the domain, as keys."""
        return [as_key(answer) for answer in self.domains[label].values()]

    def finite(self, label: str) -> bool:
        """Whether the answers can be listed."""
        return self.domains[label].size != math.inf


def key_of(labels: tuple[str, ...], sample: Mapping[str, Answer]) -> Key:
    """The joint answers of some labels."""
    return tuple([as_key(sample.get(label, ABSENT)) for label in labels])


def _above(choices: tuple[Choice, ...]) -> dict[str, set[str]]:
    """For each label, those on the ways to the places where it is asked; none where one place is at the root."""
    places: dict[str, set[frozenset[str]]] = {}
    seen: set[tuple[int, frozenset[str]]] = set()

    def visit(level: tuple[Choice, ...], path: frozenset[str]) -> None:
        for choice in level:
            if (id(choice), path) in seen:
                continue
            seen.add((id(choice), path))
            places.setdefault(choice.label, set()).add(path - {choice.label})
            for branch in choice.branches:
                visit(branch.choices, path | {choice.label})

    visit(choices, frozenset())
    return {label: set() if frozenset() in paths else set().union(*paths) for label, paths in places.items()}


def _pruned(choices: tuple[Choice, ...], labels: frozenset[str]) -> tuple[Choice, ...]:
    def keep(level: tuple[Choice, ...]) -> Iterator[Choice]:
        for choice in level:
            if choice.label in labels:
                branches = tuple(
                    Branch(answers=branch.answers, choices=inner)
                    for branch in choice.branches
                    if (inner := tuple(keep(branch.choices)))
                )
                yield Choice(
                    label=choice.label,
                    domain=choice.domain,
                    kind=choice.kind,
                    default=choice.default,
                    branches=branches,
                )

    return tuple(keep(choices))
