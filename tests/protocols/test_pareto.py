"""Fronts, crowding and hypervolume, against the definitions."""

import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nas
from nas import Experiment, NasValueError, Objectives, Trial, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.protocols.pareto import crowding, dominates, fronts, hypervolume
from nas.strategies import GridSearch

points = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 5).map(float)] * width), min_size=1, max_size=12)
)


@given(points)
def test_fronts_are_what_is_left_when_those_before_are_taken_away(found: list[tuple[float, ...]]) -> None:
    numbers = fronts(found)
    for number in range(max(numbers) + 1):
        left = [p for p, n in zip(found, numbers, strict=True) if n >= number]
        front = [p for p, n in zip(found, numbers, strict=True) if n == number]
        assert sorted(front) == sorted(p for p in left if not any(dominates(q, p) for q in left))


@given(points)
@settings(max_examples=60)
def test_hypervolume_counts_the_dominated_cells(found: list[tuple[float, ...]]) -> None:
    reference = (5.0,) * len(found[0])
    cells = [()]
    for _ in reference:
        cells = [(*cell, i) for cell in cells for i in range(5)]
    dominated = sum(any(all(a <= c for a, c in zip(p, cell, strict=True)) for p in found) for cell in cells)
    assert hypervolume(found, reference) == pytest.approx(dominated)


def test_crowding_is_the_perimeter_between_the_neighbours() -> None:
    assert crowding([(0.0, 10.0), (2.0, 5.0), (3.0, 4.0), (10.0, 0.0)]) == [math.inf, 0.3 + 0.6, 0.8 + 0.5, math.inf]
    assert crowding([(1.0, 1.0)]) == [math.inf]
    assert crowding([]) == []


def trial(number: int, *values: float, state: TrialState = TrialState.COMPLETE) -> Trial:
    return Trial(number=number, sample={"a": number}, state=state, values=values)


def test_ranking_goes_front_after_front() -> None:
    objectives = Objectives({"accuracy": "maximize", "latency": "minimize"})
    trials = [trial(0, 0.5, 9.0), trial(1, 0.9, 5.0), trial(2, 0.8, 1.0), trial(3, 0.7, 6.0)]
    assert [t.number for t in objectives.pareto_front(trials)] == [1, 2]
    assert [t.number for t in objectives.rank(trials)] == [1, 2, 3, 0]


def test_ranking_of_thousands_is_quick_enough_to_use() -> None:
    rng = random.Random(0)
    trials = [trial(i, rng.random(), rng.random()) for i in range(2000)]
    ranked = Objectives({"a": "maximize", "b": "minimize"}).rank(trials)
    assert len(ranked) == 2000


def test_an_experiment_tells_its_hypervolume(tmp_path: Path) -> None:
    def two(model: nn.Linear) -> dict[str, float]:
        return {"quality": float(model.out_features), "cost": float(model.out_features**2)}

    experiment = Experiment(
        lambda: nn.Linear(1, ValueChoice([1, 2, 3], label="width")),
        FunctionalEvaluator(two),
        GridSearch(),
        name="two",
        directory=tmp_path,
        objective={"quality": "maximize", "cost": "minimize"},
    )
    experiment.run(progress="silent")
    assert [t.sample["width"] for t in experiment.pareto_front] == [3, 2, 1]
    # The staircase of quality 1, 2, 3 at costs 1, 4, 9, up to cost 10.
    assert experiment.hypervolume({"quality": 0.0, "cost": 10.0}) == 9 + 6 + 1
    assert experiment.hypervolume((0.0, 10.0)) == 16
    with pytest.raises(NasValueError, match="one number for each objective, quality, cost"):
        experiment.hypervolume({"quality": 0.0})


def test_weighted_product_is_the_equation_of_the_paper() -> None:
    reward = nas.objectives.weighted_product
    assert reward(0.75, 80.0, target=80.0) == 0.75
    assert reward(0.75, 160.0, target=80.0) == pytest.approx(0.75 * 2**-0.07)
    assert reward(0.75, 40.0, target=80.0, alpha=-0.1, beta=-1.0) == pytest.approx(0.75 * 2**0.1)
    assert reward(0.75, 160.0, target=80.0, alpha=0.0, beta=-1.0) == 0.375
    for wrong in ((0.5, 0.0, 1.0), (0.5, 1.0, -1.0), (-0.5, 1.0, 1.0), (math.nan, 1.0, 1.0)):
        with pytest.raises(NasValueError, match="weighted_product"):
            reward(*wrong)
