"""What makes an experiment the same as the one in the ledger."""

import pytest

from nas import ExperimentError
from nas.records.identity import refuse_differences

HEADER = {"space": {}, "code": {}, "parameters": {}}


@pytest.mark.parametrize("then", ["Own", "search.Own", "__main__.Own", "mine.strategies.Own"])
def test_where_the_class_of_a_strategy_lies_is_no_difference(then: str) -> None:
    assert refuse_differences(HEADER | {"strategy": then}, HEADER | {"strategy": "Own"}, "first") == []


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("nas.strategies.random.Random", "Random"),
        ("Random", "nas.strategies.random.Random"),
        ("one.Random", "another.Random"),
        ("MyOwn", "Own"),
    ],
)
def test_another_strategy_of_this_name_is_one(then: str, now: str) -> None:
    with pytest.raises(ExperimentError, match="strategy: "):
        refuse_differences(HEADER | {"strategy": then}, HEADER | {"strategy": now}, "first")
