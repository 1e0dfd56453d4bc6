"""Finds the search space of a program: asks it again under other answers, and learns which choices depend on which."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias, final

from nas.domains import Answer, Domain, Integer, Sample, as_key
from nas.space.covering import covering
from nas.space.discover import Entry, Path
from nas.space.planting import Planting
from nas.space.questions import Question
from nas.space.runs import Ask, Run, Runs, TooMany, given, sampled
from nas.tree import Answers, Choice, SearchSpace, both

TRIED = 64
"""Of a ValueChoice with more answers than this, only some are tried."""
RUNS = 1000
"""A program is asked at most so often."""
_COMBINATIONS = 256
"""So many answers of several choices at once are tried, where these decide together."""
_SHIFTS = 8
"""So many times all other choices are answered otherwise, where one has turned out to matter."""
_NAMED = 5
"""A message names so many labels."""
_MEETING = 64
"""An architecture with unexpected choices is worth so many more."""
_MIXED = 64
"""At most so many combinations of the choices that nothing traces are tried."""
_LEVELS = 8
"""So many answers of each of these."""

_Term: TypeAlias = tuple[tuple[str, Answers], ...]


@final
class Exploration:
    """What is known of a program: which choices it asks, and on whose answers that depends.

    The program is a function of the answers that it gets. It is run under the defaults first. Then all ValueChoices get
    other answers at once, so that those which do not matter are told in as many runs as the largest has answers. Where
    something else is asked, bisection finds the choice that made the difference, all its answers are tried, and the
    rest is shifted under each of them. Comparisons and arithmetic that plain Python does with answers name the choices
    that may decide together; these are tried in all combinations. What comes of a comparison has no memory, nor has an
    answer that is a bool or None, so nothing tells which of these decide together: at last such choices are tried by
    the rows of a covering array, in which any few of them have all their combinations.

    Args:
        ask: runs the program once.
        looks: whether it looks at what it has built, as mutators do: then LayerChoices and Repeats are answered
            otherwise too.

    Attributes:
        doubts: what could not be found out for certain: labels -> why.
    """

    def __init__(self, ask: Ask, *, looks: bool = False) -> None:
        self._runs, self._looks = Runs(ask, RUNS), looks
        self._matters: dict[Entry, tuple[str, ...]] = {}
        self._mixtures: dict[frozenset[str], list[Sample]] = {}
        self._met: dict[str, list[Answer]] = {}
        self._exploring = True
        self.doubts: dict[tuple[str, ...], str] = {}

    def explore(self) -> SearchSpace:
        """Runs the program as often as it takes, and returns its search space."""
        try:
            self._runs.under(given({}))
            while self._look_round() or self._mix():
                pass
        except TooMany:
            labels = tuple(label for label, question in self._runs.questions.items() if question.domain.size > 1)
            self.doubts[labels] = f"it would take more than {RUNS:,} constructions to try their answers"
        return self._space()

    def meet(self, sample: Sample) -> SearchSpace:
        """What is known after one more architecture, whose choices are not those that were expected.

        A program that nothing was doubtful of decides by something that discovery does not see.
        """
        if not self.doubts:
            self.doubts[tuple(sample)] = "the program asks other choices under these answers than discovery has found"
        self._runs.most = len(self._runs.made) + _MEETING
        with suppress(TooMany):
            run = self._runs.under(sampled(sample))
            for label, answer in run.values.items():
                self._met.setdefault(label, []).append(answer)
            self._learn(run)
        return self._space()

    def _space(self) -> SearchSpace:
        self._exploring = False
        tree = self._tree()
        return SearchSpace(tree, doubts={_listed(labels): why for labels, why in self.doubts.items()})

    @property
    def followers(self) -> frozenset[str]:
        """The labels of the choices that depend on the value of another."""
        return frozenset(self._runs.questions[entry.label].public for entry in self._matters)

    @property
    def former(self) -> dict[str, str]:
        """The labels that choices without one had formerly, and those that they have now."""
        return {question.former: question.public for question in self._runs.questions.values() if question.former}

    # Finding out what matters.

    def _look_round(self) -> bool:
        """Tries what has not been tried; whether there was anything."""
        before = len(self._runs.made)
        for mattering in [(), *dict.fromkeys(self._matters.values())]:
            for values, run in self._rows(mattering):
                self._learn(run)
                for shift in range(1, self._shifts(run, values)):
                    self._learn(self._runs.under(self._shifted(values, shift)))
        for base, groups in self._groups():
            for values in self._packed(groups):
                run = self._runs.under(given({**base.values, **values}))
                self._learn(run)
                for group in groups:  # What another choice has switched off is tried by itself.
                    alone = {label: values[label] for label in group if label in values}
                    if not alone.keys() <= run.values.keys():
                        self._learn(self._runs.under(given({**base.values, **alone})))
        return len(self._runs.made) > before

    def _shifts(self, run: Run, values: Mapping[str, Answer]) -> int:
        asked = run.values if self._looks else run.plain
        most = max((len(self._tried(label)) for label in asked if label not in values), default=0)
        return most if not values else min(most, _SHIFTS)

    def _shifted(self, values: Mapping[str, Answer], shift: int) -> Callable[[Question], Answer]:
        def answer(question: Question) -> Answer:
            if question.label in values:
                return values[question.label]
            self._runs.questions.setdefault(question.label, question)
            tried = self._tried(question.label)
            return tried[shift % len(tried)]

        return answer

    def _tried(self, label: str) -> list[Answer]:
        """The answers of a ValueChoice that are tried, its default first."""
        question = self._runs.questions[label]
        answers = _some(question.domain, self._runs.hints.get(label, ()), self._met.get(label, ()))
        start = answers.index(question.default) if question.default in answers else 0
        return answers[start:] + answers[:start]

    def _rows(self, labels: Sequence[str]) -> Iterator[tuple[Sample, Run]]:
        """Each combination of answers to these choices, where they are asked, all others at their defaults."""
        pending: list[Sample] = [{}]
        number = 0
        while pending:
            values = pending.pop()
            try:
                run = self._runs.under(given(values))
            except TooMany:
                if self._exploring:
                    raise
                continue  # The tree is planted with what is known.
            following = next((n for n in run.values if n in labels and n not in values), None)
            if following is not None:
                pending += [{**values, following: answer} for answer in reversed(self._tried(following))]
                continue
            number += 1
            if number > _COMBINATIONS:
                self.doubts[tuple(labels)] = (
                    f"they decide together, and not all {_COMBINATIONS:,} combinations were tried"
                )
                return
            yield values, run

    def _learn(self, run: Run) -> None:
        """Compares a run with what was expected of it, and finds the choices that made the differences."""
        for entry in [*run.entries, *(entry for entry in self._runs.entries if entry not in run.entries)]:
            while True:
                mattering = self._matters.get(entry, ())
                usual = self._runs.under(given({n: a for n, a in run.values.items() if n in mattering}))
                expected, found = usual.asks(entry), run.asks(entry)
                if expected is None or found is None or expected == found:
                    break
                self._matters[entry] = (*mattering, self._difference(entry, usual, run, mattering))

    def _difference(self, entry: Entry, usual: Run, run: Run, mattering: Sequence[str]) -> str:
        """A choice by whose answer one run asks the entry and the other does not, by bisection."""
        others = [n for n in run.values if n not in mattering and usual.values.get(n, _NOTHING) != run.values[n]]
        fixed = {n: a for n, a in run.values.items() if n in mattering}
        for suspect in dict.fromkeys(n for known in self._matters.values() for n in known if n in others):
            if self._runs.under(given({**fixed, suspect: run.values[suspect]})).asks(entry) != usual.asks(entry):
                return suspect
        low, high = 0, len(others)
        while high - low > 1:
            middle = (low + high) // 2
            mixed = self._runs.under(given({**fixed, **{n: run.values[n] for n in others[:middle]}}))
            if mixed.asks(entry) == usual.asks(entry):
                low = middle
            else:
                high = middle
        return others[high - 1]

    def _mix(self) -> bool:
        """Tries choices of which nothing tells whether they decide together; whether there was anything new."""
        before = len(self._runs.made)
        untraced = {label for labels, _ in self._runs.compared for label in labels} | self._runs.opaque
        places: list[tuple[tuple[str, ...], Sample]] = []
        for mattering in [(), *dict.fromkeys(self._matters.values())]:
            for values, run in self._rows(mattering):
                places.append((tuple(n for n in run.values if n in untraced and n not in values), values))
        for labels, values in sorted(places, key=lambda place: -len(place[0])):
            if len(labels) > 1 and not any(known.issuperset(labels) for known in self._mixtures):
                levels = [self._levels(label) for label in labels]
                self._mixtures[frozenset(labels)] = [
                    {**values, **{n: answers[i] for n, answers, i in zip(labels, levels, row, strict=True)}}
                    for row in covering([len(answers) for answers in levels], _MIXED)
                ]
        for mixture in self._mixtures.values():
            for values in mixture:
                self._learn(self._runs.under(given(values)))
        return len(self._runs.made) > before

    def _levels(self, label: str) -> list[Answer]:
        """Some answers of a choice: its default, those next to what it was compared with, others as space allows."""
        tried = self._tried(label)
        if len(tried) <= _LEVELS:
            return tried
        hints = sorted(self._runs.hints.get(label, ())) if self._runs.questions[label].domain.numeric else []
        near = [answer for hint in hints for answer in sorted(tried, key=lambda a: abs(a - hint))[:3]]
        some = [tried[0], *near, tried[-1], *tried[:: len(tried) // _LEVELS]]
        return list({as_key(answer): answer for answer in some}.values())[:_LEVELS]

    def _groups(self) -> Iterator[tuple[Run, list[tuple[str, ...]]]]:
        """Choices that Python has compared, by the run in which it did so first."""
        found: dict[Run, dict[tuple[str, ...], None]] = {}
        for (labels, _), base in self._runs.compared.items():
            found.setdefault(base, {})[tuple(n for n in base.values if n in labels)] = None
        for base, groups in found.items():
            yield base, list(groups)

    def _packed(self, groups: Sequence[tuple[str, ...]]) -> Iterator[Sample]:
        """Answers that try all combinations within each group, those of several groups at once where they agree."""
        left: dict[tuple[str, ...], list[Sample]] = {}
        for group in groups:
            number = math.prod(len(self._tried(label)) for label in group)
            if number > _COMBINATIONS:
                self.doubts[group] = f"they may decide together, and their {number:,} combinations are too many to try"
                continue
            answers = itertools.product(*(self._tried(label) for label in group))
            left[group] = [dict(zip(group, combination, strict=True)) for combination in answers]
        while any(left.values()):
            values: Sample = {}
            for combinations in left.values():
                fitting = next((c for c in combinations if all(values.get(n, a) == a for n, a in c.items())), None)
                if fitting is not None:
                    values.update(fitting)
                    combinations.remove(fitting)
            yield values

    # Planting the tree.

    def _tree(self) -> tuple[Choice, ...]:
        deciding = dict.fromkeys(label for mattering in self._matters.values() for label in mattering)
        tried: dict[str, tuple[Answer, ...]] = {}
        for label in deciding:
            answers, domain = self._tried(label), self._runs.questions[label].domain
            if len(answers) < domain.size:
                many = f"{domain.size:,}" if isinstance(domain.size, int) else "infinitely many"
                self.doubts[(label,)] = (
                    f"other choices follow its value, and only {len(answers)} of {many} answers were tried"
                )
                if domain.numeric:
                    tried[label] = tuple(sorted(answers))
        planting = Planting(self._runs.questions, tried)
        for entry in self._runs.entries:
            mattering = self._closed(self._matters.get(entry, ()))
            rows = list(self._rows(mattering)) if mattering else []
            if not mattering:
                planting.add(entry.label, entry.path)
                continue
            for term in self._terms([(values, run.asks(entry)) for values, run in rows]):
                witness = next(
                    run for values, run in rows if run.asks(entry) and all(as_key(values.get(n)) in a for n, a in term)
                )
                planting.add(entry.label, _merged(entry.path, term, witness.order))
        return planting.choices

    def _closed(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """These choices, and those on which it depends whether they are asked."""
        found = dict.fromkeys(labels)
        pending = list(labels)
        while pending:
            label = pending.pop()
            for entry, mattering in self._matters.items():
                if entry.label == label:
                    pending += [n for n in mattering if n not in found]
                    found.update(dict.fromkeys(mattering))
        return tuple(found)

    def _terms(self, rows: list[tuple[Sample, bool | None]]) -> list[_Term]:
        """The conditions under which the answer is yes: one after the other, and within each all at once."""
        known = {truth for _, truth in rows if truth is not None}
        if known != {True, False}:
            return [()] if True in known else []
        label = next(iter(rows[0][0]))
        behind: dict[Answer, list[tuple[Sample, bool | None]]] = {}
        for values, truth in rows:
            behind.setdefault(as_key(values[label]), []).append(
                ({n: a for n, a in values.items() if n != label}, truth)
            )
        alike: dict[tuple[_Term, ...], set[Answer]] = {}
        for answer, following in behind.items():
            if any(truth is not None for _, truth in following):
                alike.setdefault(tuple(self._terms(following)), set()).add(answer)
        if len(alike) == 1:
            return list(next(iter(alike)))
        return [((label, frozenset(answers)), *term) for terms, answers in alike.items() for term in terms]


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - _NAMED
    return ", ".join(labels[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _merged(path: Path, term: _Term, order: Mapping[str, int]) -> Path:
    """The conditions of a path and of a term together, those that were asked first outermost."""
    found = list(path)
    for label, answers in term:
        for position, (other, theirs) in enumerate(found):
            if other == label:
                found[position] = (label, both(theirs, answers))
                break
            if order[other] > order[label]:
                found.insert(position, (label, answers))
                break
        else:
            found.append((label, answers))
    return tuple(found)


def _some(domain: Domain, hints: Iterable[float], met: Iterable[Answer]) -> list[Answer]:
    """The answers of a domain that are tried: all of them, or the ends, a few between, and what was compared with."""
    if domain.size <= TRIED:
        return list(domain.values())
    found: list[Answer] = [domain.first, *met]
    if domain.numeric:
        found += [domain.from_unit(position) for position in (0.0, 0.25, 0.5, 0.75, 1.0)]
        for hint in sorted(hints):
            below, above = math.nextafter(hint, -math.inf), math.nextafter(hint, math.inf)
            near = (hint - 1, hint, hint + 1) if isinstance(domain, Integer) else (below, hint, above)
            found += [domain.canonical(value) for value in near if domain.contains(value)]
    elif domain.listable:
        found += [domain.at(int(position * (domain.size - 1))) for position in (0.25, 0.5, 0.75, 1.0)]
    return list({as_key(answer): answer for answer in found}.values())


_NOTHING = object()
