"""Runs a program once to see what it asks: it gets given answers to its values, and builds all candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, TypeAlias, final

from torch import nn

from nas.domains import Answer, Domain, Sample, Subset, as_key
from nas.errors import NasValueError
from nas.space.questions import Handler, Question, Select, check_same, chosen_items, default_answer
from nas.space.traced import Decided, traced
from nas.tree import Answers, Kind, Taking, both, disjoint

Path: TypeAlias = tuple[tuple[str, Answers], ...]
"""The conditions under which something is asked, the outer ones first: a label, and the answers that lead on."""


class Entry(NamedTuple):
    """A choice, where candidates and blocks of other choices ask it."""

    label: str
    kind: Kind
    domain: Domain
    path: Path


@final
class Discover(Handler):
    """Records what is asked, and inside which candidates; gives the program one answer of each choice to go on with.

    Args:
        answer: of all but InputChoices, which take their defaults.
        decided: is told when plain Python decides something by an answer.
        first: by label, the question that had it first. The same label with another domain is told from it by a label
            that names the domain; it must stand in a branch that excludes the other.

    Attributes:
        entries: what was asked where, in order.
        values: the answers that the program got, in the order in which it asked for them.
        clash: the error that one label with two domains is.
    """

    def __init__(
        self,
        answer: Callable[[Question], Answer] = default_answer,
        decided: Decided = lambda *told: None,
        first: dict[str, Question] | None = None,
    ) -> None:
        self.entries: dict[Entry, Question] = {}
        self.values: Sample = {}
        self.clash: NasValueError | None = None
        self._answer, self._decided = answer, decided
        self._first = {} if first is None else first
        self._questions: dict[str, Question] = {}
        self._places: dict[str, list[Entry]] = {}
        self._path: Path = ()
        self._assumed: dict[str, Answers] = {}

    @property
    def order(self) -> dict[str, int]:
        """Which label was asked how early."""
        return {label: position for position, label in enumerate(self._questions)}

    @property
    def default(self) -> list[str]:
        """The labels that are asked where every choice takes its default."""
        found = []
        for entry in self.entries:
            defaults = {label: as_key(self._questions[label].default) for label, _ in entry.path}
            if all(defaults[label] in answers for label, answers in entry.path):
                found.append(self._questions[entry.label].public)
        return found

    def value(self, question: Question) -> Answer:
        """The given answer; an int that remembers its question, so that Repeat can use it as its depth."""
        question = self._noted(question)
        answer = self.values.setdefault(question.label, self._answer(question))
        return traced(question, self._possible(question, answer), self._decided)

    def layer(self, question: Question, build: Callable[[Answer], nn.Module]) -> nn.Module:
        """The candidate that was answered, all the others built and dropped."""
        question = self._noted(question)
        possible = self._assumed.get(question.label)
        chosen = self._possible(question, self.values.setdefault(question.label, self._answer(question)))
        result: nn.Module | None = None
        for key in question.domain.values():
            if possible is None or key in possible:
                with self._under(question, frozenset({key})):
                    module = build(key)
                if key == chosen:
                    result = module
        assert result is not None, "the assumed answer is one of the possible ones"
        return result

    def inputs(self, question: Question, select: Select, each: Callable[[int], nn.Module] | None) -> nn.Module:
        """The module for the default inputs; what the other inputs go through is built and dropped."""
        question = self._noted(question)
        chosen = self._possible(question, question.default)
        passed: dict[int, nn.Module] = {}
        if each is not None:
            for i, answers in sorted(self._taking(question).items()):
                with self._under(question, answers):
                    passed[i] = each(i)
        return select(chosen, {i: passed[i] for i in dict.fromkeys(chosen_items(chosen)) if i in passed})

    def _taking(self, question: Question) -> dict[int, Answers]:
        """For each input, the answers that take it."""
        domain = question.domain
        if isinstance(domain, Subset) and domain.k is None and not domain.listable:
            return {item: Taking(frozenset({item})) for item in range(domain.n)}
        taken: dict[int, set[Answer]] = {}
        possible = self._assumed.get(question.label)
        for answer in domain.values():
            if possible is None or as_key(answer) in possible:
                for i in chosen_items(answer):
                    taken.setdefault(i, set()).add(as_key(answer))
        return {item: frozenset(answers) for item, answers in taken.items()}

    def repeat(self, question: Question, block: Callable[[int], nn.Module]) -> nn.Module:
        """As many blocks as was answered; what the deeper ones ask stands under `depth > index`."""
        question = self._noted(question)
        depths = frozenset(question.domain.values())
        assumed = self._assumed.get(question.label, depths)
        possible = frozenset(depth for depth in depths if depth in assumed)
        built = []
        for index in range(max(possible)):
            deeper = frozenset(depth for depth in depths if depth > index)
            if possible <= deeper:
                built.append(block(index))
            else:
                with self._under(question, deeper):
                    built.append(block(index))
        answer = self.values.setdefault(question.label, self._answer(question))
        return nn.Sequential(*built[: self._possible(question, answer)])

    def _possible(self, question: Question, answer: Answer) -> Answer:
        """The answer, or one that the place that runs now stands under."""
        possible = self._assumed.get(question.label)
        if possible is None or as_key(answer) in possible:
            return answer
        return next(answer for answer in question.domain.values() if as_key(answer) in possible)

    def _noted(self, question: Question) -> Question:
        """The question under the label by which discovery knows it."""
        first = self._first.setdefault(question.label, question)
        if first.domain != question.domain:
            question = replace(question, label=f"{question.label} ({question.domain!r})", shared=question.label)
        self._questions.setdefault(question.label, question)
        entry = Entry(question.label, question.kind, question.domain, self._path)
        if entry not in self.entries:
            self.entries[entry] = question
            places = self._places.setdefault(question.public, [])
            try:
                for place in places:
                    if not self._excludes(place.path):
                        check_same(self.entries[place], question)
            except NasValueError as error:
                self.clash = error
                raise
            places.append(entry)
        return question

    def _excludes(self, path: Path) -> bool:
        """Whether what stands under a path is not asked together with what is asked now."""
        return any(label in self._assumed and disjoint(self._assumed[label], answers) for label, answers in path)

    @contextmanager
    def _under(self, question: Question, answers: Answers) -> Iterator[None]:
        label, path, assumed = question.label, self._path, self._assumed
        self._path = (*path, (label, answers))
        self._assumed = {**assumed, label: both(answers, assumed.get(label, answers))}
        try:
            yield
        finally:
            self._path, self._assumed = path, assumed
