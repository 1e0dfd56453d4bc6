"""What discovery costs, what it says where it cannot be certain, and what is no function of its answers."""

import copy
import itertools
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import nas
from nas import LayerChoice, ModelSpace, NasError, Real, ValueChoice


def value(label: str, number: int = 3) -> int:
    return ValueChoice(list(range(1, number + 1)), label=label)


# What it costs.


def counted(program: Callable[[], object]) -> tuple[ModelSpace, int]:
    """The space, and how often the program was run for it."""
    runs = 0

    def build() -> nn.Module:
        nonlocal runs
        runs += 1
        program()
        return nn.Identity()

    return ModelSpace(build), runs


def test_independent_choices_take_as_many_runs_as_the_largest_has_answers() -> None:
    space, runs = counted(lambda: [value(f"w{i}", 8) for i in range(28)])
    assert space.size == 8**28
    assert runs <= 12


def test_a_loop_over_widths_takes_few_runs() -> None:
    space, runs = counted(lambda: [value(f"w{i}", 5) for i in range(value("depth", 10))])
    assert space.size == sum(5**depth for depth in range(1, 11))
    assert runs < 60


def test_comparisons_that_decide_nothing_take_few_runs() -> None:
    """As a residual network compares the widths of each layer with those before."""

    def residual() -> nn.Module:
        widths = [value(f"w{i}", 5) for i in range(12)]
        pairs = itertools.pairwise(widths)
        return nn.Sequential(*(nn.Identity() if a == b else nn.Linear(a, b) for a, b in pairs))

    space, runs = counted(residual)
    assert space.size == 5**12
    assert runs < 90


def test_a_cell_space_is_built_twice() -> None:
    ops = [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish]
    _, runs = counted(lambda: [LayerChoice(ops, label=f"edge{i}") for i in range(28)])
    assert runs == 2


# What cannot be found out for certain.


def too_many() -> nn.Module:
    rate = ValueChoice(Real(0.0, 1.0), label="rate")
    if rate > 0.3:
        value("extra")
    return nn.Identity()


def test_numbers_that_cannot_all_be_tried_are_doubtful() -> None:
    with pytest.warns(UserWarning, match=r"too_many is not exact.*rate: other choices follow its value, and only"):
        space = ModelSpace(too_many)
    assert not space.exact
    assert set(space.doubts) == {"rate"}
    assert "0.3 < rate" in str(space)
    assert space.contains({"rate": 0.31, "extra": 2})
    assert not space.contains({"rate": 0.31})
    assert not space.contains({"rate": 0.3, "extra": 2})
    for seed in range(20):
        assert space.contains(space.sample(seed))


def long_loop() -> nn.Module:
    for i in range(ValueChoice(nas.Integer(1, 100), label="n")):
        value(f"w{i}", 2)
    return nn.Identity()


def test_a_size_that_is_not_exact_is_a_least_one() -> None:
    with pytest.warns(UserWarning, match="not exact"):
        space = ModelSpace(long_loop)
    assert "at least" in str(space)
    assert space.size < sum(2**n for n in range(1, 101))


def test_numbers_that_decide_nothing_are_no_doubt() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space = ModelSpace(lambda: nn.Dropout(ValueChoice(Real(0.0, 1.0), label="p")))
        assert space.exact
        assert ModelSpace(lambda: nn.Linear(2, ValueChoice(nas.Integer(1, 10_000), label="n"))).size == 10_000


def test_too_many_combinations_are_doubtful() -> None:
    with pytest.warns(UserWarning, match=r"may decide together, and their 1,953,125 combinations are too many to try"):
        space = ModelSpace(lambda: nn.Linear(1, 1 + (sum(value(f"w{i}", 5) for i in range(9)) > 100)))
    assert not space.exact


def test_a_sample_with_unexpected_choices_lets_the_tree_grow() -> None:
    with pytest.warns(UserWarning, match="not exact"):
        space = ModelSpace(long_loop)
    sample = space.complete({"n": 60}, seed=0)
    assert len(sample) == 61
    assert space.contains(sample)
    assert space.search_space.problems(sample)[1]
    assert space.grow(sample)
    assert space.search_space.contains(sample)
    assert not space.grow(sample)


def test_errors_under_other_answers_are_no_difference() -> None:
    """Heads that do not divide the width: such samples fail when they are built, as they always have."""

    def program() -> nn.Module:
        width, heads = value("width", 8), value("heads", 4)
        return nn.MultiheadAttention(width, heads)

    space = ModelSpace(program)
    assert space.exact
    assert space.size == 32
    with pytest.raises(AssertionError, match="divisible"):
        space.build({"width": 3, "heads": 2})


def test_what_discovery_has_not_seen_is_noticed_when_it_is_built() -> None:
    def program() -> nn.Module:
        op = LayerChoice([nn.ReLU, nn.Tanh], label="op")
        if isinstance(op, nn.Tanh):
            LayerChoice([nn.ReLU, nn.Tanh], label="more")
        return op

    space = ModelSpace(program)
    assert space.size == 2
    with pytest.warns(UserWarning, match=r"not exact.*the program asks other choices under these answers"):
        space.build({"op": "Tanh"})
    assert not space.exact
    assert list(space.grid()) == [{"op": "ReLU"}, {"op": "Tanh", "more": "ReLU"}, {"op": "Tanh", "more": "Tanh"}]


# Programs that are no functions of their answers.


class Doubling(nn.Module):
    channels = 8

    def __init__(self) -> None:
        super().__init__()
        type(self).channels *= 2
        self.conv = nn.Conv2d(3, self.channels, value("kernel"))


def test_a_constructor_that_makes_other_shapes_each_time_is_refused() -> None:
    with pytest.raises(NasError, match=r"function of its answers.*'conv.weight' is \(16, 3, 1, 1\) in one and \(32, 3"):
        ModelSpace(Doubling)


def test_a_constructor_that_asks_other_questions_each_time_is_refused() -> None:
    asked: list[int] = []

    def program() -> nn.Module:
        asked.append(value(f"w{len(asked)}"))
        return nn.Identity()

    with pytest.raises(NasError, match=r"function of its answers.*the choice 'w0' is asked in one of the two"):
        ModelSpace(program)


def test_what_is_handed_out_is_as_good_as_the_plain_value() -> None:
    """Also where it is copied, hashed, formatted, or kept by the module."""
    kept: list[Any] = []

    def program() -> nn.Module:
        number, rate = value("n"), ValueChoice([0.25, 0.5], label="rate")
        name, pair = ValueChoice(["a", "b"], label="name"), ValueChoice([(3, 1), (5, 2)], label="pair")
        kept.extend([number, rate, name, number + rate, -number, divmod(number, 2), round(rate), name + "x"])
        kept.extend([pair, pair[0], pair[:1], (*pair, number), pair + (1,)])  # noqa: RUF005 - the sum is tried too
        assert nn.Conv2d(1, 1, pair).kernel_size == pair
        assert {number: 1}[1 * number] == 1
        assert f"{number} {rate:.1f} {name}" == f"{int(number)} {float(rate):.1f} {name[:]}"
        torch.zeros(number, 2 * number)
        return nn.Linear(number, number)

    space = ModelSpace(program)
    assert space.exact
    for item in kept:
        assert copy.deepcopy(item) == item
        assert pickle.loads(pickle.dumps(item)) == item
        if not isinstance(item, tuple):
            assert type(pickle.loads(pickle.dumps(item))) in (int, float, str)
