"""Strategies one after the other."""

import pytest

from nas import Categorical, NasTypeError, NasValueError, SearchSpace, SearchSpaceExhausted, Task, Trial
from nas.strategies import Chain, GridSearch, LocalSearch, Random
from nas.testing import play, synthetic_table

TABLE = synthetic_table("conditional", 2)


def samples(strategy: object, number: int) -> list[dict[str, object]]:
    return [trial.sample for trial in play(strategy, TABLE, number, seed=3)]  # type: ignore[arg-type]


def test_each_part_has_its_trials() -> None:
    found = samples(Chain([(Random(), 10), (GridSearch(), 5), (Random(), None)]), 30)
    assert found[:10] == samples(Random(), 10)
    grid = [sample for sample, _ in zip(TABLE.space.grid(), range(30), strict=False)]
    assert found[10:15] == [sample for sample in grid if sample not in found[:10]][:5]


def test_later_parts_have_learned_from_the_earlier_ones() -> None:
    found = play(Chain([(Random(), 40), (LocalSearch(initial=10), None)]), TABLE, 41, seed=3)
    best = max(found[:40], key=lambda trial: trial.value or 0.0).sample
    changed = {label for label in {*best, *found[40].sample} if best.get(label) != found[40].sample.get(label)}
    assert 1 <= len(changed) <= 5


def test_a_part_that_is_exhausted_hands_over() -> None:
    space = SearchSpace.of({"a": Categorical(range(4))})
    strategy = Chain([(GridSearch(), 100), (Random(distinct=False), None)])
    strategy.start(Task(space=space))
    for number in range(8):
        strategy.tell(Trial(number=number, sample=strategy.ask(number)))
    ended = Chain([(GridSearch(), 2), (GridSearch(), 1)])
    ended.start(Task(space=space))
    for number in range(3):
        ended.tell(Trial(number=number, sample=ended.ask(number)))
    with pytest.raises(SearchSpaceExhausted, match="the chain has come to its end"):
        ended.ask(3)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(NasValueError, match="at least one strategy"):
        Chain([])
    with pytest.raises(NasTypeError, match=r"a part of a chain is \(strategy, number of trials\)"):
        Chain([Random()])  # type: ignore[list-item]
    with pytest.raises(NasValueError, match="only the last part of a chain may go on for ever"):
        Chain([(Random(), None), (Random(), 3)])
    with pytest.raises(
        NasValueError, match="the number of trials of part 0 must be an int from 1 on, or None; received 0"
    ):
        Chain([(Random(), 0)])
