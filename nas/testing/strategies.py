"""The contract of strategies, as a pytest suite: subclass it, say how to make one, and run pytest."""

from __future__ import annotations

import math
import random
import statistics
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import final

from torch import nn

from nas.domains import Categorical, Domain, Integer, Real, Sample, Subset, sample_key
from nas.errors import NasError, NasValueError, SearchSpaceExhausted, explain
from nas.protocols import Direction, Strategy, Task, Trial, TrialState
from nas.space import InputChoice, LayerChoice, ModelSpace, Repeat, SearchSpace, ValueChoice
from nas.testing.comparison import refused

_BOTH: tuple[Direction, ...] = ("maximize", "minimize")


def _conditional() -> nn.Module:
    wide = LayerChoice(
        {"plain": nn.Identity, "wide": lambda: nn.Linear(4, ValueChoice([4, 8, 16], label="width"))}, label="layer"
    )
    blocks = Repeat(lambda i: LayerChoice([nn.ReLU, nn.Tanh]), (0, 3), label="depth")
    return nn.Sequential(wide, blocks, InputChoice(3, 2, label="inputs"))


def _conditional_and_small() -> nn.Module:
    """63 samples."""
    wide = LayerChoice(
        {"plain": nn.Identity, "wide": lambda: nn.Linear(4, ValueChoice([4, 8], label="width"))}, label="layer"
    )
    blocks = Repeat(lambda i: LayerChoice([nn.ReLU, nn.Tanh]), (0, 2), label="depth")
    return nn.Sequential(wide, blocks, InputChoice(3, 2, replace=False, label="inputs"))


@final
class _Words(Domain):
    """Words of the letters a to d, none of which says more than that it is one."""

    @property
    def size(self) -> float:
        return math.inf

    @property
    def first(self) -> str:
        return "a"

    def canonical(self, answer: object) -> str:
        if isinstance(answer, str) and answer and set(answer) <= set("abcd"):
            return answer
        raise self.outside(answer)

    def sample(self, rng: random.Random) -> str:
        return "".join(rng.choice("abcd") for _ in range(rng.randint(1, 12)))

    def values(self) -> Iterator[str]:
        raise NasValueError(explain("words of any length cannot be listed", got=self))

    def identity(self) -> tuple[Hashable, ...]:
        return ("words",)


def _flat() -> SearchSpace:
    return SearchSpace.of({name: Categorical([0, 1, 2, 3]) for name in "abcde"})


def _worth(sample: Sample) -> float:
    """A made-up value that depends on every answer."""
    return sum(random.Random(f"{label}={answer}").random() for label, answer in sample.items())


