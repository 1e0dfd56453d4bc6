"""Covering arrays."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from nas.space.covering import covering


def covered(rows: list[tuple[int, ...]], sizes: list[int], together: int) -> float:
    """How much of all combinations of so many columns the rows have."""
    some = list(itertools.combinations(range(len(sizes)), together))
    found = sum(len({tuple(row[c] for c in columns) for row in rows}) for columns in some)
    return found / sum(math.prod(sizes[c] for c in columns) for columns in some)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_any_two_columns_have_all_their_combinations(sizes: list[int]) -> None:
    rows = list(covering(sizes, 200))
    assert len(set(rows)) == len(rows) <= math.prod(sizes)
    assert all(0 <= level < size for row in rows for level, size in zip(row, sizes, strict=True))
    assert covered(rows, sizes, min(2, len(sizes))) == 1
    assert rows == list(covering(sizes, 200))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_a_few_columns_have_all(sizes: list[int]) -> None:
    assert set(covering(sizes, 64)) == set(itertools.product(*map(range, sizes)))


def test_columns_of_few_levels_are_covered_more_at_a_time() -> None:
    assert covered(list(covering([2] * 10, 64)), [2] * 10, 4) == 1
    assert covered(list(covering([3] * 8, 64)), [3] * 8, 3) == 1
    assert len(list(covering([2] * 10, 64))) < 50
    assert len(list(covering([2] * 30, 64))) < 15


def test_where_rows_are_few_the_first_ones_cover_the_most() -> None:
    rows = list(covering([8] * 28, 32))
    assert len(rows) == 32
    assert covered(rows, [8] * 28, 2) > 0.43  # Drawn at random, 32 rows cover 0.40.
