"""Single-path one-shot search: paths drawn at random, and an evolution among them afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal, Unpack, final, get_args

from nas.checks import check_int, check_word
from nas.domains import Answer, Sample, sample_key
from nas.errors import NasTypeError, NasValueError, SearchSpaceExhausted, explain
from nas.example_inputs import Inputs
from nas.oneshot.contest import Contest, Thoroughness, Whole, make_contest
from nas.oneshot.paths import PathSupernet
from nas.oneshot.relaxed import CostPenalty, RelaxedSupernet, SumMixer, check_penalty
from nas.oneshot.strategy import SupernetSettings, SupernetStrategy
from nas.oneshot.training import (
    ArchitectureSteps,
    Chooser,
    Distillation,
    Judge,
    Learner,
    PathLearner,
    RelaxedLearner,
    Search,
    soft_cross_entropy,
)
from nas.protocols import Strategy, Task, Trial, TrialState
from nas.space import Choice, ModelSpace

_TRIES = 100


@final
class RandomOneShot(SupernetStrategy):
    """Single path one-shot search with uniform sampling (Guo et al. 2020, arXiv 1904.00420).

    Each step trains the weights of one random path. Afterwards an evolution looks for the best path, judged by the
    shared weights with batch statistics of its own. A constraint of the space (`space.where(flops < 3e8)`) holds in
    training and evolution.

    Args:
        sampling: "uniform"; or "sandwich" (Yu and Huang 2019, arXiv 1903.05134): in each step the largest path, the
            smallest one and `middle` random ones; or "sum" (Bender et al. 2018, "Understanding and Simplifying One-Shot
            Architecture Search"): the supernet is trained whole, the outputs of candidates added, and each path is
            judged with the others switched off.
        middle: random paths of a sandwich.
        distillation: with "sandwich" the smaller paths learn what the largest says, by this loss of (what they say,
            what it says); None for their own loss.
        evaluations: paths that are judged afterwards.
        population: of the evolution; its best fifth are the parents.
        search: a strategy to look for the best path by, in place of the evolution.
        penalty: on what architectures cost, subtracted from what a path is worth.
        judging: "whole" judges each path on all the batches; "halving" all on few of them, and the best on more
            (Jamieson and Talwalkar 2016, arXiv 1502.07943): a third of the passes, or less. In each generation of the
            evolution the best of all paths so far move up (as in Li et al. 2018, arXiv 1810.05934), and parents are
            those that came furthest. With fewer than 4 batches of validation data every path is judged whole.
        **settings: see `SupernetSettings`: `epochs`, `checkpoint_every`, `candidates`, `recalibration`,
            `judge_batches`.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> RandomOneShot(epochs=20, evaluations=500)
        RandomOneShot(evaluations=500, epochs=20)
    """

    def __init__(
        self,
        *,
        sampling: Literal["uniform", "sandwich", "sum"] = "uniform",
        middle: int = 2,
        distillation: Distillation | None = soft_cross_entropy,
        evaluations: int = 200,
        population: int = 50,
        search: Strategy | None = None,
        penalty: CostPenalty | None = None,
        judging: Thoroughness = "whole",
        **settings: Unpack[SupernetSettings],
    ) -> None:
        super().__init__(**settings)
        check_word("sampling", sampling, ("uniform", "sandwich", "sum"), where="RandomOneShot")
        if search is not None and not isinstance(search, Strategy):
            raise NasTypeError(explain("search is a strategy", got=search, mend="RegularizedEvolution(), say"))
        if search is not None and search.shared_training is not None:
            raise NasValueError(
                explain("search looks among the paths of this supernet, so it trains none of its own", got=search)
            )
        check_penalty(penalty)
        check_word("judging", judging, get_args(Thoroughness), where="RandomOneShot")
        if search is not None and judging == "halving":
            raise NasValueError(
                explain(
                    "a strategy is told what a path is worth before it proposes the next, so none can wait for others",
                    got='judging="halving" with search=',
                    where="RandomOneShot",
                    mend='judging="whole", with judge_batches= to bound what a path takes',
                )
            )
        self._judging = judging
        self._sandwich, self._sum = sampling == "sandwich", sampling == "sum"
        self._middle = check_int("middle", middle, least=0, where="RandomOneShot")
        self._distillation = distillation if self._sandwich else None
        self._evaluations = check_int("evaluations", evaluations, least=1, where="RandomOneShot")
        self._population = check_int("population", population, least=2, where="RandomOneShot")
        self._search, self._penalty = search, penalty

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        """Random paths, or all of them at once."""

        def rank(k: int, judge: Judge) -> list[Sample]:
            return self._rank(space, seed, k, judge)

        if self._sum:
            relaxed = RelaxedSupernet(space, seed=seed)
            return RelaxedLearner(relaxed, SumMixer(relaxed.architecture), ArchitectureSteps(), example, rank=rank)
        supernet = PathSupernet(space, seed=seed, example_input=example)
        space = supernet.covered
        chooser = _RandomPaths(space, seed, middle=self._middle if self._sandwich else None, rank=rank)
        return PathLearner(supernet, chooser, self._distillation)

    def _rank(self, space: ModelSpace, seed: int, k: int, judge: Judge) -> list[Sample]:
        if self._search is not None:
            whole = Whole(judge, self._penalty)
            ask_and_tell(self._search, space, whole, evaluations=self._evaluations, seed=seed)
            return whole.ranked[:k]
        contest = make_contest(self._judging, judge, self._penalty)
        evolve(space, contest, evaluations=self._evaluations, population=self._population, seed=seed)
        return contest.ranked[:k]


@final
class _RandomPaths(Chooser):
    """Paths by chance, the same for the same step.

    Args:
        space: of the paths.
        seed: of the draws.
        middle: random paths between the largest and the smallest; None for one random path alone.
        rank: finds the best afterwards.
    """

    def __init__(
        self, space: ModelSpace, seed: int, *, middle: int | None, rank: Callable[[int, Judge], list[Sample]]
    ) -> None:
        self._space, self._seed, self._middle, self._rank = space, seed, middle, rank

    def paths(self, step: int) -> list[Sample]:
        """One, or a sandwich, the largest first."""
        rng = random.Random(f"{self._seed}/{step}")
        if self._middle is None:
            return [self._space.sample(rng)]
        between = [self._space.sample(rng) for _ in range(self._middle)]
        return [extreme(self._space, max, rng), extreme(self._space, min, rng), *between]

    def favourite(self) -> Sample:
        """The base model."""
        return self._space.default()

    def learn(self, search: Search, reward: Callable[[Sample, Any], float]) -> None:
        """Nothing."""

    def rank(self, k: int, judge: Judge) -> list[Sample]:
        """As it was made."""
        return self._rank(k, judge)

    def logged(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing: paths depend on the seed and the step."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


def extreme(space: ModelSpace, which: Callable[[list[Any]], Any], rng: random.Random) -> Sample:
    """The sample with the greatest (or least) number for each choice among numbers, the others drawn.

    Where the constraint of the space forbids it, a random one.
    """

    def answer(choice: Choice) -> Answer:
        size = choice.domain.size
        if choice.kind in ("value", "repeat") and size <= 1000:
            values = list(choice.domain.values())
            if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
                found: Answer = which(values)
                return found
        return choice.domain.sample(rng)

    for _ in range(_TRIES):
        sample = space.search_space.walk(answer)
        if space.contains(sample):
            return sample
    return space.sample(rng)


def evolve(space: ModelSpace, contest: Contest, *, evaluations: int, population: int, seed: int) -> None:
    """The evolution of single path one-shot search (arXiv 1904.00420, algorithm 1).

    Args:
        space: of the samples.
        contest: judges a generation, and knows all that were judged.
        evaluations: different samples that are judged, at most.
        population: random ones first; then in each generation as many children of the best fifth, half of them
            mutants, half crossed.
        seed: of all draws.
    """
    rng = random.Random(f"evolve/{seed}")
    most = _at_most(evaluations, space)
    contest.expect(most)
    born: dict[str, Sample] = {}

    def add(sample: Sample) -> bool:
        key = sample_key(sample)
        if key in contest.found or key in born or len(contest.found) + len(born) >= evaluations:
            return False
        born[key] = sample
        return True

    for _ in range(_TRIES * population):
        if len(born) >= min(population, most):
            break
        add(space.sample(rng))
    contest.add(born.values())
    while len(contest.found) < most:
        born.clear()
        parents = contest.ranked[: max(2, population // 5)]
        for number in range(_TRIES * population):
            if len(born) >= population:
                break
            if number % 2:
                child = space.search_space.cross(rng.choice(parents), rng.choice(parents), rng)
            else:
                child = space.mutate(rng.choice(parents), rng, 0.1)
            if space.search_space.allows(child):
                add(child)
        if not born:
            break  # everything near is known
        contest.add(born.values())


def ask_and_tell(strategy: Strategy, space: ModelSpace, whole: Whole, *, evaluations: int, seed: int) -> None:
    """Lets a strategy look among the paths."""
    strategy.start(Task(space=space.search_space, seed=seed, max_trials=evaluations))
    whole.expect(_at_most(evaluations, space))
    for number in range(evaluations):
        try:
            sample = strategy.ask(number)
        except SearchSpaceExhausted:
            break
        strategy.tell(Trial(number=number, sample=sample))
        value = whole.value(sample)
        strategy.tell(Trial(number=number, sample=sample, state=TrialState.COMPLETE, values=(value,)))


def _at_most(evaluations: int, space: ModelSpace) -> int:
    """So many different samples can be judged."""
    return evaluations if space.size > evaluations else int(space.size)
