"""Domains that nobody here wrote: each strategy searches them, or refuses them by their label when it is started."""

import itertools
import json
import math
import random
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from statistics import NormalDist

import optuna
import pytest
from torch import nn

from nas import Categorical, Domain, Experiment, NasValueError, Real, SearchSpace, Task, Trial, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import BANANAS, TPE, GaussianProcess, Random
from nas.testing import STRATEGIES, DomainContract


class Order(Domain):
    """The orders of n things; beyond the list of them nothing is said."""

    def __init__(self, n: int) -> None:
        self.n = n

    @property
    def size(self) -> int:
        return math.factorial(self.n)

    @property
    def first(self) -> tuple[int, ...]:
        return tuple(range(self.n))

    def canonical(self, answer: object) -> tuple[int, ...]:
        if isinstance(answer, list | tuple) and sorted(answer) == list(range(self.n)):
            return tuple(answer)
        raise self.outside(answer)

    def sample(self, rng: random.Random) -> tuple[int, ...]:
        return tuple(rng.sample(range(self.n), self.n))

    def values(self) -> Iterator[tuple[int, ...]]:
        return itertools.permutations(range(self.n))

    def identity(self) -> tuple[Hashable, ...]:
        return ("order", self.n)


class KnownOrder(Order):
    """The same, with all that can be said of it."""

    def near(self, answer: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
        """Two exchanged."""
        i, j = rng.sample(range(self.n), 2)
        other = list(answer)
        other[i], other[j] = answer[j], answer[i]
        return tuple(other)

    @property
    def feature_width(self) -> int:
        return self.n * (self.n - 1) // 2

    def features(self, answer: tuple[int, ...]) -> list[float]:
        """Which of two comes first."""
        return [float(answer.index(i) < answer.index(j)) for i, j in itertools.combinations(range(self.n), 2)]

    @property
    def decisions(self) -> tuple[int, ...]:
        return (self.n,) * self.n

    def decide(self, choose, rng):  # type: ignore[no-untyped-def]
        taken: list[int] = []
        for place in range(self.n):
            taken.append(choose(place, tuple(i for i in range(self.n) if i not in taken)))
        return tuple(taken)

    def decided(self, answer: tuple[int, ...]) -> list[int]:
        return list(answer)

    def parameters(self) -> Mapping[str, Domain]:
        """Each thing has a number, and they stand in the order of these."""
        return {f"[{i}]": Real(0, 1) for i in range(self.n)}

    def to_parameters(self, answer: tuple[int, ...]) -> dict[str, float]:
        return {f"[{i}]": (answer.index(i) + 0.5) / self.n for i in range(self.n)}

    def from_parameters(self, values: Mapping[str, float]) -> tuple[int, ...]:
        return tuple(sorted(range(self.n), key=lambda i: values[f"[{i}]"]))


class Words(Domain):
    """Words of any length: infinitely many, and no numbers."""

    @property
    def size(self) -> float:
        return math.inf

    @property
    def first(self) -> str:
        return "a"

    def canonical(self, answer: object) -> str:
        if isinstance(answer, str) and answer and set(answer) <= set("abc"):
            return answer
        raise self.outside(answer)

    def sample(self, rng: random.Random) -> str:
        return "".join(rng.choices("abc", k=1 + int(rng.expovariate(0.2))))

    def values(self) -> Iterator[str]:
        raise NasValueError("words cannot be listed")

    def identity(self) -> tuple[Hashable, ...]:
        return ("words",)


class Normal(Domain):
    """Infinitely many numbers, of which those near the mean are drawn most often."""

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation = mean, deviation

    @property
    def _curve(self) -> NormalDist:
        return NormalDist(self.mean, self.deviation)

    @property
    def size(self) -> float:
        return math.inf

    @property
    def first(self) -> float:
        return self.mean

    @property
    def uniform(self) -> bool:
        return False

    @property
    def numeric(self) -> bool:
        return True

    def canonical(self, answer: object) -> float:
        if isinstance(answer, int | float) and math.isfinite(answer):
            return float(answer)
        raise self.outside(answer)

    def sample(self, rng: random.Random) -> float:
        return rng.gauss(self.mean, self.deviation)

    def values(self) -> Iterator[float]:
        raise NasValueError("numbers cannot be listed")

    def identity(self) -> tuple[Hashable, ...]:
        return ("normal", self.mean, self.deviation)

    def to_unit(self, answer: float) -> float:
        return self._curve.cdf(answer)

    def from_unit(self, position: float) -> float:
        return self._curve.inv_cdf(min(1 - 1e-9, max(1e-9, position)))

    def parameters(self) -> Mapping[str, Domain]:
        return {"": Real(0, 1)}

    def to_parameters(self, answer: float) -> dict[str, float]:
        return {"": self.to_unit(answer)}

    def from_parameters(self, values: Mapping[str, float]) -> float:
        return self.from_unit(values[""])


class TestDomains(DomainContract):
    @pytest.fixture(
        autouse=True, params=[Order(1), Order(4), Order(8), KnownOrder(8), Words(), Normal(3.0, 0.5)], ids=repr
    )
    def chosen(self, request: pytest.FixtureRequest) -> None:
        self.domain: Domain = request.param

    def make(self) -> Domain:
        return type(self.domain)(*self.domain.identity()[1:])


MODELS = {"TPE", "NSGA-II", "GaussianProcess", "BANANAS", "PPO"}


@pytest.mark.parametrize(
    ("domain", "refusing"),
    [
        (Order(4), set()),
        (Order(8), MODELS),
        (KnownOrder(8), set()),
        (Words(), {*MODELS, "GridSearch"}),
        (Normal(0, 1), {"GridSearch"}),
    ],
    ids=lambda given: repr(sorted(given) if isinstance(given, set) else given),  # sets are in no order
)
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_searches_it_or_refuses_it_by_label(name: str, domain: Domain, refusing: set[str]) -> None:
    space = SearchSpace.of({"width": Categorical([16, 32]), "new": domain})
    strategy, listed = STRATEGIES[name].make(), STRATEGIES[name]
    if name in refusing:
        with pytest.raises(NasValueError, match=r"^label 'new': .*; received (order|words|normal)\(.*To mend: "):
            strategy.start(Task(space=space))
        return
    strategy.start(Task(space=space, seed=2))
    found = []
    for number in range(22):
        sample = strategy.ask(number)
        assert strategy.ask(number) == sample == space.validate(sample)
        strategy.tell(Trial(number=number, sample=sample))
        value = (float(sample["width"]) + len(repr(sample["new"])),)
        strategy.tell(Trial(number=number, sample=sample, state=TrialState.COMPLETE, values=value))
        found.append(repr(sample))
    assert not listed.distinct or len(set(found)) == len(found)


def network() -> nn.Module:
    order = ValueChoice(Order(3), label="order")
    return nn.ModuleList(nn.Linear(1, i + 1) for i in order)


def worth(model: nn.ModuleList, word: str, shift: float) -> float:
    return model[0].out_features + len(word) + shift  # type: ignore[operator]


def experiment(folder: Path, strategy: Random | TPE | GaussianProcess | BANANAS, *, resume: bool = False) -> Experiment:
    return Experiment(
        network,
        FunctionalEvaluator(worth, word=Words(), shift=Normal(0, 1)),
        strategy,
        name="new",
        directory=folder,
        resume=resume,
    )


def test_the_ledger_keeps_it(tmp_path: Path) -> None:
    """Its answers come back from the journal as they were; Optuna sees what the domain says of itself."""
    first = experiment(tmp_path, Random())
    first.run(5, progress="silent")
    again = experiment(tmp_path, Random(), resume=True)
    assert again.trials == first.trials
    assert all(type(trial.sample["order"]) is tuple for trial in again.trials)
    again.run(8, progress="silent")
    whole = experiment(tmp_path / "whole", Random())
    whole.run(8, progress="silent")
    assert [trial.sample for trial in again.trials] == [trial.sample for trial in whole.trials]
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "new" / "journal.log"))
    study = optuna.load_study(study_name="new", storage=optuna.storages.JournalStorage(backend))
    for stored, trial in zip(study.trials, again.trials, strict=True):
        assert stored.params == {
            "order": json.dumps(trial.sample["order"]),
            "shift": Normal(0, 1).to_unit(trial.sample["shift"]),
        }


@pytest.mark.parametrize("strategy", [TPE(), GaussianProcess(), BANANAS()], ids=lambda s: type(s).__name__)
def test_an_experiment_refuses_it_before_any_trial(tmp_path: Path, strategy: TPE | GaussianProcess | BANANAS) -> None:
    with pytest.raises(NasValueError, match=r"label 'word': .*; received words\(\)"):
        experiment(tmp_path, strategy).run(3, progress="silent")
    assert not experiment(tmp_path, Random(), resume=True).trials
