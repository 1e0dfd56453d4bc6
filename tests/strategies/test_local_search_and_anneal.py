"""Local search and annealing beyond the contract."""

from typing import Any

import pytest

from nas import (
    Categorical,
    Integer,
    NasValueError,
    Real,
    Sample,
    SearchSpace,
    Strategy,
    Subset,
    Task,
    Trial,
    TrialState,
)
from nas.strategies import Anneal, LocalSearch
from nas.testing import synthetic_table

SPACE = SearchSpace.of({name: Categorical(range(4)) for name in "abcd"})


def step(strategy: Strategy, number: int, value: Any) -> Sample:
    sample = strategy.ask(number)
    strategy.tell(Trial(number=number, sample=sample))
    done = Trial(number=number, sample=sample, state=TrialState.COMPLETE, values=(float(value(sample)),))
    strategy.tell(done)
    return sample


def distance(left: Sample, right: Sample) -> int:
    return sum(left[label] != right[label] for label in left)


def test_a_climb_tries_every_neighbour_of_the_top_and_then_begins_anew() -> None:
    """12 neighbours at distance 1; when none is better, the next sample lies further away."""
    strategy = LocalSearch(initial=1, strength=3)
    strategy.start(Task(space=SPACE, seed=1))
    top = step(strategy, 0, lambda sample: 10)
    neighbours = [step(strategy, number, lambda sample: -distance(sample, top)) for number in range(1, 13)]
    assert [distance(sample, top) for sample in neighbours] == [1] * 12
    assert len({str(sample) for sample in neighbours}) == 12
    assert distance(strategy.ask(13), top) > 1


def test_it_moves_on_at_the_first_better_neighbour() -> None:
    strategy = LocalSearch(initial=1)
    strategy.start(Task(space=SPACE, seed=1))
    before = step(strategy, 0, lambda sample: 0)
    for number in range(1, 7):
        sample = step(strategy, number, lambda sample, number=number: number)
        assert distance(sample, before) == 1
        before = sample


@pytest.mark.parametrize("restart", ["random", "perturb"])
def test_restarts_leave_a_local_optimum(restart: Any) -> None:
    table = synthetic_table("deceptive", 1)
    strategy = LocalSearch(initial=5, restart=restart)
    strategy.start(Task(space=table.space, seed=0))
    values = [table.value(step(strategy, number, table.value)) for number in range(1500)]
    assert table.regret(max(values)) < 0.05


def test_annealing_goes_downhill_at_first_and_not_at_last() -> None:
    def places(temperature: float) -> int:
        strategy = Anneal(initial=1, temperature=temperature, cooling=0.9)
        strategy.start(Task(space=SearchSpace.of({name: Categorical(range(9)) for name in "abcdef"}), seed=2))
        found, before = [], None
        for number in range(80):
            step(strategy, number, lambda sample: sum(sample.values()))
            place = strategy._place
            found.append(before is not None and place is not None and place.value < before)  # type: ignore[operator]
            before = place.value if place is not None else None
        assert not any(found[60:])
        return sum(found)

    assert places(0.0) == 0
    assert places(3.0) > 1


def test_large_domains_of_numbers_are_searched_nearby() -> None:
    import random

    rng = random.Random(0)
    rate = Real(1e-4, 1e-1, log=True)
    steps = [rate.near(1e-2, rng) for _ in range(300)]
    assert all(rate.contains(answer) and answer != 1e-2 for answer in steps)
    close = sum(abs(rate.to_unit(answer) - rate.to_unit(1e-2)) < 0.15 for answer in steps)
    assert 170 < close < 240  # one standard deviation
    even = Integer(0, 1000, step=2)
    assert all(even.contains(answer) for answer in even.neighbours(500, rng))
    assert Integer(1, 4).neighbours(3, rng) == [1, 2, 4]
    assert Subset(2, None).neighbours([0], rng) == [[], [1], [0, 1]]
    stepped = Real(0, 10, step=0.1)
    assert all(stepped.contains(answer) for answer in stepped.neighbours(0.3, rng))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(NasValueError, match='restart must be "random" or "perturb"; received'):
        LocalSearch(restart="again")  # type: ignore[arg-type]
    with pytest.raises(NasValueError, match="initial must be an int from 1 on"):
        LocalSearch(0)
    with pytest.raises(NasValueError, match="Anneal: cooling must be a number from 0 to 1; received 1.5"):
        Anneal(cooling=1.5)
