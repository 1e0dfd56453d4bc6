"""The least value of a sum of tables over shared labels, by eliminating one label after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, prod
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

Table: TypeAlias = tuple[tuple[str, ...], NDArray[numpy.float64]]
"""Labels, and an array with one axis for each; infinite where answers do not go together."""

LARGEST_ARRAY = 4_000_000


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
        label = min(sorted(labels), key=lambda name: prod(sizes[n] for n in _neighbours(left, name)))
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
            if prod(sizes[name] for name in scope.union(table[0])) <= LARGEST_ARRAY:
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
    return numpy.full(shape, inf)
