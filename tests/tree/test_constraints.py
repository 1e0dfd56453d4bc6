"""Constraints: spaces of which only some samples are wanted."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from torch import nn

from nas import Answer, Constraint, Experiment, LayerChoice, ModelSpace, NasError, NasValueError, Sample, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch, Random, RegularizedEvolution


def network() -> nn.Module:
    width = ValueChoice([1, 2, 3, 4, 5], label="width")
    deep = LayerChoice(
        {"plain": nn.Identity, "deep": lambda: nn.Linear(width, ValueChoice([1, 2, 3], label="out"))}, label="kind"
    )
    return nn.Sequential(nn.Linear(2, width), deep)


@pytest.fixture
def space() -> ModelSpace:
    return ModelSpace(network)


class AtMost(Constraint):
    def __init__(self, width: int) -> None:
        self.width = width

    def allows(self, sample: Mapping[str, Answer]) -> bool:
        return int(sample["width"]) <= self.width

    def check(self) -> None:
        if self.width < 1:
            raise NasValueError("no width is below 1")

    def __repr__(self) -> str:
        return f"width <= {self.width}"


def test_sampling_grid_and_mutation_keep_to_it(space: ModelSpace) -> None:
    narrow = space.where(AtMost(2))
    assert {narrow.sample(seed)["width"] for seed in range(50)} == {1, 2}
    assert len(list(narrow.grid())) == 2 * 4
    assert narrow.size == space.size == 20
    for seed in range(50):
        assert narrow.mutate({"width": 2, "kind": "deep", "out": 1}, seed)["width"] <= 2
    assert {space.sample(seed, where=AtMost(2))["width"] for seed in range(50)} == {1, 2}
    assert list(space.grid()) != list(narrow.grid())


def test_constraints_add_up_and_functions_serve(space: ModelSpace) -> None:
    both = space.where(AtMost(2)).where(lambda sample: sample["kind"] == "deep")
    assert [sample["width"] for sample in both.grid()] == [1, 1, 1, 2, 2, 2]
    joint = AtMost(3) & AtMost(2)
    assert repr(joint) == "width <= 3 and width <= 2"
    assert [s["width"] for s in space.where(joint).grid() if s["kind"] == "plain"] == [1, 2]


def test_what_is_not_allowed_is_not_of_the_space(space: ModelSpace) -> None:
    narrow = space.where(AtMost(2))
    assert not narrow.contains({"width": 3, "kind": "plain"})
    with pytest.raises(NasValueError, match="does not satisfy the constraint, but received width <= 2|width <= 2"):
        narrow.validate({"width": 3, "kind": "plain"})
    assert narrow.contains({"width": 2, "kind": "plain"})


def test_a_mutant_may_be_further_away_where_no_neighbour_is_allowed(space: ModelSpace) -> None:
    corners = space.where(lambda sample: (sample["width"] == 5) == (sample["kind"] == "deep"))
    start: Sample = {"width": 5, "kind": "deep", "out": 1}
    found = [corners.mutate(start, seed) for seed in range(30)]
    assert all(corners.contains(sample) for sample in found)
    lonely = space.where(lambda sample: sample == start or (sample["width"] == 1 and sample["kind"] == "plain"))
    assert {lonely.mutate(start, seed)["width"] for seed in range(10)} == {1, 5}


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (AtMost(0), "no width is below 1"),
        (3, "a constraint is a nas.Constraint or a function"),
    ],
)
def test_impossible_constraints_are_refused_at_once(space: ModelSpace, constraint: AtMost, message: str) -> None:
    with pytest.raises(NasError, match=message):
        space.where(constraint)
    with pytest.raises(NasError, match=message):
        space.sample(0, where=constraint)


def test_a_function_that_allows_nothing_is_found_out(space: ModelSpace) -> None:
    with pytest.raises(NasValueError, match="none of 100,000 draws"):
        space.sample(0, where=lambda sample: False)


@pytest.fixture
def search(space: ModelSpace, tmp_path: Path) -> Callable[..., Experiment]:
    def make(where: Constraint | None, strategy: object = None, resume: bool = False) -> Experiment:
        return Experiment(
            space if where is None else space.where(where),
            FunctionalEvaluator(lambda model: model[0].out_features),
            strategy or GridSearch(),
            name="narrow",
            directory=tmp_path,
            resume=resume,
        )

    return make


def test_experiments_search_what_is_left(search: Callable[..., Experiment]) -> None:
    experiment = search(AtMost(2))
    experiment.run(progress="silent")
    assert len(experiment.trials) == 8
    assert experiment.best_trial.value == 2
    with pytest.raises(NasError, match="constraint: 'width <= 2' then, 'width <= 3' now"):
        search(AtMost(3), resume=True)
    with pytest.raises(NasError, match="constraint: 'width <= 2' then, None now"):
        search(None, resume=True)


def test_queued_samples_must_be_allowed(search: Callable[..., Experiment]) -> None:
    experiment = search(AtMost(2))
    with pytest.raises(NasValueError, match="does not satisfy"):
        experiment.enqueue({"width": 4})


def test_mutators_keep_the_constraint(space: ModelSpace) -> None:
    assert space.where(AtMost(1)).with_mutators(()).sample(3)["width"] == 1


@pytest.mark.parametrize("strategy", [Random(), RegularizedEvolution(4, 2)])
def test_other_strategies_end_when_all_that_is_allowed_was_tried(
    search: Callable[..., Experiment], strategy: object
) -> None:
    experiment = search(AtMost(2), strategy)
    experiment.run(progress="silent")
    assert len(experiment.trials) == 8
