"""Finds the search space of a program: runs it once on the meta device, building every candidate of every choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, final

from torch import nn

from nas.space.choice_tree import Branch, Choice
from nas.space.domains import Answer, as_key
from nas.space.mutables import ChosenInt
from nas.space.questions import Handler, Question, Select, check_same, chosen_items
from nas.space.search_space import SearchSpace

Assumptions: TypeAlias = dict[str, frozenset[Answer]]
"""What the place that runs now has assumed: label -> the answers it stands under."""


@final
@dataclass(slots=True)
class _Node:
    """A choice while its branches are still being found."""

    question: Question
    assumptions: Assumptions
    branches: dict[frozenset[Answer], list[_Node]] = field(default_factory=dict)

    def freeze(self) -> list[Choice]:
        """The choice, and after it those that all its answers lead to: they do not depend on it."""
        q, always = self.question, self._always()
        branches = tuple(
            Branch(answers=answers, choices=choices)
            for answers, nodes in self.branches.items()
            if (choices := tuple(c for n in nodes if n.question.label not in always for c in n.freeze()))
        )
        own = Choice(label=q.label, domain=q.domain, kind=q.kind, default=q.default, branches=branches)
        return [own, *(choice for node in always.values() for choice in node.freeze())]

    def _always(self) -> dict[str, _Node]:
        """What each input goes through alike: asked under all answers, with nothing below it."""
        if self.question.kind != "input" or not self.branches:
            return {}
        answers, nodes = dict[str, set[Answer]](), dict[str, list[_Node]]()
        for under, found in self.branches.items():
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
class Discover(Handler):
    """Records what is asked, and under which answers; gives the program the defaults to go on with."""

    def __init__(self) -> None:
        self._roots: list[_Node] = []
        self._siblings = self._roots
        self._assumptions: Assumptions = {}
        self._asked: dict[str, list[_Node]] = {}

    @property
    def search_space(self) -> SearchSpace:
        """The tree found so far."""
        return SearchSpace(tuple(choice for node in self._roots for choice in node.freeze()))

    def value(self, question: Question) -> Answer:
        """The default; an int that remembers its question, so that Repeat can use it as its depth."""
        self._note(question)
        answer = self._assumed(question)
        if isinstance(answer, int) and not isinstance(answer, bool):
            answer = ChosenInt(answer)
            answer.question = question
        return answer

    def layer(self, question: Question, build: Callable[[Answer], nn.Module]) -> nn.Module:
        """The default candidate, all the others built and dropped."""
        node = self._note(question)
        possible = self._assumptions.get(question.label)
        chosen = self._assumed(question)
        result: nn.Module | None = None
        for key in question.domain.values():
            if possible is None or key in possible:
                with self._under(node, frozenset({key})):
                    module = build(key)
                if key == chosen:
                    result = module
        assert result is not None, "the assumed answer is one of the possible ones"
        return result

    def inputs(self, question: Question, select: Select, each: Callable[[int], nn.Module] | None) -> nn.Module:
        """The module for the default inputs; what the other inputs go through is built and dropped."""
        node = self._note(question)
        chosen = self._assumed(question)
        passed: dict[int, nn.Module] = {}
        if each is not None:
            taken: dict[int, set[Answer]] = {}
            possible = self._assumptions.get(question.label)
            for answer in question.domain.values():
                if possible is None or as_key(answer) in possible:
                    for i in chosen_items(answer):
                        taken.setdefault(i, set()).add(as_key(answer))
            for i, answers in sorted(taken.items()):
                with self._under(node, frozenset(answers)):
                    passed[i] = each(i)
        return select(chosen, {i: passed[i] for i in dict.fromkeys(chosen_items(chosen)) if i in passed})

    def repeat(self, question: Question, block: Callable[[int], nn.Module]) -> nn.Module:
        """As many blocks as the default says; what the deeper ones ask stands under `depth > index`."""
        node = self._note(question)
        depths = frozenset(question.domain.values())
        possible = self._assumptions.get(question.label, depths)
        built = []
        for index in range(max(possible)):
            deeper = frozenset(depth for depth in depths if depth > index)
            if possible <= deeper:
                built.append(block(index))
            else:
                with self._under(node, deeper):
                    built.append(block(index))
        return nn.Sequential(*built[: self._assumed(question)])

    def _assumed(self, question: Question) -> Answer:
        possible = self._assumptions.get(question.label)
        if possible is None or as_key(question.default) in possible:
            return question.default
        return next(answer for answer in question.domain.values() if as_key(answer) in possible)

    def _note(self, question: Question) -> _Node:
        """The node to hang branches on: the one that was asked under the same answers, or else a new one."""
        earlier = self._asked.setdefault(question.label, [])
        if earlier:
            check_same(earlier[0].question, question)
        for node in earlier:
            if node.assumptions == self._assumptions:
                return node
        node = _Node(question, dict(self._assumptions))
        if not any(_implies(self._assumptions, other.assumptions) for other in earlier):
            self._siblings.append(node)
            earlier.append(node)
        return node

    @contextmanager
    def _under(self, node: _Node, answers: frozenset[Answer]) -> Iterator[None]:
        label = node.question.label
        siblings, assumed = self._siblings, self._assumptions.get(label)
        found = node.branches.setdefault(answers, [])
        self._siblings = found
        self._assumptions = {**self._assumptions, label: answers if assumed is None else answers & assumed}
        try:
            yield
        finally:
            self._siblings = siblings
            self._assumptions = {k: v for k, v in self._assumptions.items() if k != label}
            if assumed is not None:
                self._assumptions[label] = assumed
            if found and not any(node is other for other in self._asked[label]):
                # The answer was known here already, but this place hangs more choices on it: the label stands again.
                self._siblings.append(node)
                self._asked[label].append(node)


def _implies(assumptions: Assumptions, other: Assumptions) -> bool:
    """Whether whatever runs under these assumptions runs under the other ones too."""
    return all(label in assumptions and assumptions[label] <= answers for label, answers in other.items())
