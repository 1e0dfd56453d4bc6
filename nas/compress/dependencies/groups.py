"""Groups: channels or heads that lie in the same places, of which any number may be kept; and what stays as it is."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.compress.dependencies.tracing import Trace
from nas.compress.dependencies.units import Lines

Slot: TypeAlias = tuple[str, int]
"""The name of a parameter or buffer, and a dimension of it."""
Counts: TypeAlias = Mapping[str, int]
"""How many are kept of each group, by its label; of one that is not named, all."""


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """The indices along something: which group each belongs to, and which one of it it is."""

    owner: NDArray[numpy.int64]
    """The number of the group; -1 for what always stays."""
    rank: NDArray[numpy.int64]

    def kept(self, most: Sequence[int]) -> NDArray[numpy.int64]:
        """The indices that stay where of each group, by its number, so many of the first are kept."""
        limits = numpy.array([*most, 1], dtype=numpy.int64)[self.owner]
        return numpy.flatnonzero((self.owner < 0) | (self.rank < limits))


@final
@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels or heads that are kept or removed one by one, in all the places where they are at once.

    Attributes:
        label: the layer that makes them first, and what they are.
        kind: channels, or heads of an attention.
        size: how many there are.
        slots: where they are.
    """

    label: str
    kind: Literal["channels", "heads"]
    size: int
    slots: tuple[Slot, ...]


@final
@dataclass(kw_only=True)
class Groups:
    """All groups of a model.

    Attributes:
        groups: in the order in which the model makes them.
        lines: of each dimension of parameters and buffers in which something can be removed.
        refused: layers whose channels stay, with the reason.
    """

    groups: list[Group]
    lines: dict[Slot, Line]
    refused: dict[str, str]
    _roots: dict[int, tuple[int, int]] = field(repr=False)
    _trace: Trace = field(repr=False)

    def line(self, units: Lines) -> Line:
        """Units as indices of groups; of several in a row, the first that can be removed stands for all."""
        owners, ranks = self._tables
        if not units.size:
            return Line(owner=numpy.full(len(units), -1), rank=numpy.zeros(len(units), dtype=numpy.int64))
        roots = self._trace.algebra.units.find(units.reshape(len(units), -1))
        owner = owners[roots]
        first = (owner >= 0).argmax(axis=1)[:, None]
        return Line(
            owner=numpy.take_along_axis(owner, first, 1)[:, 0],
            rank=numpy.take_along_axis(ranks[roots], first, 1)[:, 0],
        )

    @functools.cached_property
    def _tables(self) -> tuple[Lines, Lines]:
        """By class of units: the number of its group, and its place there."""
        owners = numpy.full(self._trace.algebra.units.count, -1, dtype=numpy.int64)
        ranks = numpy.zeros_like(owners)
        for root, (owner, rank) in self._roots.items():
            owners[root], ranks[root] = owner, rank
        return owners, ranks

    def positions(self, number: int, slot: Slot) -> Tensor:
        """Where the channels or heads of a group are along a dimension: "(channels, places of each)"."""
        line = self.lines[slot]
        places = torch.from_numpy((line.owner == number).nonzero()[0])
        ranks = torch.from_numpy(line.rank)[places]
        return places[torch.sort(ranks, stable=True).indices].reshape(self.groups[number].size, -1)

    def most(self, counts: Counts) -> list[int]:
        """How many of each group are kept, by its number."""
        return [counts.get(group.label, group.size) for group in self.groups]

    def without(self, refused: Mapping[str, str]) -> Groups:
        """The same without some groups, by their labels, with the reasons."""
        numbers = {number: i for i, number in enumerate(n for n, g in enumerate(self.groups) if g.label not in refused)}
        roots = {root: (numbers[g], rank) for root, (g, rank) in self._roots.items() if g in numbers}
        reasons = {label.rpartition(".")[0]: why for label, why in refused.items()}
        left = [group for group in self.groups if group.label not in refused]
        found = Groups(groups=left, lines={}, refused={**self.refused, **reasons}, _roots=roots, _trace=self._trace)
        found.lines.update(_lines(self._trace, found))
        return found


def _lines(trace: Trace, groups: Groups) -> dict[Slot, Line]:
    found = {slot: groups.line(units) for slot, units in trace.slots.items() if len(units)}
    return {slot: line for slot, line in found.items() if (line.owner >= 0).any()}


