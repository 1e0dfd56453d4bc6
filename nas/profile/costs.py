"""Costs of the samples of a space: of one, their bounds, constraints on them, and their expectation."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.checks import check_number
from nas.domains import Answer, Sample
from nas.errors import NasTypeError, NasValueError, explain
from nas.profile.cost_structure import ABSENT, Key
from nas.profile.cost_tables import CostTables, Factor
from nas.space import Constraint, Where, as_constraint

Comparison: TypeAlias = Literal["<", "<=", ">", ">="]
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COUNTED, _DRAWN = 10_000, 2_000

Table: TypeAlias = tuple[tuple[str, ...], NDArray[numpy.float64]]
"""Labels, and an array with one axis for each; infinite where answers do not go together."""

LARGEST_ARRAY = 4_000_000


@final
@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Between which numbers a cost lies."""

    least: float
    """No sample costs less."""
    greatest: float
    """No sample costs more."""
    exact: bool
    """Whether samples attain both; otherwise the true bounds may be narrower."""
    share: float
    """Of the samples that `space.sample` draws, how many satisfy the constraint."""
    share_error: float
    """The standard error of the share where it was estimated from draws; 0 where it is exact."""


@final
class Cost:
    """What each sample of a space costs; made by `nas.profile.profile(space, example_input)` or `nas.profile.cost`.

    `cost(sample)` is a number, and `cost < limit` (or `<=`, `>`, `>=`) a `nas.Constraint`.

    Args:
        tables: the sum of factors.
        metric: of the tables.
        name: for messages.
        scale: what one unit of the tables counts.
    """

    __hash__ = object.__hash__

    def __init__(self, tables: CostTables, metric: str, *, name: str, scale: float = 1) -> None:
        self.name = name
        self._tables, self._metric, self._scale = tables, metric, scale
        self._on_devices: dict[tuple[object, ...], _Entries] = {}

    def __getstate__(self) -> dict[str, object]:
        """Without what lies on a device."""
        return {**vars(self), "_on_devices": {}}

    def __call__(self, sample: Mapping[str, Answer]) -> float:
        """The cost of a sample; labels that are not of the model are ignored.

        Raises:
            NasValueError: the sample is not of the space.
        """
        return self._tables.cost(self._metric, sample) * self._scale

    def __lt__(self, limit: float) -> CostConstraint:
        return CostConstraint(self, "<", limit)

    def __le__(self, limit: float) -> CostConstraint:
        return CostConstraint(self, "<=", limit)

    def __gt__(self, limit: float) -> CostConstraint:
        return CostConstraint(self, ">", limit)

    def __ge__(self, limit: float) -> CostConstraint:
        return CostConstraint(self, ">=", limit)

    def __repr__(self) -> str:
        return self.name

    @property
    def interactions(self) -> list[tuple[str, ...]]:
        """The groups of labels that the cost depends on jointly: it is a sum with one table for each group."""
        return [factor.labels for factor in self._tables.factors[self._metric] if factor.labels]

    def bounds(self, where: Where | None = None) -> Bounds:
        """Between which numbers the cost lies, over all samples or over those that satisfy a constraint.

        Over all samples by dynamic programming, exact where the tables are small enough to be filled and joined, and
        the space has no constraint of its own (what such a one forbids is never built);
        with a constraint by going through all samples where there are at most 10,000, else the bounds over all samples
        cut at the limit, and a share estimated from draws.

        Raises:
            NasValueError: no sample satisfies the constraint, where that is known.
        """
        low, high, exact = self._extremes()
        if where is None:
            return Bounds(least=low, greatest=high, exact=exact, share=1.0, share_error=0.0)
        constraint = as_constraint(where)
        constraint.check()
        if self._tables.structure.space.size <= _COUNTED:
            return self._counted(constraint)
        share, error = self._estimated(constraint)
        if isinstance(constraint, CostConstraint) and constraint.cost is self:
            cut_low, cut_high = constraint.cut(low, high)
            return Bounds(least=cut_low, greatest=cut_high, exact=False, share=share, share_error=error)
        return Bounds(least=low, greatest=high, exact=False, share=share, share_error=error)

    def _counted(self, constraint: Constraint) -> Bounds:
        found: list[float] = []
        share = total = 0.0
        even = True
        for sample in filter(self._tables.structure.allows, self._tables.structure.space.grid()):
            weight, uniform = self._chance(sample)
            even &= uniform
            total += weight
            if constraint.allows(sample):
                found.append(self(sample))
                share += weight
        if not found:
            raise NasValueError(explain("no sample of the space satisfies the constraint", got=constraint))
        share, error = (share / total, 0.0) if even else self._estimated(constraint)
        return Bounds(least=min(found), greatest=max(found), exact=True, share=share, share_error=error)

    def _chance(self, sample: Sample) -> tuple[float, bool]:
        """How likely `space.sample` draws this one, and whether its domains are drawn from uniformly."""
        domains = self._tables.structure.space.domains_of(sample).values()
        return 1 / math.prod(domain.size for domain in domains), all(domain.uniform for domain in domains)

    def _estimated(self, constraint: Constraint) -> tuple[float, float]:
        rng = random.Random(0)
        share = sum(constraint.allows(self._tables.structure.draw(rng)) for _ in range(_DRAWN)) / _DRAWN
        return share, max(1 / _DRAWN, math.sqrt(share * (1 - share) / _DRAWN))

    def _extremes(self) -> tuple[float, float, bool]:
        """Least and greatest of all samples, and whether they are attained."""
        self._tables.fill(self._metric)
        factors = self._tables.factors[self._metric]
        low, exact_low = self._least(factors, 1)
        high, exact_high = self._least(factors, -1)
        if not all(factor.small for factor in factors):
            return low * self._scale, math.inf, False
        attained = exact_low and exact_high and self._tables.structure.constraint is None
        return low * self._scale, -high * self._scale, attained

    def _least(self, factors: list[Factor], sign: int) -> tuple[float, bool]:
        """The least sum of the small tables; costs are never negative, so the others are left out."""
        structure, tables, apart, exact = self._tables.structure, [], 0.0, True
        sizes = {n: int(structure.domains[n].size) + 1 for factor in factors if factor.small for n in factor.labels}
        for factor in factors:
            if not factor.small:
                exact = False
            elif math.prod(sizes[name] for name in factor.labels) > LARGEST_ARRAY:
                apart, exact = apart + min(sign * value for value in factor.values.values()), False
            else:
                tables.append(self._array(factor, sign))
        found, attained = least(tables, sizes)
        return found + apart, exact and attained

    def _array(self, factor: Factor, sign: int) -> Table:
        structure = self._tables.structure
        places = [{answer: i for i, answer in enumerate([*structure.values(n), ABSENT])} for n in factor.labels]
        array = empty([len(place) for place in places])
        for key, value in factor.values.items():
            array[tuple(place[answer] for place, answer in zip(places, key, strict=True))] = sign * value
        return factor.labels, array

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """The expected cost when each choice is drawn by itself: a penalty for one-shot search, differentiable.

        A choice that is asked only under some answers counts with the probability of these; factors of several labels
        are weighted by the joint probability, in a space with a constraint that of the joint answers that it allows.

        Args:
            probabilities: label -> the probability of each answer, (answers,), in the order of `domain.values()`.
                Labels that the cost does not depend on may be missing.

        Returns:
            A scalar, in the dtype of the probabilities.

        Raises:
            NasValueError: a label without probabilities, or a wrong number of them; an interaction that is too large.

        Example:
            >>> from nas import ModelSpace, ValueChoice
            >>> from nas.profile import profile
            >>> space = ModelSpace(lambda: torch.nn.Linear(4, ValueChoice([2, 8], label="width")))
            >>> profile(space, (1, 4)).parameters.expected({"width": torch.tensor([0.5, 0.5])})
            tensor(25.)
        """
        self._tables.fill(self._metric)
        factors = self._tables.factors[self._metric]
        needed = dict.fromkeys(name for factor in factors for name in factor.labels)
        self._check(probabilities, factors, needed)
        padded = {n: torch.cat([probabilities[n], probabilities[n].new_ones(1)]) for n in needed}
        total = next(iter(padded.values())).new_zeros(()) if padded else torch.zeros(())
        for factor in factors:
            entries = self._entries(factor, total)
            weights = torch.ones_like(entries.values)
            for name, places in zip(factor.labels, entries.places, strict=True):
                weights = weights * padded[name][places]
            mean = (entries.values * weights).sum()
            # What the constraint of the space forbids costs nothing, and is not to be sought for that.
            total = total + (mean / weights.sum() if factor.barred - factor.values.keys() else mean)
        return total * self._scale

    def _entries(self, factor: Factor, like: Tensor) -> _Entries:
        """A table as tensors, which are made once: copies to a device in each step would let it wait."""
        key = factor.labels, like.device, like.dtype
        found = self._on_devices.get(key)
        if found is None or found.table != factor.values:  # a later build may have shown more
            places = []
            for axis, name in enumerate(factor.labels):
                place = {answer: i for i, answer in enumerate([*self._tables.structure.values(name), ABSENT])}
                places.append(torch.tensor([place[entry[axis]] for entry in factor.values], device=like.device))
            values = like.new_tensor(list(factor.values.values()))
            found = _Entries(table=dict(factor.values), values=values, places=places)
            self._on_devices[key] = found
        return found

    def _check(self, given: Mapping[str, Tensor], factors: list[Factor], needed: Mapping[str, None]) -> None:
        large = [factor.labels for factor in factors if not factor.full]
        if large:
            raise NasValueError(
                explain(f"the {self.name} depend on {', '.join(large[0])} jointly, in too many ways to be listed")
            )
        domains = self._tables.structure.domains
        wrong = [n for n in needed if n not in given or tuple(given[n].shape) != (domains[n].size,)]
        if wrong:
            shapes = {n: tuple(given[n].shape) if n in given else None for n in wrong}
            raise NasValueError(
                explain(
                    "each label needs a vector of probabilities, one for each answer",
                    got=shapes,
                    where=f"labels {', '.join(map(repr, wrong))}",
                    mend="give vectors of length " + ", ".join(str(domains[n].size) for n in wrong),
                )
            )


