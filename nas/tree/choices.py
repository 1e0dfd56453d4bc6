"""The tree of a search space: choices, what their answers make active, and the ways through it."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, final

from nas.calls import explained
from nas.domains import Answer, Domain, Sample, as_key


@final
@dataclass(frozen=True)
class Taking:
    """The subsets that have certain items, where there are too many to be listed."""

    items: frozenset[int]

    def __contains__(self, answer: Answer) -> bool:
        return self.items.issubset(answer)


Kind: TypeAlias = Literal["value", "layer", "input", "repeat"]
"""What asks: a ValueChoice, a LayerChoice, an InputChoice or a Repeat."""

Answers: TypeAlias = frozenset[Answer] | Taking
"""Some answers of one choice; those of another kind than in another place are of another choice."""


def both(one: Answers, other: Answers) -> Answers:
    """The answers of one choice that are among both."""
    if isinstance(one, Taking) and isinstance(other, Taking):
        return Taking(one.items | other.items)
    assert not isinstance(one, Taking)
    assert not isinstance(other, Taking)
    return one & other


def disjoint(one: Answers, other: Answers) -> bool:
    """Whether no answer of one choice is among both, as far as that can be told."""
    return not isinstance(one, Taking) and not isinstance(other, Taking) and one.isdisjoint(other)


def among(some: Answers, others: Answers) -> bool:
    """Whether answers of one choice are all among others."""
    if isinstance(some, Taking) and isinstance(others, Taking):
        return some.items >= others.items
    return not isinstance(some, Taking) and not isinstance(others, Taking) and some <= others


@final
@dataclass(frozen=True, kw_only=True)
class Branch:
    """What is asked next when a choice is answered by one of `answers` (a subset is a tuple among them)."""

    answers: Answers
    choices: tuple[Choice, ...]

    @property
    def example(self) -> Answer:
        """One of the answers, always the same."""
        if isinstance(self.answers, Taking):
            return tuple(sorted(self.answers.items))
        return min(self.answers, key=repr)


@explained()
@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """A node of the tree: one label, what it may be answered, and the choices that depend on the answer.

    A label that the program asks in several places may stand in several nodes; they share one answer.
    """

    label: str
    domain: Domain
    kind: Kind
    default: Answer
    branches: tuple[Branch, ...] = ()
    known: tuple[Answer, ...] = ()
    """Numbers in ascending order, where only these were tried: what lies between two leads where the lower leads."""

    def after(self, answer: Answer) -> tuple[Choice, ...]:
        """The choices that this answer makes active."""
        if not self.branches:
            return ()
        if self.known:
            answer = self.known[max(0, bisect_right(self.known, answer) - 1)]
        if any(isinstance(branch.answers, Taking) for branch in self.branches):
            return tuple(c for branch in self.branches if answer in branch.answers for c in branch.choices)
        return self._after.get(as_key(answer), ())

    @cached_property
    def _after(self) -> dict[Answer, tuple[Choice, ...]]:
        answers = {a for branch in self.branches if not isinstance(branch.answers, Taking) for a in branch.answers}
        return {a: tuple(c for branch in self.branches if a in branch.answers for c in branch.choices) for a in answers}

    @cached_property
    def labels(self) -> frozenset[str]:
        """This label and all below it."""
        return frozenset({self.label}.union(*(c.labels for branch in self.branches for c in branch.choices)))


def conditions(choices: tuple[Choice, ...], label: str, path: tuple[str, ...] = ()) -> Iterator[tuple[Domain, str]]:
    """For each place of a label in the tree, its domain and the condition under which it is asked there."""
    for choice in choices:
        if choice.label == label:
            yield choice.domain, " and ".join(path) or "always"
        for branch in choice.branches:
            if any(label in c.labels for c in branch.choices):
                yield from conditions(branch.choices, label, (*path, branch_text(choice, branch)))


def branch_text(choice: Choice, branch: Branch) -> str:
    """The condition of a branch, as in `op = 'conv'` or `depth >= 2`."""
    if choice.known:
        return _between(choice, branch)
    if isinstance(branch.answers, Taking):
        return f"{choice.label} has {' and '.join(map(str, sorted(branch.answers.items)))}"
    if choice.kind == "input":
        return f"{choice.label} has {_common(branch.answers)}"
    answers = sorted(branch.answers, key=repr)
    if len(answers) == 1 and choice.kind != "repeat":
        return f"{choice.label} = {answers[0]!r}"
    if all(isinstance(a, int) for a in answers):
        least = min(answers)
        if branch.answers == {a for a in choice.domain.values() if a >= least}:
            return f"{choice.label} >= {least}"
    return f"{choice.label} in {{{', '.join(repr(a) for a in answers)}}}"


def _between(choice: Choice, branch: Branch) -> str:
    """The intervals of a branch, as far as they are known, as in `0.5 < rate` or `20 <= n < 50`."""
    known, found = choice.known, []
    for leads, numbers in itertools.groupby(range(len(known)), lambda i: known[i] in branch.answers):
        if leads:
            positions = list(numbers)
            first, last = positions[0], positions[-1]
            strict = first > 0 and known[first] == math.nextafter(known[first - 1], math.inf)
            low = "" if first == 0 else f"{known[first - 1]!r} < " if strict else f"{known[first]!r} <= "
            high = "" if last + 1 == len(known) else f" < {known[last + 1]!r}"
            found.append(f"{low}{choice.label}{high}")
    return " or ".join(found)


def _common(answers: frozenset[Answer]) -> int:
    """The input that all these answers take."""
    taken = (set(a) if isinstance(a, tuple) else {a} for a in answers)
    return int(min(set.intersection(*taken)))


def walk(choices: tuple[Choice, ...], sample: Sample, decide: Callable[[Choice], Answer]) -> None:
    """Fills a sample with what `decide` says, asked once for each active label, in the order of the tree."""
    for choice in choices:
        label = choice.label
        if label in sample:
            answer = sample[label]
        else:
            sample[label] = answer = decide(choice)
        if choice.branches:
            walk(choice.after(answer), sample, decide)


_Agenda: TypeAlias = "tuple[tuple[Choice, ...], int, _Agenda] | None"
_END = object()


def grid(choices: tuple[Choice, ...]) -> Iterator[Sample]:
    """Every sample once, lazily, in product order: the last choice of the tree changes fastest."""
    sample: Sample = {}
    decided: list[tuple[Choice, Iterator[Answer], _Agenda]] = []
    agenda: _Agenda = (choices, 0, None)
    while True:
        following = _next_open(agenda, sample)
        if following is not None:
            choice, agenda = following
            decided.append((choice, choice.domain.values(), agenda))
        else:
            yield {label: list(a) if isinstance(a, list) else a for label, a in sample.items()}
        while decided:
            choice, answers, agenda = decided[-1]
            sample.pop(choice.label, None)
            answer = next(answers, _END)
            if answer is not _END:
                sample[choice.label] = answer
                agenda = (choice.after(answer), 0, agenda)
                break
            decided.pop()
        else:
            return


def _next_open(agenda: _Agenda, sample: Sample) -> tuple[Choice, _Agenda] | None:
    while agenda is not None:
        choices, position, rest = agenda
        if position == len(choices):
            agenda = rest
            continue
        choice, agenda = choices[position], (choices, position + 1, rest)
        if choice.label not in sample:
            return choice, agenda
        agenda = (choice.after(sample[choice.label]), 0, agenda)
    return None


def everywhere(choices: Iterable[Choice]) -> Iterator[Choice]:
    """All choices of the tree, in its order."""
    for choice in choices:
        yield choice
        for branch in choice.branches:
            yield from everywhere(branch.choices)