def find_groups(trace: Trace) -> Groups:
    """The groups that a trace has shown."""
    _resolve_views(trace)
    units = trace.algebra.units
    reasons, order = units.reasons(), _made(trace)
    places: dict[int, Counter[Slot]] = defaultdict(Counter)
    for slot, lines in trace.slots.items():
        for root, count in Counter(units.find(lines).tolist()).items():
            places[root][slot] = count
    ways = _ways(trace)
    alike: dict[tuple[frozenset[tuple[Slot, int]], int], list[int]] = defaultdict(list)
    for root, counted in places.items():
        if root not in reasons:
            alike[frozenset(counted.items()), int(ways[root])].append(root)
    heads = {int(r) for lines in trace.heads for r in units.find(lines)}
    found: list[tuple[int, str, Group, list[int]]] = []
    for (key, _), roots in alike.items():
        makers = [(order[slot], slot) for slot, _ in key if slot in order]
        if not makers or len(roots) < 2:
            continue
        number, (name, _) = min(makers)
        several = max(count for slot, count in key if slot in order) > 1
        kind: Literal["channels", "heads"] = "heads" if several and roots[0] in heads else "channels"
        slots = tuple(sorted(slot for slot, _ in key))
        label = f"{name.rpartition('.')[0] or name}.{kind}"
        found.append((number, label, Group(label=label, kind=kind, size=len(roots), slots=slots), sorted(roots)))
    found.sort(key=lambda entry: (entry[0], entry[3][0]))
    groups, numbered, seen = [], dict[int, tuple[int, int]](), Counter[str]()
    for number, (_, label, group, roots) in enumerate(found):
        seen[label] += 1
        again = label if seen[label] == 1 else f"{label} ({seen[label]})"
        groups.append(Group(label=again, kind=group.kind, size=group.size, slots=group.slots))
        numbered |= {root: (number, rank) for rank, root in enumerate(roots)}
    refused = _refused(trace, order, reasons)
    whole = Groups(groups=groups, lines={}, refused=refused, _roots=numbered, _trace=trace)
    whole.lines.update(_lines(trace, whole))
    return whole


def _ways(trace: Trace) -> NDArray[numpy.uint64]:
    """A number for each class of units that says through which operators it goes: halves that part are no group."""
    units = trace.algebra.units
    found = numpy.zeros(units.count, dtype=numpy.uint64)
    for number, step in enumerate(trace.steps):
        for block in step.labels:
            roots = numpy.unique(units.find(block.lines))
            found[roots] = found[roots] * numpy.uint64(6364136223846793005) + numpy.uint64(number + 1)
    return found


def _made(trace: Trace) -> dict[Slot, int]:
    """The dimensions in which weights make channels, with their place in the order of use."""
    first = {int(lines[0]): slot for slot, lines in trace.slots.items() if len(lines)}
    order: dict[Slot, int] = {}
    for number, lines in enumerate(trace.algebra.made):
        slot = first.get(int(lines.reshape(-1)[0]))
        if slot is not None:
            order.setdefault(slot, number)
    return order


def _refused(trace: Trace, order: Mapping[Slot, int], reasons: Mapping[int, str]) -> dict[str, str]:
    """Layers none of whose channels can go, with the reasons."""
    found: dict[str, str] = {}
    first = sorted(order, key=order.__getitem__)
    makers = {name for name, _ in first}
    others = [slot for slot, lines in trace.slots.items() if slot[0] not in makers and len(lines) > 1]
    wide = {name for name, dim in others if dim == 1}
    for name, dim in [*first, *(slot for slot in others if slot[0] in wide and slot[1] == 0)]:
        roots = numpy.unique(trace.algebra.units.find(trace.slots[name, dim])).tolist()
        if all(root in reasons for root in roots):
            found.setdefault(name.rpartition(".")[0] or name, reasons[roots[0]])
    return found


def _resolve_views(trace: Trace) -> None:
    """Where a tensor is viewed with several dimensions, whole rows along one of them are removed."""
    units = trace.algebra.units
    for lines in trace.algebra.sites:
        free = [axis for axis in range(lines.ndim) if lines.shape[axis] > 1 and not units.is_constant(lines, axis)]
        if len(free) > 1:
            keep = max(free, key=lambda axis: lines.shape[axis])
            units.tie_along(lines, tuple(axis for axis in free if axis != keep))
