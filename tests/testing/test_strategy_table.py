"""The table of strategies is whole: nothing of `nas.strategies` is forgotten."""

import nas.strategies
from nas import Strategy
from nas.testing import STRATEGIES


def test_every_strategy_stands_in_the_table() -> None:
    public = {name for name in nas.strategies.__all__ if issubclass(getattr(nas.strategies, name), Strategy)}
    listed = {type(listed.make()).__name__ for listed in STRATEGIES.values()}
    assert public == listed


def test_the_usual_settings_stand_under_the_name_of_the_class() -> None:
    usual = {name: type(listed.usual()).__name__ for name, listed in STRATEGIES.items() if listed.usual is not None}
    assert all(name == of_class for name, of_class in usual.items())
    # The others are made of other strategies.
    assert {type(listed.make()).__name__ for listed in STRATEGIES.values()} - set(usual) == {"Chain", "OptunaStrategy"}


def test_a_new_one_is_made_each_time() -> None:
    assert all(listed.make() is not listed.make() for listed in STRATEGIES.values())
