"""Random and grid search beyond the contract."""

import time

import pytest

from nas import Categorical, SearchSpace, SearchSpaceExhausted, Task, Trial
from nas.strategies import GridSearch, Random

HUGE = SearchSpace.of({f"choice {i}": Categorical(range(10)) for i in range(25)})


def test_grid_starts_at_once_on_a_huge_space() -> None:
    assert HUGE.size == 10**25
    grid = GridSearch()
    grid.start(Task(space=HUGE))
    begin = time.monotonic()
    first = grid.ask(0)
    grid.tell(Trial(number=0, sample=first))
    second = grid.ask(1)
    assert time.monotonic() - begin < 5
    assert set(first.values()) == {0}
    assert second == {**first, "choice 24": 1}


@pytest.mark.parametrize("strategy", [Random(), GridSearch()])
def test_exhaustion_names_how_many_were_tried(strategy: Random | GridSearch) -> None:
    strategy.start(Task(space=SearchSpace.of({"a": Categorical([1, 2, 3])})))
    for number in range(3):
        strategy.tell(Trial(number=number, sample=strategy.ask(number)))
    with pytest.raises(SearchSpaceExhausted, match="all 3 samples have been tried"):
        strategy.ask(3)


def test_random_finds_the_last_sample_of_a_skewed_space() -> None:
    space = SearchSpace.of({"a": Categorical(range(5000))})
    random = Random()
    random.start(Task(space=space))
    for number in range(4999):
        random.tell(Trial(number=number, sample={"a": number}))
    assert random.ask(4999) == {"a": 4999}


def test_distinct_can_be_switched_off() -> None:
    random = Random(distinct=False)
    random.start(Task(space=SearchSpace.of({"a": Categorical([1, 2])})))
    drawn = set()
    for number in range(20):
        sample = random.ask(number)
        random.tell(Trial(number=number, sample=sample))
        drawn.add(sample["a"])
    assert drawn == {1, 2}
