"""Units: single indices along dimensions of tensors, and which of them can only be removed together."""

from __future__ import annotations

from typing import TypeAlias, final

import numpy
from numpy.typing import NDArray

Lines: TypeAlias = NDArray[numpy.int64]
"""Numbers of units, in any shape."""


@final
class Units:
    """Numbered units in classes that only grow: the units of a class are removed together, or not at all.

    Example:
        >>> units = Units()
        >>> rows, columns = units.make(3), units.make(3)
        >>> units.tie(rows, columns)
        >>> units.find(columns).tolist()
        [0, 1, 2]
        >>> units.fix(rows[:1], "it is returned")
        >>> units.reasons()
        {0: 'it is returned'}
    """

    def __init__(self) -> None:
        self._parent = numpy.arange(1024, dtype=numpy.int64)
        self._count = 0
        self._fixed: list[tuple[Lines, str]] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def make(self, number: int) -> Lines:
        """New units, each in a class of its own."""
        first, self._count = self._count, self._count + number
        if self._count > len(self._parent):
            longer = numpy.arange(2 * self._count, dtype=numpy.int64)
            longer[: len(self._parent)] = self._parent
            self._parent = longer
        return numpy.arange(first, self._count, dtype=numpy.int64)

    def find(self, lines: Lines) -> Lines:
        """The class of each unit, by its smallest number."""
        roots = self._parent[lines]
        while True:
            further = self._parent[roots]
            if numpy.array_equal(further, roots):
                break
            roots = further
        self._parent[lines] = roots
        return roots

    def tie(self, some: Lines, others: Lines) -> None:
        """Puts each unit into the class of its partner; the two broadcast."""
        if some is others:
            return
        some, others = numpy.broadcast_arrays(some, others)
        one, other = some.ravel(), others.ravel()
        while True:
            a, b = self.find(one), self.find(other)
            differ = a != b
            if not differ.any():
                return
            numpy.minimum.at(self._parent, numpy.maximum(a, b)[differ], numpy.minimum(a, b)[differ])

    def tie_along(self, lines: Lines, axes: tuple[int, ...]) -> Lines:
        """Ties units that differ along some axes alone; what is left of the array without these axes."""
        if not axes:
            return lines
        first = lines[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(lines.ndim))]
        self.tie(lines, first)
        return first.reshape([n for axis, n in enumerate(lines.shape) if axis not in axes])

    def is_constant(self, lines: Lines, axis: int) -> bool:
        """Whether all units along an axis are of one class."""
        roots = self.find(lines)
        return bool((roots == roots.take([0], axis)).all())

    def fix(self, lines: Lines, reason: str) -> None:
        """Says that units cannot be removed, and why."""
        if lines.size:
            self._fixed.append((lines.ravel().copy(), reason))

    def reasons(self) -> dict[int, str]:
        """The classes that cannot be removed, each with the first reason that was given."""
        found: dict[int, str] = {}
        for lines, reason in self._fixed:
            for root in numpy.unique(self.find(lines)).tolist():
                found.setdefault(root, reason)
        return found
