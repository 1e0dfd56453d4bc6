"""The contract of strategies, for ours and for one that a third party might write."""

from typing import final

import optuna
import pytest

from nas import Sample, Strategy, Task, Trial
from nas.strategies import OptunaStrategy
from nas.testing import STRATEGIES, ListedStrategy, StrategyContract

SLOW = [pytest.mark.slow]
LEARNING = ("PPO", "BANANAS")
"""These train networks: their contracts are among the slow tests, of which CI runs these."""


class TestOurs(StrategyContract):
    """All of the table."""

    listed: ListedStrategy

    @pytest.fixture(autouse=True, params=[pytest.param(n, marks=SLOW if n in LEARNING else []) for n in STRATEGIES])
    def of_the_table(self, request: pytest.FixtureRequest) -> None:
        self.listed = STRATEGIES[request.param]
        for promise in ("distinct", "seeded", "infinite", "learns", "objectives"):
            setattr(self, promise, getattr(self.listed, promise))

    def make(self) -> Strategy:
        return self.listed.make()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # the sampler's own, when it is made
class TestQMC(StrategyContract):
    learns = False

    def make(self) -> Strategy:
        return OptunaStrategy(optuna.samplers.QMCSampler(warn_independent_sampling=False))


class TestCMAES(StrategyContract):
    learns = False  # it models numbers only, and draws the rest
    objectives = 1

    def make(self) -> Strategy:
        return OptunaStrategy(optuna.samplers.CmaEsSampler(warn_independent_sampling=False))


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
    learns = False  # minimising is beyond it

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
