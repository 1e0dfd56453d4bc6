"""The contract of strategies, for ours and for one that a third party might write."""

from typing import final

import optuna
import pytest

from nas import Sample, Strategy, Task, Trial
from nas.strategies import (
    BANANAS,
    PPO,
    TPE,
    Anneal,
    Chain,
    GaussianProcess,
    GridSearch,
    LocalSearch,
    OptunaStrategy,
    Random,
    RegularizedEvolution,
)
from nas.testing import StrategyContract


class TestRandom(StrategyContract):
    learns = False

    def make(self) -> Strategy:
        return Random()


class TestRandomWithRepeats(StrategyContract):
    distinct = False
    learns = False

    def make(self) -> Strategy:
        return Random(distinct=False)


class TestGridSearch(StrategyContract):
    seeded = False
    infinite = False
    learns = False

    def make(self) -> Strategy:
        return GridSearch()


class TestRegularizedEvolution(StrategyContract):
    def make(self) -> Strategy:
        return RegularizedEvolution()


class TestEvolutionWithCrossover(StrategyContract):
    def make(self) -> Strategy:
        return RegularizedEvolution(20, 5, 0.2, crossover=True, remove="worst")


class TestLocalSearch(StrategyContract):
    objectives = 1

    def make(self) -> Strategy:
        return LocalSearch()


class TestLocalSearchFromAnywhere(StrategyContract):
    objectives = 1

    def make(self) -> Strategy:
        return LocalSearch(initial=1, restart="random")


class TestAnneal(StrategyContract):
    objectives = 1

    def make(self) -> Strategy:
        return Anneal()


class TestTPE(StrategyContract):
    def make(self) -> Strategy:
        return TPE()


class TestNSGAII(StrategyContract):
    def make(self) -> Strategy:
        return OptunaStrategy(optuna.samplers.NSGAIISampler(population_size=10))


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


class TestGaussianProcess(StrategyContract):
    objectives = 1

    def make(self) -> Strategy:
        return GaussianProcess()


class TestBANANAS(StrategyContract):
    objectives = 1

    def make(self) -> Strategy:
        return BANANAS()


class TestPPO(StrategyContract):
    objectives = 1

    def make(self) -> Strategy:
        return PPO(trials_per_update=10)


class TestChain(StrategyContract):
    objectives = 1

    def make(self) -> Strategy:
        return Chain([(Random(), 8), (TPE(), 12), (LocalSearch(), None)])


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