@final
@dataclass(frozen=True, kw_only=True)
class _Entries:
    """Of a factor, as tensors."""

    table: dict[Key, int]
    values: Tensor
    """(entries,)."""
    places: list[Tensor]
    """For each label, (entries,): the number of the answer."""


@final
class CostConstraint(Constraint):
    """A limit on a cost: what `cost < limit` makes."""

    def __init__(self, cost: Cost, comparison: Comparison, limit: float) -> None:
        self.cost, self.comparison = cost, comparison
        self.limit = check_number("the limit", limit, infinite=True, where=cost.name)

    def allows(self, sample: Mapping[str, Answer]) -> bool:
        """Whether the cost of the sample keeps the limit."""
        return _COMPARE[self.comparison](self.cost(sample), self.limit)

    def check(self) -> None:
        """Refuses a limit that no sample keeps.

        Raises:
            NasValueError: with the bounds of the cost.
        """
        bounds = self.cost.bounds()
        nearest = bounds.least if self.comparison in ("<", "<=") else bounds.greatest
        if not _COMPARE[self.comparison](nearest, self.limit):
            raise NasValueError(
                explain(
                    f"no sample satisfies it: the {self.cost.name} of this space lie between {bounds.least:,.10g} and "
                    f"{bounds.greatest:,.10g}",
                    got=self,
                    mend="move the limit between these",
                )
            )

    def cut(self, low: float, high: float) -> tuple[float, float]:
        """Bounds with the limit among them."""
        return (low, min(high, self.limit)) if self.comparison in ("<", "<=") else (max(low, self.limit), high)

    def __bool__(self) -> bool:
        raise NasTypeError(
            explain(
                "a constraint is neither true nor false by itself",
                got=self,
                mend="join two with `&`: `(cost > 1e6) & (cost < 2e6)`, not `1e6 < cost < 2e6`",
            )
        )

    def __repr__(self) -> str:
        return f"{self.cost.name} {self.comparison} {self.limit:.10g}"


