"""Labels follow tensors: whatever a program does to the order of channels, each index still says which one it is."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.compress.dependencies.labels import Algebra, Block
from nas.compress.dependencies.units import Units


def fresh(*shape: int) -> tuple[Algebra, Block]:
    algebra = Algebra(Units())
    return algebra, Block(tuple(range(len(shape))), algebra.units.make(int(numpy.prod(shape))).reshape(shape))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3), st.data())
def test_reshaping_moves_units_as_it_moves_numbers(sizes: list[int], dim: int, data: st.DataObject) -> None:
    shape = [*sizes, 6]
    dim %= len(shape)
    algebra = Algebra(Units())
    lines = algebra.units.make(shape[dim])
    labels = (Block((dim,), lines),) if shape[dim] > 1 else ()
    cuts = data.draw(st.permutations([n for size in shape for n in ((2, size // 2) if size in (4, 6) else (size,))]))
    new = [n for n in cuts if n > 1] or [1]
    found = algebra.reshaped(labels, shape, new)
    numbers = numpy.broadcast_to(lines.reshape([-1 if d == dim else 1 for d in range(len(shape))]), shape).reshape(new)
    for block in found:
        order = numpy.argsort(block.dims)
        spread = block.lines.transpose(order).reshape([n if d in block.dims else 1 for d, n in enumerate(new)])
        assert (algebra.units.find(numpy.broadcast_to(spread, new)) == algebra.units.find(numbers)).all()
    assert found or not labels or algebra.units.reasons()


def test_what_is_viewed_and_moved_and_joined_again_is_what_it_was() -> None:
    algebra, block = fresh(12)
    taken = algebra.reshaped((block,), (12,), (3, 4))
    moved = algebra.moved(taken, {0: 1, 1: 0})
    assert moved[0].lines.shape == (3, 4)
    (again,) = algebra.reshaped(algebra.moved(moved, {0: 1, 1: 0}), (3, 4), (12,))
    assert again.lines.tolist() == block.lines.tolist()


def test_what_meets_something_of_fixed_length_stays() -> None:
    algebra, block = fresh(4)
    assert algebra.met([((block,), [True]), ((), [True])], [4], "why") == ()
    assert set(algebra.units.reasons().values()) == {"why"}


def test_a_product_over_a_dimension_ties_what_is_summed() -> None:
    algebra, block = fresh(2, 3)
    (left,) = algebra.reduced((block,), [1])
    assert left.dims == (0,)
    assert len(set(algebra.units.find(block.lines).ravel().tolist())) == 2


@pytest.mark.parametrize("index", [0, 2])
def test_a_single_channel_that_is_picked_stays(index: int) -> None:
    algebra, block = fresh(4)
    assert algebra.picked((block,), 0, index) == ()
    assert list(algebra.units.reasons()) == [index]
