"""Tables whose every answer is known."""

import json

import pytest

from nas import NasValueError, Sample
from nas.strategies import GridSearch, Random
from nas.testing import play, synthetic_table


def key(sample: Sample) -> str:
    return json.dumps(sample, sort_keys=True)


@pytest.mark.parametrize("name", ["conditional", "deceptive"])
def test_best_and_mean_are_those_of_the_grid(name: str) -> None:
    table = synthetic_table(name, seed=3)  # type: ignore[arg-type]
    values = [trial.value or 0.0 for trial in play(GridSearch(), table, int(table.space.size))]
    assert len(values) == table.space.size
    assert max(values) == pytest.approx(table.best)
    assert sum(values) / len(values) == pytest.approx(table.mean)
    assert table.regret(table.best) == 0
    assert table.regret(table.mean) == 1


def test_the_seed_makes_the_table() -> None:
    sample = synthetic_table("flat").space.sample(0)
    values = [synthetic_table("flat", seed).value(sample) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    assert synthetic_table("flat", 1).space.size == 5**8


def test_the_deceptive_table_leads_astray() -> None:
    table = synthetic_table("deceptive", 0)
    values = {key(sample): table.value(sample) for sample in table.space.grid()}
    climbed = []
    for seed in range(30):
        place = table.space.sample(seed)
        while True:
            near = [{**place, n: a} for n, domain in table.space.domains.items() for a in domain.values()]
            best = max(near, key=lambda sample: values[key(sample)])
            if values[key(best)] <= values[key(place)]:
                break
            place = best
        climbed.append(values[key(place)])
    assert sum(value >= table.best - 1e-9 for value in climbed) < 6


def test_play_ends_with_the_space() -> None:
    table = synthetic_table("conditional", 0)
    assert len(play(Random(), table, 20, seed=1)) == 20
    assert play(Random(), table, 20, seed=1) == play(Random(), table, 20, seed=1)
    with pytest.raises(NasValueError, match="unknown table; did you mean 'flat'"):
        synthetic_table("falt")  # type: ignore[arg-type]
