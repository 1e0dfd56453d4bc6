"""Costs of all samples of a space as sums of small tables, found by profiling some of them on the meta device."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

from nas.domains import Answer, Sample, sample_key
from nas.errors import NasError, NasValueError, explain
from nas.profile.cost_structure import Key, Structure, key_of
from nas.space import SearchSpace

Vector: TypeAlias = Mapping[str, Sequence[int]]
"""What each module of an architecture costs: path -> one number for each metric."""

LARGEST_TABLE = 2048
"""Tables with more entries are not filled as a whole, only as samples need them."""

_HOPELESS = 8 * LARGEST_TABLE
_DRAWS, _KEPT, _TRIES = 30, 4096, 8
_CHANGES, _LISTED, _PAIRS = 16, 10_000, 10
_ROUNDS, _MOST_ROUNDS, _HALVES, _FEW = 2, 12, 12, 3


@final
@dataclass(slots=True, eq=False)
class Factor:
    """A table over the joint answers of a few labels: what the modules that depend on no other label cost together."""

    labels: tuple[str, ...]
    size: float
    """How many entries there are."""
    values: dict[Key, int] = field(default_factory=dict)
    witnesses: dict[Key, Sample] = field(default_factory=dict)
    """For each entry a sample that showed it."""
    barred: set[Key] = field(default_factory=set)
    """Entries of which no sample was found that the constraint of the space allows."""

    @property
    def small(self) -> bool:
        """Whether it may be filled as a whole."""
        return self.size <= LARGEST_TABLE

    @property
    def full(self) -> bool:
        """Whether every entry is known that a sample has."""
        return len(self.values) + len(self.barred - self.values.keys()) == self.size


@final
class CostTables:
    """For each metric the factors whose sum is the cost, exactly as far as all builds have shown.

    Every module of the built model is a term. One label after the other is changed in a few samples to see which terms
    depend on it; terms that depend on the same labels make one factor. Then every factor is tested by samples that
    share its labels and differ in all others. Wherever two builds disagree about an entry, now or later, the label
    that makes the difference is found by bisection and joins: interactions are kept.

    Args:
        structure: the tree.
        measure: the costs of a sample, module by module.
        metrics: their names, in the order of the numbers of a vector.
        whole: whether to look for no tables, but to build each sample that is asked for: where not all can be built.
    """

    def __init__(
        self,
        structure: Structure,
        measure: Callable[[Sample], Vector],
        metrics: Sequence[str],
        *,
        whole: bool = False,
    ) -> None:
        self.structure, self.metrics = structure, tuple(metrics)
        self.factors: dict[str, list[Factor]] = {metric: [] for metric in metrics}
        self.builds = 0
        self._measure = measure
        self._rng = random.Random(0)
        self._records: dict[str, tuple[Sample, Vector]] = {}
        self._labels: dict[str, dict[str, frozenset[str]]] = {metric: {} for metric in metrics}
        self._home: dict[str, dict[str, Factor]] = {metric: {} for metric in metrics}
        self._by_use: dict[str, set[str]] = {metric: set() for metric in metrics}
        self._pairs: list[tuple[str, tuple[Sample, Sample]]] = []
        self._everything = frozenset(structure.domains)
        self._fewest = self._everything if whole else frozenset()
        if not whole:
            self._vary_all()
        for metric in self.metrics:
            self._regroup(metric)
        if not whole:
            self._verify()

    # What users of the tables ask.

    def cost(self, metric: str, sample: Mapping[str, Answer]) -> int:
        """What a sample costs; where an entry is missing, it is built on the meta device."""
        try:
            known = self.structure.with_uses(sample) if self._by_use[metric] else sample
            return sum([factor.values[key_of(factor.labels, known)] for factor in self.factors[metric]])
        except KeyError:
            tree = self.structure.space
            whole = tree.validate({label: answer for label, answer in sample.items() if label in tree.domains})
            self._learn(whole)
            index = self.metrics.index(metric)
            return sum(costs[index] for costs in self._vector(whole).values())

    def fill(self, metric: str) -> None:
        """Builds samples until all small tables of a metric are full."""
        while missing := list(self._missing(metric)):
            self._fill_some(missing)

    def _missing(self, metric: str) -> Iterator[tuple[Factor, list[Sample]]]:
        for factor in self.factors[metric]:
            if factor.small and not factor.full:
                entries = self.structure.part(frozenset(factor.labels)).grid()
                known = factor.values.keys() | factor.barred
                unknown = [entry for entry in entries if key_of(factor.labels, entry) not in known]
                self._rng.shuffle(unknown)
                yield factor, unknown

    def _fill_some(self, missing: list[tuple[Factor, list[Sample]]]) -> None:
        """Builds samples, each with as many missing entries as fit together, until none is left or a factor changed."""
        while any(entries for _, entries in missing):
            given: Sample = {}
            taken: list[tuple[Factor, Sample]] = []
            for factor, entries in sorted(missing, key=lambda item: -len(item[1])):
                for at in range(len(entries) - 1, max(-1, len(entries) - 1 - _TRIES), -1):
                    # Labels come with those that decide whether they are asked, so equal answers are enough.
                    if key_of(factor.labels, entries[at]) in factor.values:
                        entries.pop(at)
                    elif all(given.get(label, answer) == answer for label, answer in entries[at].items()):
                        taken.append((factor, entries.pop(at)))
                        given.update(taken[-1][1])
                        break
            if given and not self._learn_of(given, taken):
                return

    def _learn_of(self, given: Sample, entries: list[tuple[Factor, Sample]]) -> bool:
        """Enters a sample with these entries; one for each of them, where the constraint forbids them together."""
        sample = self.structure.extend(given, self._rng)
        if sample is not None:
            return self._learn(sample)
        agreed = True
        for factor, entry in entries:
            sample = self.structure.extend(entry, self._rng)
            if sample is None:
                factor.barred.add(key_of(factor.labels, entry))
            elif agreed:  # Once they have not, the factors are others.
                agreed = self._learn(sample)
        return agreed

    # Which labels each term depends on.

    def _vary_all(self) -> None:
        """Changes every label once to each of its answers, in samples with many labels."""
        base = max((self.structure.draw(self._rng) for _ in range(_DRAWS)), key=len)
        left = list(self.structure.open)
        while left:
            self._vary(base, [label for label in left if label in base])
            left = [label for label in left if label not in base]
            found = None
            while left and found is None:
                found = self.structure.sample_with(left[0], self._rng)
                left = left if found is not None else left[1:]
            base = found or base

    def _vary(self, base: Sample, labels: Iterable[str]) -> None:
        for label in labels:
            for answer in self._others(label, base[label]):
                pair = self.structure.neighbours(base, label, answer, self._rng)
                if pair is not None:
                    for metric in self.metrics:
                        self._depend(metric, *pair, label)

    def _others(self, label: str, answer: Answer) -> list[Answer]:
        """Other answers: all of them, or the first and the last and some between."""
        domain = self.structure.domains[label]
        if not self.structure.finite(label):
            return [domain.mutate(answer, self._rng) for _ in range(2)]
        others = [other for other in itertools.islice(domain.values(), _LISTED) if other != answer]
        if len(others) <= _CHANGES:
            return others
        return [others[0], others[-1], *(domain.mutate(answer, self._rng) for _ in range(_CHANGES - 2))]

    def _depend(self, metric: str, first: Sample, second: Sample, label: str, *, sure: bool = False) -> None:
        """Notes that the terms which differ between two samples depend on the one label that differs.

        Where it changes several uses, it takes `sure` to note them all: one of them may be enough.
        """
        index, before, after = self.metrics.index(metric), self._vector(first), self._vector(second)
        for path in {*before, *after}:
            if _at(before, path, index) != _at(after, path, index):
                if not self.structure.finite(label):
                    raise NasValueError(
                        explain(
                            f"the {metric} of {path!r} depend on a choice in an interval of reals, so they cannot be "
                            "listed",
                            got=self.structure.domains[label],
                            where=f"label {label!r}",
                            mend="give it a step, or list the candidates; `profile(space, example_input, sample=...)` "
                            "costs one sample",
                        )
                    )
                changed = self.structure.changed_uses(first, second) if label in self.structure.use_of else set()
                self._widen(metric, path, label, changed if sure or len(changed) == 1 else set())

    def _widen(self, metric: str, path: str, label: str, changed: set[str]) -> None:
        """Adds a label to those that a term depends on, or, where these are too many, the uses that it changed."""
        known, structure = self._labels[metric].get(path, frozenset()), self.structure
        if path in self._by_use[metric] and label in structure.use_of:
            self._labels[metric][path] = known | changed
            return
        found, uses = known | structure.closed([label]), path in self._by_use[metric]
        if structure.count(found) > LARGEST_TABLE and not uses and any(name in structure.use_of for name in found):
            self._by_use[metric].add(path)
            found = structure.closed(name for name in found if name not in structure.use_of)
            found |= changed | self._uses_of(metric, path)
        if structure.count(found) > _HOPELESS:
            found = self._everything  # Hardly an entry would be met twice.
        self._labels[metric][path] = found

    def _uses_of(self, metric: str, path: str) -> set[str]:
        """The uses that make a difference to a term, each tried by itself in several samples."""
        if not self._pairs:
            found = (
                (use, self.structure.use_pair(use, self._rng)) for use in self.structure.uses for _ in range(_PAIRS)
            )
            self._pairs = [(use, pair) for use, pair in found if pair is not None]
        index = self.metrics.index(metric)
        return {
            use
            for use, (first, second) in self._pairs
            if _at(self._vector(first), path, index) != _at(self._vector(second), path, index)
        }

    def _regroup(self, metric: str) -> None:
        """Makes the factors anew from what is known of the terms, and repeats where records then disagree."""
        conflict: tuple[Factor, Sample, Sample] | None = None
        while True:
            self._group(metric)
            for sample, vector in list(self._records.values()):
                conflict = self._insert(metric, sample, vector)
                if conflict is not None:
                    break
            else:
                return
            self._resolve(metric, *conflict)

    def _group(self, metric: str) -> None:
        groups: dict[frozenset[str], Factor] = {}
        home = self._home[metric] = {}
        sets = {self._fewest, *self._labels[metric].values()}
        for labels in sorted(sets, key=lambda found: (-len(found), sorted(found))):
            lazy = self._fewest or labels & self.structure.uses.keys()
            size = math.inf if lazy else self.structure.count(labels)
            factor = Factor(self.structure.ordered(labels), size)
            wider = [other for found, other in groups.items() if labels < found and other.small]
            groups[labels] = min(wider, key=lambda other: other.size) if wider else factor
        for path, labels in self._labels[metric].items():
            home[path] = groups[labels]
        self.factors[metric] = list(dict.fromkeys(groups.values()))

    def _insert(self, metric: str, sample: Sample, vector: Vector) -> tuple[Factor, Sample, Sample] | None:
        """Enters a sample in the tables; or a factor and two samples that disagree about an entry of it."""
        index, home = self.metrics.index(metric), self._home[metric]
        sums = dict.fromkeys(self.factors[metric], 0)
        for path, costs in vector.items():
            if costs[index]:
                if path not in home:  # in no sample so far
                    self._labels[metric][path] = self._fewest
                    home[path] = min(self.factors[metric], key=lambda factor: len(factor.labels))
                sums[home[path]] += costs[index]
        known = self.structure.with_uses(sample) if self._by_use[metric] else sample
        for factor, total in sums.items():
            key = key_of(factor.labels, known)
            if factor.values.setdefault(key, total) != total:
                return factor, factor.witnesses[key], sample
            factor.witnesses.setdefault(key, sample)
        return None

    def _resolve(self, metric: str, factor: Factor, first: Sample, second: Sample) -> None:
        """Finds by bisection a label that makes the difference between two samples, and notes who depends on it."""
        index, home = self.metrics.index(metric), self._home[metric]
        paths = sorted(path for path in home if home[path] is factor)
        low, high = self._vector(first), self._vector(second)
        path = next(path for path in paths if _at(low, path, index) != _at(high, path, index))
        way = self.structure.way(first, second)
        if path in self._by_use[metric]:
            self._resolve_uses(metric, path, way)
            return
        start, end = 0, len(way) - 1
        while end - start > 1:
            middle = self._vector(way[(start + end) // 2][0])
            if _at(middle, path, index) != _at(low, path, index):
                end = (start + end) // 2
            else:
                start, low = (start + end) // 2, middle
        for other in self.metrics:
            for label in way[end][1]:
                self._depend(other, way[start][0], way[end][0], label)

    def _resolve_uses(self, metric: str, path: str, way: list[tuple[Sample, tuple[str, ...]]]) -> None:
        """Finds the step of a way between samples that makes a difference and tells most about which use it is."""
        index, known = self.metrics.index(metric), self._labels[metric][path]
        steps: list[tuple[int, int]] = []
        for number, ((first, _), (second, changed)) in enumerate(itertools.pairwise(way)):
            if _at(self._vector(first), path, index) != _at(self._vector(second), path, index):
                told = {label for label in changed if label not in self.structure.use_of}
                if len(told) < len(changed):
                    told |= self.structure.changed_uses(first, second)
                if told - known:
                    steps.append((len(told - known), number))
        if steps:
            _, number = min(steps)
            for label in way[number + 1][1]:
                self._depend(metric, way[number][0], way[number + 1][0], label, sure=True)
        else:
            self._labels[metric][path] = self._everything

    def _verify(self) -> None:
        """Tests the factors by samples that share some labels with another, until a round finds nothing new.

        Where half of the labels are drawn anew, those of many small factors stay as they are; a factor of more labels
        gets a sample in which all labels but its own are drawn anew.
        """
        for number in range(_MOST_ROUNDS):
            if all(self._everything in self._labels[metric].values() for metric in self.metrics):
                return  # Each sample is built when it is asked for.
            common = self.structure.draw(self._rng)
            agreed = self._learn(common)
            for _ in range(_HALVES):
                kept = {label: answer for label, answer in common.items() if self._rng.random() < 0.5}
                agreed &= self._learn_more(kept)
            for labels in {factor.labels: None for metric in self.metrics for factor in self.factors[metric]}:
                if len(labels) > _FEW:
                    agreed &= self._learn_more({label: common[label] for label in labels if label in common})
            if agreed and number + 1 >= _ROUNDS:
                return

    def _learn_more(self, given: Sample) -> bool:
        """Enters a sample with these answers, or where there is none, any."""
        return self._learn(self.structure.extend(given, self._rng) or self.structure.draw(self._rng))

    def _learn(self, sample: Sample) -> bool:
        """Enters a sample in all tables; whether they agreed with it."""
        vector, agreed = self._vector(sample), True
        for metric in self.metrics:
            conflict = self._insert(metric, sample, vector)
            if conflict is not None:
                self._resolve(metric, *conflict)
                agreed = False
        if not agreed:
            for metric in self.metrics:
                self._regroup(metric)
        return agreed

    def _vector(self, sample: Sample) -> Vector:
        key = sample_key(sample)
        found = self._records.get(key)
        if found is None:
            self.builds += 1
            found = self._records[key] = sample, self._measure(sample)
            if len(self._records) > _KEPT:
                del self._records[next(iter(self._records))]
        return found[1]


def explored(
    space: SearchSpace, measure: Callable[[Sample], Vector], metrics: Sequence[str], *, anyway: bool = False
) -> CostTables:
    """The tables of a space; where they cannot be found, such as build each sample that is asked for.

    Args:
        space: with its constraint: no sample is built that it forbids.
        measure: the costs of a sample, module by module.
        metrics: their names.
        anyway: whether to do without tables of a space without a constraint too.

    Raises:
        NasError: a sample of a space without a constraint cannot be built, or a cost cannot be tabulated.
    """
    structure = Structure(space)
    try:
        return CostTables(structure, measure, metrics)
    except NasError:
        if space.constraint is None and not anyway:
            raise
    measure(structure.draw(random.Random(0)))  # If not even that can be done, it is said at once.
    return CostTables(structure, measure, metrics, whole=True)


def _at(vector: Vector, path: str, metric: int) -> int:
    costs = vector.get(path)
    return 0 if costs is None else costs[metric]