# The least value of a sum of tables over shared labels, by eliminating one label after the other.


def least(tables: Sequence[Table], sizes: Mapping[str, int]) -> tuple[float, bool]:
    """The least sum over all joint answers.

    The next label to go is the one whose neighbours make the smallest array. Where that is too large, its tables are
    taken apart and each gives its own least: the result is then a lower bound.

    Args:
        tables: with numbers that a float64 holds exactly.
        sizes: label -> the length of its axis.

    Returns:
        The least sum, and whether some joint answer attains it.

    Example:
        >>> table = numpy.array([[1.0, 5.0], [4.0, 0.0]])
        >>> least([(("a", "b"), table), (("b",), numpy.array([0.0, 7.0]))], {"a": 2, "b": 2})
        (1.0, True)
    """
    left, exact = list(tables), True
    while labels := {label for scope, _ in left for label in scope}:
        label = min(sorted(labels), key=lambda name: math.prod(sizes[n] for n in _neighbours(left, name)))
        touched = [table for table in left if label in table[0]]
        left = [table for table in left if label not in table[0]]
        groups = _groups(touched, sizes)
        exact &= len(groups) == 1
        for group in groups:
            scope = tuple(dict.fromkeys(name for names, _ in group for name in names))
            joint = sum(_aligned(table, scope) for table in group)
            rest = tuple(name for name in scope if name != label)
            left.append((rest, numpy.min(joint, axis=scope.index(label))))
    return float(sum(table.item() for _, table in left)) if left else 0.0, exact


def _neighbours(tables: Sequence[Table], label: str) -> set[str]:
    return {name for scope, _ in tables if label in scope for name in scope}


def _groups(tables: Sequence[Table], sizes: Mapping[str, int]) -> list[list[Table]]:
    """Tables that are added before the label goes: all of them, or as many as make an array that fits."""
    groups: list[tuple[set[str], list[Table]]] = []
    for table in sorted(tables, key=lambda item: -item[1].size):
        for scope, members in groups:
            if math.prod(sizes[name] for name in scope.union(table[0])) <= LARGEST_ARRAY:
                scope.update(table[0])
                members.append(table)
                break
        else:
            groups.append((set(table[0]), [table]))
    return [members for _, members in groups]


def _aligned(table: Table, scope: tuple[str, ...]) -> NDArray[numpy.float64]:
    """The table with its axes in the order of a scope, and axes of length 1 for the others."""
    labels, array = table
    order = sorted(range(len(labels)), key=lambda axis: scope.index(labels[axis]))
    lengths = {labels[axis]: array.shape[axis] for axis in order}
    return array.transpose(order).reshape([lengths.get(name, 1) for name in scope])


def empty(shape: Sequence[int]) -> NDArray[numpy.float64]:
    """An array that allows no answers yet."""
    return numpy.full(shape, math.inf)
