"""Domains: sizes, membership, sampling, and what is refused."""

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas import Categorical, Domain, Integer, NasError, Real, Subset
from nas.domains import Either
from nas.testing import DomainContract


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    kind = draw(st.sampled_from(["categorical", "integer", "real", "subset"]))
    if kind == "categorical":
        values = (
            st.none() | st.booleans() | st.integers(2, 99) | st.text(max_size=3) | st.tuples(st.integers(), st.text())
        )
        return Categorical(draw(st.lists(values, min_size=1, max_size=6, unique=True)))
    low, high = sorted(draw(st.tuples(st.integers(1, 40), st.integers(1, 40))))
    if kind == "integer":
        return Integer(low, high, step=draw(st.integers(1, 5)))
    if kind == "real":
        return Real(low / 10, high / 10, step=0.1)
    n = draw(st.integers(1, 4))
    replace = draw(st.booleans())
    k = draw(st.none() | st.integers(0, 3 if replace else min(n, 3)))
    return Subset(n, k, replace=replace, ordered=draw(st.booleans()))


KINDS: list[tuple[type[Domain], tuple[Any, ...], dict[str, Any]]] = [
    (Categorical, ([16, 32, 64],), {}),
    (Categorical, (["only"],), {}),
    (Categorical, ([(3, 3), (5, 1), None, "same", True, "[3, 3]"],), {}),
    (Categorical, (range(3000),), {}),
    (Integer, (1, 8), {}),
    (Integer, (8, 64), {"step": 8}),
    (Integer, (0, 10**6), {}),
    (Integer, (1, 1000), {"log": True}),
    (Integer, (4, 4), {}),
    (Real, (0, 1), {}),
    (Real, (1e-4, 1e-1), {"log": True}),
    (Real, (0, 0.5), {"step": 0.1}),
    (Real, (0, 10), {"step": 0.1}),
    (Real, (2, 2), {}),
    (Subset, (3, None), {}),
    (Subset, (4, 2), {}),
    (Subset, (3, 2), {"replace": True}),
    (Subset, (3, 2), {"ordered": True}),
    (Subset, (3, 2), {"replace": True, "ordered": True}),
    (Subset, (14, None), {}),
    (Subset, (3, 0), {}),
]


EITHER = [
    [Categorical([8, 16]), Integer(16, 40, step=4)],
    [Categorical(["relu", None]), Real(0, 1)],
    [Subset(3, 2), Subset(4, 2), Categorical([1])],
    [Subset(20, None), Real(0.0, 1.0, log=False)],
    [Categorical([1, 2]), Categorical([1.0, 2.0])],
]


class TestEither(DomainContract):
    @pytest.fixture(autouse=True, params=EITHER, ids=str)
    def set_up(self, request: pytest.FixtureRequest) -> None:
        self.domains: list[Domain] = request.param

    def make(self) -> Domain:
        return Either(self.domains)


class TestKinds(DomainContract):
    @pytest.fixture(autouse=True, params=KINDS, ids=lambda kind: f"{kind[0].__name__}{kind[1]}{kind[2] or ''}")
    def chosen(self, request: pytest.FixtureRequest) -> None:
        self.kind, self.args, self.kwargs = request.param

    def make(self) -> Domain:
        made: Domain = self.kind(*self.args, **self.kwargs)
        return made


@given(domains(), st.integers())
def test_size_values_and_samples_agree(domain: Domain, seed: int) -> None:
    values = list(domain.values())
    assert len(values) == domain.size == len({repr(value) for value in values})
    assert all(domain.canonical(value) == value for value in values)
    assert domain.first in values
    drawn = domain.sample(random.Random(seed))
    assert drawn in values
    other = domain.mutate(drawn, random.Random(seed))
    assert other in values
    assert (other != drawn) == (domain.size > 1)


@pytest.mark.parametrize("domain", [Integer(1, 1000, log=True), Real(1e-4, 1e-1, log=True), Real(0, 1)])
def test_draws_stay_inside(domain: Domain) -> None:
    rng = random.Random(0)
    assert all(domain.contains(domain.sample(rng)) for _ in range(300))


