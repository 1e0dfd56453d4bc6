"""Covering arrays: few rows in which every few columns have all their combinations (Cohen et al. 1997, AETG)."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import TypeAlias

_Cells: TypeAlias = tuple[tuple[int, int], ...]
_STRENGTHS = {4: 10, 3: 12}
"""Of so many columns at most, so many together have all their combinations; of more, any two."""
_COMBINATIONS = 27
"""More columns than two are covered together where they have at most so many combinations."""


def covering(sizes: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    """Rows of levels, one level for each column, as different as can be: the first ones cover the most.

    All combinations of all columns where `most` rows hold them. Else all combinations of any two, three or four columns
    (the fewer columns and levels there are, the more), or as many of them as the rows hold.

    Args:
        sizes: how many levels each column has.
        most: so many rows at most.

    Example: any two of five columns of three levels.
        >>> rows = list(covering([3] * 5, 64))
        >>> len(rows) < 3**5, len({(row[1], row[4]) for row in rows})
        (True, 9)
    """
    if math.prod(sizes) <= most:
        yield from itertools.product(*map(range, sizes))
        return
    largest = sorted(sizes, reverse=True)
    able = (t for t, most_columns in _STRENGTHS.items() if len(sizes) <= most_columns)
    strength = next((t for t in able if math.prod(largest[:t]) <= _COMBINATIONS), 2)
    left = {
        tuple(zip(columns, levels, strict=True))
        for columns in itertools.combinations(range(len(sizes)), strength)
        for levels in itertools.product(*(range(sizes[column]) for column in columns))
    }
    rng = random.Random(0)
    for _ in range(most):
        if not left:
            return
        row = _row(sizes, strength, left, rng)
        left -= set(itertools.combinations(enumerate(row), strength))
        yield row


def _row(sizes: Sequence[int], strength: int, left: set[_Cells], rng: random.Random) -> tuple[int, ...]:
    """The row that column by column takes the level which covers the most of what is left."""
    row = dict(min(left))
    others = [column for column in range(len(sizes)) if column not in row]
    rng.shuffle(others)
    for column in others:
        known = [sorted(cells) for cells in itertools.combinations(row.items(), strength - 1)]
        gains = [
            sum(tuple(sorted((*cells, (column, level)))) in left for cells in known) for level in range(sizes[column])
        ]
        best = max(gains)
        row[column] = rng.choice([level for level, gain in enumerate(gains) if gain == best])
    return tuple(row[column] for column in range(len(sizes)))
