"""Regularized evolution beyond the contract."""

import itertools
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import Categorical, Experiment, NasTypeError, NasValueError, SearchSpace, Task, Trial, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random, RegularizedEvolution
from nas.testing import synthetic_table

SPACE = SearchSpace.of({name: Categorical(range(5)) for name in "abcdef"})


def finished(number: int, sample: dict[str, Any], *values: float) -> Trial:
    return Trial(number=number, sample=sample, state=TrialState.COMPLETE, values=values)


def feed(strategy: RegularizedEvolution, trials: list[Trial], **task: Any) -> None:
    strategy.start(Task(space=SPACE, **task))
    for trial in trials:
        strategy.tell(Trial(number=trial.number, sample=trial.sample))
        strategy.tell(trial)


def changed(sample: dict[str, Any], parent: dict[str, Any]) -> int:
    return sum(sample[label] != parent[label] for label in parent)


BEST = dict.fromkeys("abcdef", 0)
OTHERS = [dict.fromkeys("abcdef", i) for i in (1, 2, 3, 4)]


def test_a_child_differs_in_exactly_one_choice_from_the_winner() -> None:
    strategy = RegularizedEvolution(5, 5, initial=1)
    feed(strategy, [finished(0, BEST, 9.0), *(finished(i, o, 1.0) for i, o in enumerate(OTHERS, 1))])
    assert {changed(strategy.ask(number), BEST) for number in range(50)} == {1}


def test_a_probability_changes_each_choice_independently() -> None:
    strategy = RegularizedEvolution(5, 5, 0.5, initial=1)
    feed(strategy, [finished(0, BEST, 9.0), *(finished(i, o, 1.0) for i, o in enumerate(OTHERS, 1))])
    counts = [changed(strategy.ask(number), BEST) for number in range(200)]
    assert min(counts) >= 1  # the winner itself has been tried
    assert 2.7 < sum(counts) / len(counts) < 3.5


@pytest.mark.parametrize(("remove", "parent"), [("oldest", 1), ("worst", 0)])
def test_who_leaves(remove: Any, parent: int) -> None:
    # The best is the oldest: it leaves by age, and stays by worth.
    strategy = RegularizedEvolution(4, 4, initial=1, remove=remove)
    told = [finished(0, BEST, 9.0), finished(1, OTHERS[0], 5.0)]
    told += [finished(i, o, 1.0) for i, o in enumerate(OTHERS[1:], 2)]
    feed(strategy, told)
    expected = [BEST, OTHERS[0]][parent]
    assert all(changed(strategy.ask(number), expected) == 1 for number in range(20))


def test_crossover_takes_each_choice_from_one_of_the_winners() -> None:
    strategy = RegularizedEvolution(2, 1, 0.0, crossover=True, initial=1)
    feed(strategy, [finished(0, BEST, 9.0), finished(1, OTHERS[0], 8.0)])
    mixed = [strategy.ask(number) for number in range(30)]
    of_both = [s for s in mixed if set(s.values()) == {0, 1}]
    assert len(of_both) > 5


def test_crossover_and_mutation_respect_conditions() -> None:
    space = synthetic_table("conditional", 0).space
    strategy = RegularizedEvolution(10, 2, 0.3, crossover=True, initial=5)
    strategy.start(Task(space=space))
    for number in range(200):
        sample = strategy.ask(number)
        assert space.validate(sample) == sample
        strategy.tell(Trial(number=number, sample=sample))
        strategy.tell(finished(number, sample, random.Random(number).random()))


def test_the_tournament_goes_by_front_and_crowding() -> None:
    task = {"directions": ("maximize", "minimize")}
    strategy = RegularizedEvolution(5, 5, initial=1)
    # 1 and 2 are on the first front; 0, 3 and 4 are dominated.
    front = [finished(1, OTHERS[0], 9.0, 2.0), finished(2, OTHERS[1], 8.0, 1.0)]
    rest = [finished(0, BEST, 1.0, 9.0), finished(3, OTHERS[2], 2.0, 8.0), finished(4, OTHERS[3], 7.0, 7.0)]
    feed(strategy, [*front, *rest], **task)
    children = [strategy.ask(number) for number in range(20)]
    assert all(1 in (changed(child, OTHERS[0]), changed(child, OTHERS[1])) for child in children)
    # All three are on the front, and the one in the middle is crowded.
    crowded = [finished(0, BEST, 5.0, 5.0), finished(1, OTHERS[0], 9.0, 9.0), finished(2, OTHERS[1], 1.0, 1.0)]
    feed(strategy, crowded, **task)
    assert all(changed(strategy.ask(n), BEST) != 1 for n in range(20))


@pytest.mark.slow
def test_several_objectives_reach_a_better_front_than_chance(tmp_path: Path) -> None:
    def two(model: Any) -> dict[str, float]:
        answers = [layer.out_features for layer in model]
        spread = sum(abs(before - after) for before, after in itertools.pairwise(answers))
        return {"sum": float(sum(answers)), "spread": float(spread)}

    def search(strategy: Any, name: str) -> Experiment:
        experiment = Experiment(
            lambda: nn.ModuleList(nn.Linear(1, ValueChoice(list(range(1, 9)))) for _ in range(8)),
            FunctionalEvaluator(two),
            strategy,
            name=name,
            directory=tmp_path,
            objective={"sum": "maximize", "spread": "minimize"},
        )
        experiment.run(150, progress="silent")
        return experiment

    evolved, drawn = search(RegularizedEvolution(50, 10), "evolved"), search(Random(), "drawn")
    reference = {"sum": 8.0, "spread": 49.0}
    assert evolved.hypervolume(reference) > 1.1 * drawn.hypervolume(reference)
    front = [(-t.metrics["sum"], t.metrics["spread"]) for t in evolved.pareto_front]
    assert not any(a != b and all(x <= y for x, y in zip(a, b, strict=True)) for a in front for b in front)


def test_a_population_larger_than_the_budget_works_and_says_so_once(tmp_path: Path) -> None:
    experiment = Experiment(
        lambda: nn.Linear(1, ValueChoice(list(range(1, 400)))),
        FunctionalEvaluator(lambda model: model.out_features),
        RegularizedEvolution(),
        name="small",
        directory=tmp_path,
    )
    with pytest.warns(UserWarning, match=r"population_size=100\) in a search of 40 trials") as caught:
        experiment.run(40, progress="silent")
    assert len(caught) == 1
    assert len(experiment.trials) == 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiment.run(41, progress="silent")  # once is enough
        RegularizedEvolution(20).start(Task(space=SPACE, max_trials=40))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(
        NasValueError, match="RegularizedEvolution: population_size must be an int from 1 on; received 0"
    ):
        RegularizedEvolution(0)
    with pytest.raises(NasTypeError, match="sample_size must be an int from 1 to 10, or None; received 2.5"):
        RegularizedEvolution(10, 2.5)  # type: ignore[arg-type]
    with pytest.raises(NasValueError, match="mutation_probability must be a number from 0 to 1, or None; received 3"):
        RegularizedEvolution(mutation_probability=3)
    with pytest.raises(NasValueError, match='remove must be "oldest" or "worst"; received'):
        RegularizedEvolution(remove="youngest")  # type: ignore[arg-type]
