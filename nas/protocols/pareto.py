"""Several objectives at once: dominance, fronts, crowding and hypervolume. Smaller is better in every column here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[float, ...]


def dominates(left: Point, right: Point) -> bool:
    """Whether the left point is nowhere worse and somewhere better.

    Example:
        >>> dominates((1, 2), (1, 3)), dominates((1, 2), (1, 2))
        (True, False)
    """
    return left != right and all(a <= b for a, b in zip(left, right, strict=True))


def fronts(points: Sequence[Point]) -> list[int]:
    """The number of each point's front: 0 where nothing dominates it, 1 where only front 0 does, and so on.

    Example:
        >>> fronts([(1, 4), (2, 2), (3, 3), (4, 4)])
        [0, 0, 1, 2]
    """
    number = [0] * len(points)
    # In lexicographic order, only an earlier point can dominate a later one.
    members: list[list[Point]] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        point = points[i]
        while number[i] < len(members) and any(dominates(other, point) for other in members[number[i]]):
            number[i] += 1
        if number[i] == len(members):
            members.append([])
        members[number[i]].append(point)
    return number


def crowding(points: Sequence[Point]) -> list[float]:
    """How much room each point of one front has: the larger, the lonelier; infinite at the ends (Deb et al. 2002).

    Example:
        >>> crowding([(0, 4), (1, 1), (4, 0)])
        [inf, 2.0, inf]
    """
    room = [0.0] * len(points)
    for column in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][column])
        span = points[order[-1]][column] - points[order[0]][column]
        room[order[0]] = room[order[-1]] = math.inf
        for before, middle, after in zip(order, order[1:], order[2:], strict=False):
            if span > 0:
                room[middle] += (points[after][column] - points[before][column]) / span
    return room


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume that the points dominate, as far as the reference point; exact (While et al. 2012, WFG).

    Args:
        points: one tuple for each, as long as the reference; those beyond the reference count nothing.
        reference: the worst that matters.

    Example:
        >>> hypervolume([(1, 3), (2, 1)], (4, 4))
        7.0
    """
    inside = [p for p in points if all(a < b for a, b in zip(p, reference, strict=True))]
    front = [p for p, number in zip(inside, fronts(inside), strict=True) if number == 0]
    return _volume(sorted(set(front), reverse=True), reference)


def _volume(front: list[Point], reference: Point) -> float:
    total = 0.0
    if len(reference) == 2:
        height = reference[1]
        for x, y in sorted(front):
            if y < height:
                total += (reference[0] - x) * (height - y)
                height = y
        return total
    for i, point in enumerate(front):
        # What this point adds to those after it: its box, less the part of the box that they dominate too.
        limited = [tuple(map(max, other, point)) for other in front[i + 1 :]]
        kept = [p for p, number in zip(limited, fronts(limited), strict=True) if number == 0]
        box = math.prod(b - a for a, b in zip(point, reference, strict=True))
        total += box - _volume(sorted(set(kept), reverse=True), reference)
    return total
