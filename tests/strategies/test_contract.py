"""The contract of strategies, for ours and for one that a third party might write."""

from typing import final

from nas import Sample, Strategy, Task, Trial
from nas.strategies import GridSearch, Random
from nas.testing import StrategyContract


class TestRandom(StrategyContract):
    def make(self) -> Strategy:
        return Random()


class TestRandomWithRepeats(StrategyContract):
    distinct = False

    def make(self) -> Strategy:
        return Random(distinct=False)


class TestGridSearch(StrategyContract):
    seeded = False
    infinite = False

    def make(self) -> Strategy:
        return GridSearch()


@final
class HillClimb(Strategy):
    def start(self, task: Task) -> None:
        self.task, self.best = task, None

    def ask(self, number: int) -> Sample:
        rng = self.task.rng(number)
        return self.task.space.sample(rng) if self.best is None else self.task.space.mutate(self.best.sample, rng)

    def tell(self, trial: Trial) -> None:
        better = trial.values is not None and (self.best is None or trial.values > self.best.values)
        self.best = trial if better else self.best


class TestThirdParty(StrategyContract):
    distinct = False

    def make(self) -> Strategy:
        return HillClimb()


class Forgetful(Strategy):
    """Breaks the rules: asking changes it."""

    def start(self, task: Task) -> None:
        self.task, self.asked = task, 0

    def ask(self, number: int) -> Sample:
        self.asked += 1
        return self.task.space.sample(self.asked)

    def tell(self, trial: Trial) -> None:
        pass


def test_the_suite_notices_a_strategy_that_changes_when_asked() -> None:
    class Contract(StrategyContract):
        def make(self) -> Strategy:
            return Forgetful()

    try:
        Contract().test_asking_changes_nothing()
    except AssertionError:
        return
    raise RuntimeError("the contract let a rule-breaker pass")
