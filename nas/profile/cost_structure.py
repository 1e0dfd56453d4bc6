"""The tree of a search space as cost tables need it: which labels go together, and samples with some answers given."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import final

from nas.domains import Answer, Sample, Subset, as_key
from nas.space import Branch, Choice, SearchSpace, chosen_items, count

Key = tuple[Answer, ...]
_DRAWS, _TRIES = 40, 12
ABSENT = ...
"""Stands in a key for the answer of a label that is not active."""


@final
class Structure:
    """Labels with the labels that decide whether they are asked, and ways to make samples.

    Beside the labels there are *uses*: whether any of the InputChoices of one cell (labels that share all but their
    last two parts) takes item i. What a cell hands on often depends on these alone: the concatenation of what no node
    reads, say, where the joint answers of all its InputChoices would make too large a table.

    Args:
        space: the tree. Where it has a constraint, all samples that are made here satisfy it: others may not exist as
            models.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space, self.constraint = SearchSpace(space.choices), space.constraint
        self._allowed = space
        self.domains = self.space.domains
        self.position = {label: number for number, label in enumerate(self.domains)}
        self.open = [label for label, domain in self.domains.items() if domain.size > 1]
        self._above = _above(space.choices)
        self._counts: dict[frozenset[str], float] = {}
        self.uses = _uses(space.choices)
        self.use_of = {label: name for name, (labels, _) in self.uses.items() for label in labels}
        self.position.update({name: len(self.domains) + number for number, name in enumerate(self.uses)})

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

    def with_uses(self, sample: Mapping[str, Answer]) -> Mapping[str, Answer]:
        """The sample, and for each use whether it is made."""
        found: Sample = dict(sample)
        used: dict[tuple[str, ...], set[int]] = {}
        for name, (labels, item) in self.uses.items():
            if labels not in used:
                answers = [sample[label] for label in labels if label in sample]
                used[labels] = {i for answer in answers for i in chosen_items(answer)}
            found[name] = item in used[labels]
        return found

    def changed_uses(self, first: Sample, second: Sample) -> set[str]:
        """The uses that one sample makes and the other does not."""
        before, after = self.with_uses(first), self.with_uses(second)
        return {name for name in self.uses if before[name] != after[name]}

    def use_pair(self, use: str, rng: random.Random) -> tuple[Sample, Sample] | None:
        """Two samples of which the second makes one use more than the first; None if none was found."""
        labels, item = self.uses[use]

        def drawn(label: str, *, taken: bool) -> Answer:
            draws = (self.domains[label].sample(rng) for _ in range(_DRAWS))
            return next((answer for answer in draws if (item in chosen_items(answer)) == taken), ABSENT)

        for _ in range(_DRAWS):
            sample = self.draw(rng)
            first = self.extend({**sample, **{n: drawn(n, taken=False) for n in labels if n in sample}}, rng)
            if first is not None:
                label = rng.choice([name for name in labels if name in first])
                second = self.extend({**first, label: drawn(label, taken=True)}, rng)
                if second is not None and self.changed_uses(first, second) == {use}:
                    return first, second
        return None

    def part(self, labels: frozenset[str]) -> SearchSpace:
        """The tree without all other labels; `labels` must be closed."""
        return SearchSpace(_pruned(self.space.choices, labels))

    def count(self, labels: frozenset[str]) -> float:
        """How many samples that part has."""
        if labels not in self._counts:
            self._counts[labels] = count(_pruned(self.space.choices, labels))
        return self._counts[labels]

    def allows(self, sample: Sample) -> bool:
        """Whether the constraint holds."""
        return self.constraint is None or self.constraint.allows(sample)

    def draw(self, rng: random.Random) -> Sample:
        """A sample.

        Raises:
            NasValueError: none was found that satisfies the constraint.
        """
        return self._allowed.sample(rng)

    def extend(self, given: Mapping[str, Answer], rng: random.Random) -> Sample | None:
        """A sample with the given answers; all others drawn, and those given as ABSENT. None where none was found."""
        known = {n: answer for n, answer in given.items() if answer is not ABSENT and n in self.domains}
        for number in range(_TRIES):
            sample = self.space.extend(known, rng)
            if self.allows(sample):
                return sample
            if number == 0 and sample.keys() <= known.keys():
                return None  # There is nothing to draw.
        return None

    def sample_with(self, label: str, rng: random.Random) -> Sample | None:
        """A sample that asks a label; None where none was found."""
        return self.extend(self._reach(self.space.choices, label) or {}, rng)

    def neighbours(self, base: Sample, label: str, answer: Answer, rng: random.Random) -> tuple[Sample, Sample] | None:
        """Two samples that differ in one label, whose answer the second has; the base is the first where that can be.

        Differences in labels that only one of them asks do not count. None where no such pair was found.
        """
        for number in range(1 if self.constraint is None else _TRIES):
            first = base if number == 0 else self.draw(rng)
            if label in first and first[label] != answer:
                second = self.extend({**first, label: answer}, rng)
                if second is not None and second.get(label, ABSENT) != first[label]:
                    return first, second
        return None

    def way(self, first: Sample, second: Sample) -> list[tuple[Sample, tuple[str, ...]]]:
        """Samples from one to the other that change one label after the other; the last one several, if it must.

        Returns:
            Each sample with the labels that it has changed; the first one, and the last one, are those given, but for
            labels that not both ask.
        """
        left = [label for label in self.domains if first.get(label, ABSENT) != second.get(label, ABSENT)]
        found: list[tuple[Sample, tuple[str, ...]]] = [(self._between(first, second, []), ())]
        changed: list[str] = []
        while left:
            for label in left:
                step = self._between(first, second, [*changed, label])
                if self.allows(step):
                    together: tuple[str, ...] = (label,)
                    break
            else:
                together, step = tuple(left), self._between(first, second, [*changed, *left])
            changed += together
            left = [label for label in left if label not in together]
            found.append((step, together))
        return found

    def _between(self, first: Sample, second: Sample, changed: list[str]) -> Sample:
        """The first sample with some answers of the second."""
        given = {**second, **first, **{label: second[label] for label in changed if label in second}}
        return self.space.extend({n: a for n, a in given.items() if n in self.domains}, random.Random(0))

    def _reach(self, level: tuple[Choice, ...], label: str) -> Sample | None:
        """Answers that lead to a label."""
        for choice in level:
            if choice.label == label:
                return {}
            if label in choice.labels:
                for branch in choice.branches:
                    deeper = self._reach(branch.choices, label)
                    if deeper is not None:
                        answer = branch.example
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


def _uses(choices: tuple[Choice, ...]) -> dict[str, tuple[tuple[str, ...], int]]:
    """The name of each use, with the labels that can make it and the item that they take."""
    items: dict[str, dict[str, int]] = {}

    def visit(level: tuple[Choice, ...]) -> None:
        for choice in level:
            if choice.kind == "input":
                size = choice.domain.n if isinstance(choice.domain, Subset) else int(choice.domain.size)
                items.setdefault(choice.label.rsplit("/", 2)[0], {})[choice.label] = size
            for branch in choice.branches:
                visit(branch.choices)

    visit(choices)
    cells = {cell: sizes for cell, sizes in items.items() if len(sizes) > 1}
    return {
        f"{cell} takes {item}": (tuple(sizes), item)
        for cell, sizes in cells.items()
        for item in range(max(sizes.values()))
    }


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
