"""The runs of a program that discovery makes: each under other answers, and none twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, final

from nas.domains import Answer, Domain, Sample, as_key
from nas.errors import NasValueError, explain
from nas.space.discover import Discover, Entry
from nas.space.questions import Question
from nas.space.traced import Labels, Place, is_opaque

Ask: TypeAlias = Callable[[Callable[[], Discover]], None]
"""Runs the program once under the handler that it makes."""


@final
@dataclass(eq=False)
class Run:
    """One run of the program: what it asked, and what it was answered."""

    values: Sample
    """What the program got for its choices, in the order in which it asked them; not so for InputChoices."""
    entries: dict[Entry, Question]
    order: dict[str, int]
    plain: frozenset[str]
    """The labels of its ValueChoices."""
    failed: bool
    """Whether the program raised an error under these answers, so that nobody knows what else it would ask."""

    def asks(self, entry: Entry) -> bool | None:
        """Whether it asked this; None where it cannot tell."""
        for label, answers in entry.path:
            if label in self.plain and as_key(self.values[label]) not in answers:
                return None  # A Repeat builds blocks that the answer which the program got leaves out.
        return True if entry in self.entries else None if self.failed else False


@final
@dataclass(slots=True)
class _Asked:
    """In the tree of all runs: the choice that comes next, and what comes after each of its answers."""

    label: str
    question: Question
    after: dict[Answer, _Asked | Run] = field(default_factory=dict)


class TooMany(Exception):  # noqa: N818 - names the situation
    """The program was asked as often as it may be."""


@final
class Runs:
    """A program and what it asked so far: a function from the answers of ValueChoices to a run.

    Args:
        ask: runs the program once.
        most: so many runs are made.

    Attributes:
        made: the runs, in order.
        entries: all that was asked, by where, in the order in which it came up.
        questions: the same by label.
        compared: labels that plain Python compared, and where -> the run in which it did so first.
        hints: label -> the numbers that it was compared with.
        opaque: the labels of ValueChoices with answers that cannot remember where they come from.
    """

    def __init__(self, ask: Ask, most: int) -> None:
        self._ask, self.most = ask, most
        self._known: _Asked | Run | None = None
        self._first: dict[str, Question] = {}
        self.made: list[Run] = []
        self.entries: dict[Entry, Question] = {}
        self.questions: dict[str, Question] = {}
        self.compared: dict[tuple[Labels, Place], Run] = {}
        self.hints: dict[str, set[float]] = {}
        self.opaque: set[str] = set()

    def under(self, answer: Callable[[Question], Answer]) -> Run:
        """The run under these answers; one that would be answered alike is not made again.

        Raises:
            TooMany: it would be one more than may be made.
        """
        node = self._known
        while isinstance(node, _Asked):
            node = node.after.get(as_key(answer(node.question)))
        if node is None:
            node = self._execute(answer)
            self._remember(node)
        return node

    def _execute(self, answer: Callable[[Question], Answer]) -> Run:
        if len(self.made) >= self.most:
            raise TooMany
        compared: dict[tuple[Labels, Place], Answer] = {}
        discover = Discover()

        def decided(labels: Labels, place: Place, other: Answer) -> None:
            compared.setdefault((labels, place), other)

        def make() -> Discover:
            nonlocal discover
            compared.clear()
            discover = Discover(answer, decided, self._first)
            return discover

        failed = False
        try:
            self._ask(make)
        except Exception as error:
            if discover.clash is not None and self.made:
                error.add_note(f"nas: under the answers {discover.values}")
            if discover.clash is not None or not self.made:
                raise
            failed = True
        plain = frozenset(entry.label for entry in discover.entries if entry.kind == "value")
        run = Run(discover.values, discover.entries, discover.order, plain, failed)
        self.made.append(run)
        for entry, question in run.entries.items():
            self.questions.setdefault(entry.label, question)
            self.entries.setdefault(entry, question)
            if entry.kind == "value" and entry.label not in self.opaque and _is_opaque(question.domain):
                self.opaque.add(entry.label)
        for (labels, place), other in compared.items():
            self.compared.setdefault((labels, place), run)
            if isinstance(other, int | float):
                for label in labels:
                    self.hints.setdefault(label, set()).add(other)
        return run

    def _remember(self, run: Run) -> None:
        asked = list(run.values.items())
        if not asked:
            self._known = run
            return
        if self._known is None:
            self._known = _Asked(asked[0][0], self.questions[asked[0][0]])
        node = self._known
        for position, (label, answer) in enumerate(asked):
            assert isinstance(node, _Asked)
            if node.label != label:
                raise _not_a_function(node.label, label)
            if position == len(asked) - 1:
                node.after[as_key(answer)] = run
            else:
                following = asked[position + 1][0]
                node = node.after.setdefault(as_key(answer), _Asked(following, self.questions[following]))


def given(values: Mapping[str, Answer]) -> Callable[[Question], Answer]:
    """Answers from a dict, and the default for what it lacks."""
    return lambda question: values.get(question.label, question.default)


def sampled(sample: Mapping[str, Answer]) -> Callable[[Question], Answer]:
    """Answers from a sample, and the default where it has none or one of another domain of the label."""

    def answer(question: Question) -> Answer:
        found = sample.get(question.public, question.default)
        return question.domain.canonical(found) if question.domain.contains(found) else question.default

    return answer


def _is_opaque(domain: Domain) -> bool:
    return domain.listable and any(map(is_opaque, map(as_key, domain.values())))


def _not_a_function(one: str, other: str) -> NasValueError:
    return NasValueError(
        explain(
            f"a constructor must be a function of its answers, but under the same ones it asked {one!r} one time and "
            f"{other!r} another",
            mend="let it depend on nothing that changes from one construction to the next",
        )
    )
