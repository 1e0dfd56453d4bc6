"""Plants the tree of a search space: choices one after the other, each with the conditions under which it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, final

from nas.domains import Answer, as_key
from nas.space.discover import Path
from nas.space.questions import Question
from nas.tree import Answers, Branch, Choice, Taking, among, both

Assumptions: TypeAlias = Mapping[str, Answers]
"""What is so at a place of the tree: label -> the answers it stands under."""


@final
@dataclass(slots=True)
class _Node:
    """A choice while its branches are still growing."""

    question: Question
    assumptions: Assumptions
    known: tuple[Answer, ...]
    branches: dict[Answers, list[_Node]] = field(default_factory=dict)

    def freeze(self) -> list[Choice]:
        """The choice, and after it those that all its answers lead to: they do not depend on it."""
        q, always = self.question, self._always()
        branches = tuple(
            Branch(answers=answers, choices=choices)
            for answers, nodes in self.branches.items()
            if (choices := tuple(c for n in nodes if n.question.label not in always for c in n.freeze()))
        )
        own = Choice(
            label=q.public, domain=q.domain, kind=q.kind, default=q.default, branches=branches, known=self.known
        )
        return [own, *(choice for node in always.values() for choice in node.freeze())]

    def _always(self) -> dict[str, _Node]:
        """What each input goes through alike: asked under all answers, with nothing below it."""
        listed = not any(isinstance(under, Taking) for under in self.branches)
        if self.question.kind != "input" or not self.branches or not listed:
            return {}
        answers, nodes = dict[str, set[Answer]](), dict[str, list[_Node]]()
        for under, found in self.branches.items():
            assert not isinstance(under, Taking)
            for node in found:
                answers.setdefault(node.question.label, set()).update(under)
                nodes.setdefault(node.question.label, []).append(node)
        everything = {as_key(answer) for answer in self.question.domain.values()}
        return {
            label: nodes[label][0]
            for label, under in answers.items()
            if under == everything and not any(any(node.branches.values()) for node in nodes[label])
        }


@final
class Planting:
    """A tree that grows choice by choice.

    Args:
        questions: by label, all that the tree may get to ask.
        tried: of numbers whose answers were not all tried, those that were, in ascending order.

    Example:
        >>> from nas import Categorical
        >>> width = Question(label="width", domain=Categorical([8, 16]), kind="value", default=8)
        >>> depth = Question(label="depth", domain=Categorical([1, 2]), kind="value", default=1)
        >>> planting = Planting({"width": width, "depth": depth})
        >>> planting.add("depth", ())
        >>> planting.add("width", (("depth", frozenset({2})),))
        >>> [choice.label for choice in planting.choices], planting.choices[0].after(2)[0].label
        (['depth'], 'width')
    """

    def __init__(
        self, questions: Mapping[str, Question], tried: Mapping[str, tuple[Answer, ...]] | None = None
    ) -> None:
        self._questions, self._tried = questions, tried or {}
        self._roots: list[_Node] = []
        self._asked: dict[str, list[_Node]] = {}

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The roots, with all that stands below them."""
        return tuple(choice for node in self._roots for choice in node.freeze())

    def add(self, label: str, path: Path) -> None:
        """Lets a choice be asked where the path leads; where it is asked already, nothing happens.

        Args:
            label: of the choice.
            path: labels with the answers that lead on, the outer ones first.
        """
        assumptions: dict[str, Answers] = {}
        for outer, answers in path:
            assumptions[outer] = both(answers, assumptions.get(outer, answers))
        known = self._asked.setdefault(label, [])
        if any(_implies(assumptions, node.assumptions) for node in known):
            return
        siblings = self._roots
        so_far: dict[str, Answers] = {}
        for outer, answers in path:
            node = self._node(outer, siblings, so_far)
            so_far[outer] = both(answers, so_far.get(outer, answers))
            siblings = node.branches.setdefault(answers, [])
        self._put(label, siblings, assumptions)

    def _node(self, label: str, siblings: list[_Node], assumptions: Assumptions) -> _Node:
        """The node to hang a branch on: one that is asked under just these assumptions, or the label once more."""
        for node in self._asked.get(label, ()):
            if node.assumptions == assumptions:
                return node
        return self._put(label, siblings, dict(assumptions))

    def _put(self, label: str, siblings: list[_Node], assumptions: Assumptions) -> _Node:
        node = _Node(self._questions[label], assumptions, self._tried.get(label, ()))
        siblings.append(node)
        self._asked.setdefault(label, []).append(node)
        return node


def _implies(assumptions: Assumptions, other: Assumptions) -> bool:
    """Whether whatever is asked under these assumptions is asked under the other ones too."""
    return all(label in assumptions and among(assumptions[label], answers) for label, answers in other.items())
