"""The one table of our strategies: what the contract, golden, resume, benchmark and documentation tests go through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

from nas.protocols import Strategy
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


@final
@dataclass(frozen=True, kw_only=True)
class ListedStrategy:
    """A strategy with settings for a search of some tens of trials, and what it does not promise."""

    make: Callable[[], Strategy]
    """A new one."""
    usual: Callable[[], Strategy] | None = None
    """With the settings that the benchmark judges it by; None for one that it leaves out, a variant of another."""
    distinct: bool = True
    """See `StrategyContract`, for this and the next ones."""
    seeded: bool = True
    infinite: bool = True
    learns: bool = True
    objectives: int = 2
    follows: tuple[str, ...] = ()
    """The packages on whose version its proposals depend."""


def _nsga() -> Strategy:
    from optuna.samplers import NSGAIISampler

    return OptunaStrategy(NSGAIISampler(population_size=10))


STRATEGIES: Final[Mapping[str, ListedStrategy]] = MappingProxyType(
    {
        "Random": ListedStrategy(make=Random, usual=Random, learns=False),
        "Random with repeats": ListedStrategy(make=lambda: Random(distinct=False), distinct=False, learns=False),
        "GridSearch": ListedStrategy(make=GridSearch, usual=GridSearch, seeded=False, infinite=False, learns=False),
        "RegularizedEvolution": ListedStrategy(
            make=lambda: RegularizedEvolution(20, 5, initial=10), usual=RegularizedEvolution
        ),
        "RegularizedEvolution with crossover": ListedStrategy(
            make=lambda: RegularizedEvolution(10, 5, 0.2, crossover=True, remove="worst", initial=5)
        ),
        "LocalSearch": ListedStrategy(make=lambda: LocalSearch(5), usual=LocalSearch, objectives=1),
        "LocalSearch from anywhere": ListedStrategy(
            make=lambda: LocalSearch(initial=1, restart="random"), objectives=1
        ),
        "Anneal": ListedStrategy(make=lambda: Anneal(5), usual=Anneal, objectives=1),
        "TPE": ListedStrategy(make=TPE, usual=TPE, follows=("optuna",)),
        "NSGA-II": ListedStrategy(make=_nsga, follows=("optuna",)),
        "GaussianProcess": ListedStrategy(make=GaussianProcess, usual=GaussianProcess, objectives=1),
        "BANANAS": ListedStrategy(make=BANANAS, usual=BANANAS, objectives=1),
        "PPO": ListedStrategy(make=lambda: PPO(trials_per_update=5), usual=PPO, objectives=1, follows=("tianshou",)),
        "Chain": ListedStrategy(make=lambda: Chain([(Random(), 10), (LocalSearch(5), None)]), objectives=1),
    }
)
"""Every strategy of `nas.strategies` under its name, and variants that behave differently."""