class StrategyContract(ABC):
    """What an experiment relies on. Subclass it in a test file under a name that begins with `Test`.

    Class attributes say what the strategy does not promise:
        distinct: it proposes no sample twice while there are others.
        seeded: its proposals depend on the seed.
        infinite: it takes intervals of reals; otherwise `start` refuses them.
        learns: what it proposes later is better than what it proposes first.
        objectives: how many objectives it takes; more are refused by `start`.

    Example:
        >>> from nas.strategies import Random
        >>> class TestRandom(StrategyContract):
        ...     learns = False
        ...     def make(self):
        ...         return Random()
        >>> TestRandom().test_asking_changes_nothing()
    """

    distinct = True
    seeded = True
    infinite = True
    learns = True
    objectives = 2

    @abstractmethod
    def make(self) -> Strategy:
        """A new strategy."""

    def _spaces(self) -> dict[str, SearchSpace]:
        domains: dict[str, Domain] = {
            "momentum": Real(0, 1, step=0.1),
            "batch": Integer(8, 64, step=8),
            "transforms": Subset(3, None),
            "views": Subset(4, 2),
            "order": Subset(3, 2, ordered=True),
            "steps": Integer(10, 1000, log=True),
        }
        if self.infinite:
            domains["rate"] = Real(1e-4, 1e-1, log=True)
        conditional = ModelSpace(_conditional).search_space
        return {
            "flat": _flat(),
            "conditional": conditional,
            "hyperparameters": conditional.joined(domains),
        }

    def _search(
        self, strategy: Strategy, task: Task, number: int, *, first: int = 0, state: TrialState = TrialState.COMPLETE
    ) -> list[Sample]:
        """Plays the experiment for `number` trials, one at a time; ends early when the strategy does."""
        found: list[Sample] = []
        for trial in range(first, first + number):
            try:
                sample = strategy.ask(trial)
            except SearchSpaceExhausted:
                break
            found.append(sample)
            strategy.tell(Trial(number=trial, sample=sample))
            strategy.tell(_ended(trial, sample, len(task.directions), state))
        return found

    def _started(self, task: Task) -> Strategy:
        strategy = self.make()
        strategy.start(task)
        return strategy

    def test_samples_are_valid(self) -> None:
        """In flat and conditional spaces, with hyperparameters of all domains, both ways."""
        spaces = self._spaces()
        for name, direction in [*zip(spaces, _BOTH, strict=False), *(("hyperparameters", way) for way in _BOTH)]:
            task = Task(space=spaces[name], directions=(direction,), seed=3)
            for sample in self._search(self._started(task), task, 20):
                assert spaces[name].validate(sample) == sample, name

    def test_a_single_architecture_is_enough(self) -> None:
        """A space of size 1 yields its one sample."""
        task = Task(space=SearchSpace.of({"only": Categorical(["one"])}))
        found = self._search(self._started(task), task, 3)
        assert found[0] == {"only": "one"}
        assert len(found) == 1 or not self.distinct

    def test_asking_changes_nothing(self) -> None:
        """The same number is answered by the same sample until something is told."""
        task = Task(space=_flat(), seed=5)
        strategy = self._started(task)
        self._search(strategy, task, 7)
        assert strategy.ask(7) == strategy.ask(7)
        plain = self._started(task)
        self._search(plain, task, 7)
        assert self._search(strategy, task, 5, first=7) == self._search(plain, task, 5, first=7)

    def test_the_seed_decides(self) -> None:
        """Same seed, same search; another seed, another search."""
        runs = []
        for seed in (1, 1, 2):
            task = Task(space=_flat(), seed=seed)
            runs.append(self._search(self._started(task), task, 20))
        assert runs[0] == runs[1]
        assert not self.seeded or runs[0] != runs[2]

    def test_it_can_be_started_again(self) -> None:
        """`start` forgets everything."""
        task = Task(space=_flat(), seed=1)
        strategy = self._started(task)
        before = self._search(strategy, task, 10)
        strategy.start(task)
        assert self._search(strategy, task, 10) == before

    def test_replay_goes_on_where_it_was(self) -> None:
        """A new strategy that is told the same events proposes what the first one proposes next."""
        for name, space in self._spaces().items():
            task = Task(space=space, seed=7)
            first, second = self._started(task), self._started(task)
            for number, sample in enumerate(self._search(first, task, 25)):
                second.tell(Trial(number=number, sample=sample))
                second.tell(_ended(number, sample, 1, TrialState.COMPLETE))
            assert self._search(second, task, 5, first=25) == self._search(first, task, 5, first=25), name

    def test_results_may_come_late_and_out_of_order(self) -> None:
        """Eight trials under way, told in another order, some of them failed or stopped; and replayed exactly."""
        for name, space in self._spaces().items():
            task = Task(space=space, seed=11)
            strategy, events, rng = self._started(task), list[Trial](), random.Random(0)
            under_way: dict[int, Sample] = {}
            for number in range(40):
                sample = strategy.ask(number)
                task.space.validate(sample)
                under_way[number] = sample
                events.append(Trial(number=number, sample=sample))
                strategy.tell(events[-1])
                if len(under_way) == 8:
                    done = rng.choice(sorted(under_way))
                    state = rng.choice([TrialState.COMPLETE] * 6 + [TrialState.FAILED, TrialState.STOPPED])
                    events.append(_ended(done, under_way.pop(done), 1, state))
                    strategy.tell(events[-1])
            again = self._started(task)
            for event in events:
                again.tell(event)
            assert again.ask(40) == strategy.ask(40), name
            if self.distinct:
                keys = [sample_key(event.sample) for event in events if event.state is TrialState.RUNNING]
                assert len(set(keys)) == len(keys), name

    def test_samples_of_others_are_welcome(self) -> None:
        """Trials that it did not propose, from a queue or another strategy, are learned from and not repeated."""
        for name, space in self._spaces().items():
            task, others = Task(space=space, seed=29), random.Random(1)
            strategies = [self._started(task), self._started(task)]
            told: list[Sample] = []
            for number in range(24):
                ours = number % 3 == 2
                sample = strategies[0].ask(number) if ours else space.sample(others)
                assert not (ours and self.distinct and sample in told), name
                told.append(sample)
                for strategy in strategies:
                    strategy.tell(Trial(number=number, sample=sample))
                    strategy.tell(_ended(number, sample, 1, TrialState.COMPLETE))
            assert strategies[0].ask(24) == strategies[1].ask(24), name

    def test_it_learns_both_ways(self) -> None:
        """What it proposes later is larger than what a random sample is worth, or smaller where that is asked for."""
        if not self.learns:
            return
        for name, space in self._spaces().items():
            if space.size < 1000:
                continue  # what is good is soon tried, and then comes the rest
            worth = [_worth(space.sample(seed)) for seed in range(200)]
            mean, deviation = statistics.fmean(worth), statistics.pstdev(worth)
            for direction in _BOTH if name == "hyperparameters" else _BOTH[:1]:
                task = Task(space=space, directions=(direction,), seed=23)
                late = self._search(self._started(task), task, 80)[50:]
                gain = (statistics.fmean(map(_worth, late)) - mean) / deviation
                assert (gain if direction == "maximize" else -gain) > 0.3, (name, direction)

    def test_failed_and_stopped_trials_are_digested(self) -> None:
        """A search goes on after them, even when there is nothing else."""
        for state in (TrialState.FAILED, TrialState.STOPPED):
            task = Task(space=_flat(), seed=13)
            for sample in self._search(self._started(task), task, 20, state=state):
                task.space.validate(sample)

    def test_several_objectives(self) -> None:
        """As many as it says it takes; more are refused before anything runs."""
        for number in range(1, self.objectives + 1):
            task = Task(space=_flat(), directions=(*_BOTH, *_BOTH)[:number], seed=17)
            assert len(self._search(self._started(task), task, 20)) == 20
        if self.objectives == 1:
            try:
                self._started(Task(space=_flat(), directions=_BOTH))
            except NasError:
                return
            raise AssertionError("a strategy for one objective must refuse several when it is started")

    def test_a_small_space_is_exhausted(self) -> None:
        """A distinct strategy tries everything once and says so; any other goes on with valid samples."""
        small = SearchSpace.of({"a": Categorical([0, 1, 2]), "b": Categorical([0, 1])})
        for space in (small, ModelSpace(_conditional_and_small).search_space):
            task = Task(space=space, seed=19)
            found = self._search(self._started(task), task, int(space.size) + 5)
            for sample in found:
                space.validate(sample)
            if self.distinct:
                assert len({sample_key(sample) for sample in found}) == len(found) == space.size

    def test_constraints_are_kept(self) -> None:
        """Only samples that the space's constraint allows are proposed; and where it allows few, all of them."""
        few = _flat().where(lambda sample: sum(sample.values()) == 14)
        found = self._search(self._started(Task(space=few, seed=31)), Task(space=few, seed=31), 10)
        assert all(sum(sample.values()) == 14 for sample in found)
        if self.distinct:
            assert len(found) == 5
        even = ModelSpace(_conditional).search_space.where(lambda sample: len(sample) % 2 == 0)
        task = Task(space=even, seed=37)
        assert all(len(sample) % 2 == 0 for sample in self._search(self._started(task), task, 30))

    def test_a_strange_domain_is_searched_or_refused(self) -> None:
        """One with infinitely many answers that are no numbers: `start` names its label, or all goes well."""
        space = SearchSpace.of({"kernel": Categorical([3, 5]), "strange": _Words()})
        task, strategy = Task(space=space, seed=41), self.make()
        refusal = ""
        try:
            strategy.start(task)
        except NasError as error:
            refusal = str(error)
        if refusal:
            assert "label 'strange'" in refusal
            return
        found = self._search(strategy, task, 20)
        assert len(found) == 20
        assert all(space.validate(sample) == sample for sample in found)

    def test_intervals_are_searched_or_refused(self) -> None:
        """A strategy that does not take intervals of reals says so when it is started, and names the label."""
        if not self.infinite:
            space = SearchSpace.of({"kernel": Categorical([3, 5]), "rate": Real(0, 1)})
            refused(lambda: self._started(Task(space=space)), "label 'rate'")


def _ended(number: int, sample: Sample, objectives: int, state: TrialState) -> Trial:
    worth = _worth(sample)
    values = None if state is TrialState.FAILED else (worth, 1 - worth, worth / 2)[:objectives]
    return Trial(number=number, sample=sample, state=state, values=values, metrics={"value": worth} if values else {})
