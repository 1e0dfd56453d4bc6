"""The first 30 proposals of each strategy for a fixed seed and table.

`python tests/strategies/test_golden.py` stores them. A change of a trajectory is one that users of a resumed search
notice: store it anew only on purpose.
"""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from nas import Sample, Strategy
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
from nas.testing import play, synthetic_table

STORED = Path(__file__).with_suffix(".json")
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "Random": Random,
    "GridSearch": GridSearch,
    "RegularizedEvolution": lambda: RegularizedEvolution(20, 5, initial=10),
    "RegularizedEvolution with crossover": lambda: RegularizedEvolution(
        10, 5, 0.2, crossover=True, remove="worst", initial=5
    ),
    "LocalSearch": lambda: LocalSearch(5),
    "Anneal": lambda: Anneal(5),
    "TPE": TPE,
    "NSGA-II": lambda: OptunaStrategy(optuna.samplers.NSGAIISampler(population_size=10)),
    "GaussianProcess": GaussianProcess,
    "BANANAS": BANANAS,
    "PPO": lambda: PPO(trials_per_update=5),
    "Chain": lambda: Chain([(Random(), 10), (LocalSearch(5), None)]),
}


def proposals(name: str) -> list[Sample]:
    return [trial.sample for trial in play(STRATEGIES[name](), synthetic_table("conditional", 0), 30, seed=7)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_trajectory_is_the_stored_one(name: str) -> None:
    stored = json.loads(STORED.read_text())
    # What is built on them follows them.
    for package, version in stored["versions"].items():
        if name in ("TPE", "NSGA-II", "PPO") and importlib.metadata.version(package) != version:
            pytest.skip(f"stored with {package} {version}")
    assert proposals(name) == stored["proposals"][name]


if __name__ == "__main__":
    versions = {package: importlib.metadata.version(package) for package in ("optuna", "tianshou")}
    found = {name: proposals(name) for name in STRATEGIES}
    lines = ",\n".join(
        f"  {json.dumps(name)}: [\n" + ",\n".join(f"    {json.dumps(sample)}" for sample in samples) + "\n  ]"
        for name, samples in found.items()
    )
    STORED.write_text(f'{{"versions": {json.dumps(versions)},\n"proposals": {{\n{lines}\n}}}}\n')
