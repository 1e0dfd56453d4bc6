"""The nodes of a search space: choices, and what their answers make active."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

from nas.space.domains import Answer, Domain
from nas.space.questions import Kind


@final
@dataclass(frozen=True, kw_only=True)
class Branch:
    """What is asked next when a choice is answered by one of `answers` (a subset is a tuple among them)."""

    answers: frozenset[Answer]
    choices: tuple[Choice, ...]


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

    def after(self, answer: Answer) -> tuple[Choice, ...]:
        """The choices that this answer makes active."""
        return self._after.get(as_key(answer), ()) if self.branches else ()

    @cached_property
    def _after(self) -> dict[Answer, tuple[Choice, ...]]:
        answers = {answer for branch in self.branches for answer in branch.answers}
        return {a: tuple(c for branch in self.branches if a in branch.answers for c in branch.choices) for a in answers}

    @cached_property
    def labels(self) -> frozenset[str]:
        """This label and all below it."""
        return frozenset({self.label}.union(*(c.labels for branch in self.branches for c in branch.choices)))


def as_key(answer: Answer) -> Answer:
    """The answer as something that can be hashed: a subset as a tuple."""
    return tuple(answer) if isinstance(answer, list) else answer


def conditions(choices: tuple[Choice, ...], label: str, path: tuple[str, ...]) -> Iterator[str]:
    """For each place of a label in the tree, the condition under which it is asked there."""
    for choice in choices:
        if choice.label == label:
            yield " and ".join(path) or "always"
        for branch in choice.branches:
            if any(label in c.labels for c in branch.choices):
                yield from conditions(branch.choices, label, (*path, branch_text(choice, branch)))


def branch_text(choice: Choice, branch: Branch) -> str:
    """The condition of a branch, as in `op = 'conv'` or `depth >= 2`."""
    answers = sorted(branch.answers, key=repr)
    if choice.kind == "input":
        return f"{choice.label} has {_common(choice, branch)}"
    if len(answers) == 1 and choice.kind != "repeat":
        return f"{choice.label} = {answers[0]!r}"
    if all(isinstance(a, int) for a in answers):
        least = min(answers)
        if branch.answers == {a for a in choice.domain.values() if a >= least}:
            return f"{choice.label} >= {least}"
    return f"{choice.label} in {{{', '.join(repr(a) for a in answers)}}}"


def _common(choice: Choice, branch: Branch) -> int:
    """The input that all answers of a branch take."""
    taken = (set(a) if isinstance(a, tuple) else {a} for a in branch.answers)
    return int(min(set.intersection(*taken)))
