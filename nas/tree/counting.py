"""How many samples a tree has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from nas.domains import Answer, Categorical, Subset
from nas.tree.choices import Branch, Choice, Taking, everywhere

Number: TypeAlias = int | float


def count(choices: tuple[Choice, ...]) -> Number:
    """The number of different samples; `math.inf` where a domain is an interval of reals."""
    return _count(_item_by_item(choices), {}, {})


def _item_by_item(choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """The same tree with a choice for each item in place of one among the subsets that are too many to be listed."""
    found: list[Choice] = []
    for choice in choices:
        branches = tuple(replace(branch, choices=_item_by_item(branch.choices)) for branch in choice.branches)
        if not any(isinstance(branch.answers, Taking) for branch in branches):
            found.append(replace(choice, branches=branches))
            continue
        assert isinstance(choice.domain, Subset)
        for item in range(choice.domain.n):
            behind = (branch for branch in branches if branch.answers == Taking(frozenset({item})))
            taken = tuple(Branch(answers=frozenset({True}), choices=branch.choices) for branch in behind)
            label, domain = f"{choice.label}[{item}]", Categorical([False, True])
            found.append(Choice(label=label, domain=domain, kind=choice.kind, default=False, branches=taken))
    return tuple(found)


def _count(choices: tuple[Choice, ...], known: Mapping[str, Answer], memo: dict[tuple[object, ...], Number]) -> Number:
    """Independent groups of choices multiply; within a group, the first choice is split by what its answers lead to."""
    total: Number = 1
    for group in _independent(_open(choices, known), known):
        relevant = frozenset().union(*(c.labels for c in group))
        key = (*(id(c) for c in group), *((n, repr(known[n])) for n in sorted(relevant & known.keys())))
        if key not in memo:
            first = group[0]
            memo[key] = sum(
                number * _count(group, {**known, first.label: answer}, memo)
                for answer, number in _classes(first, group)
            )
        total *= memo[key]
    return total


def _open(choices: Iterable[Choice], known: Mapping[str, Answer]) -> list[Choice]:
    """The undecided choices, those behind decided ones unfolded."""
    found: list[Choice] = []
    for choice in choices:
        if choice.label in known:
            found += _open(choice.after(known[choice.label]), known)
        else:
            found.append(choice)
    return found


def _independent(choices: list[Choice], known: Mapping[str, Answer]) -> list[tuple[Choice, ...]]:
    """Groups that share no undecided label with each other."""
    groups: list[tuple[frozenset[str], list[Choice]]] = []
    for choice in choices:
        labels, members = choice.labels - known.keys(), [choice]
        apart = []
        for other_labels, others in groups:
            if labels & other_labels:
                labels, members = labels | other_labels, others + members
            else:
                apart.append((other_labels, others))
        groups = [*apart, (labels, members)]
    return [tuple(members) for _, members in groups]


def _classes(choice: Choice, group: tuple[Choice, ...]) -> list[tuple[Answer, Number]]:
    """Answers that lead to the same choices everywhere in the group: a representative and how many there are."""
    places = [c for c in everywhere(group) if c.label == choice.label and c.branches]
    if not places:
        return [(choice.domain.first, choice.domain.size)]
    infinite = choice.domain.size == math.inf
    answers = next(place.known for place in places) if infinite else choice.domain.values()
    classes: dict[tuple[tuple[int, ...], ...], tuple[Answer, Number]] = {}
    for answer in answers:
        key = tuple(tuple(id(c) for c in place.after(answer)) for place in places)
        representative, number = classes.get(key, (answer, 0))
        classes[key] = (representative, math.inf if infinite else number + 1)
    return list(classes.values())