def test_log_scale_draws_small_numbers_as_often_as_large_ones() -> None:
    rng = random.Random(0)
    below = sum(Real(1e-4, 1, log=True).sample(rng) < 1e-2 for _ in range(2000))
    assert 850 < below < 1150


@given(st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans())
def test_subsets_are_drawn_uniformly_enough_to_reach_all(n: int, k: int, replace: bool, ordered: bool) -> None:
    if k > n and not replace:
        return
    domain = Subset(n, k, replace=replace, ordered=ordered)
    rng = random.Random(1)
    seen = {tuple(domain.sample(rng)) for _ in range(60 * int(domain.size))}
    assert seen == {tuple(value) for value in domain.values()}


def test_answers_are_brought_to_canonical_form() -> None:
    assert Categorical([(3, 3), None]).canonical([3, 3]) == (3, 3)
    assert Subset(3, 2).canonical((2, 0)) == [0, 2]
    assert Subset(3, 2, ordered=True).canonical([2, 0]) == [2, 0]
    assert Integer(1, 5).canonical(4.0) == 4
    assert Real(0, 1, step=0.1).canonical(0.1 + 0.2) == 0.3


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        (Categorical([0, 1]), True),
        (Categorical([True, False]), 1),
        (Categorical(["a"]), ["a"]),
        (Integer(1, 9, step=2), 4),
        (Integer(1, 9), True),
        (Real(0, 1), 1.01),
        (Real(0, 1, step=0.5), 0.3),
        (Subset(3, 2), [1, 1]),
        (Subset(3, 2), [1, 3]),
        (Subset(3, 2), 1),
        (Subset(3, None), [0, 0]),
    ],
)
def test_what_is_outside_is_refused(domain: Domain, answer: object) -> None:
    assert not domain.contains(answer)
    with pytest.raises(NasError, match="the answer must be"):
        domain.canonical(answer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical([]), "at least one candidate"),
        (lambda: Categorical([1, 2, 1]), "must differ, but 1 stands there twice"),
        (lambda: Categorical([True, 1]), "must differ"),
        (lambda: Categorical([object()]), "value that JSON can hold"),
        (lambda: Categorical([math.nan]), "value that JSON can hold"),
        (lambda: Categorical("abc"), "must be a list or tuple"),
        (lambda: Integer(5, 3), "low must not exceed high; received \\(5, 3\\)"),
        (lambda: Integer(1, 3, step=0), "step must be positive"),
        (lambda: Integer(0, 3, log=True), "log scale needs low above 0"),
        (lambda: Integer(1.5, 3), "low must be an int; received 1.5. To mend: use Real"),  # type: ignore[arg-type]
        (lambda: Real(1, math.inf), "high must be a finite number"),
        (lambda: Real(1, 2, step=0.1, log=True), "takes no step"),
        (lambda: Real(2, 1), "low must not exceed high"),
        (lambda: Subset(2, 3), "without repeating one"),
    ],
)
def test_impossible_domains_are_refused(make: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        make()  # type: ignore[operator]
    assert isinstance(caught.value, NasError)


def test_intervals_have_infinitely_many_answers_and_no_list() -> None:
    assert Real(0, 1).size == math.inf
    with pytest.raises(NasError, match="give it a step"):
        Real(0, 1).values()


def test_equal_domains_allow_the_same() -> None:
    assert Categorical([1, 2]) == Categorical((1, 2)) != Categorical([2, 1])
    assert Categorical([1]) != Categorical([True])
    assert Integer(1, 3) != Real(1, 3)
    assert len({Integer(1, 3), Integer(1, 3), Integer(1, 3, log=True)}) == 2


def test_the_ends_of_an_interval_are_answers() -> None:
    for domain in (Real(0.1, 0.7), Real(1e-4, 0.3, log=True), Integer(1, 1000, log=True), Real(0, 1, step=0.3)):
        assert (domain.from_unit(0), domain.from_unit(1)) == (domain.low, domain.high)


def test_what_is_drawn_more_often_says_so() -> None:
    assert Categorical([1, 2]).uniform
    assert Integer(1, 9).uniform
    assert not Integer(1, 9, log=True).uniform
    assert not Real(1, 9, log=True).uniform
