"""Regularized evolution: tournaments, mutation, and the oldest leaves."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Literal, final

from nas.checks import check_bool, check_int, check_number, check_word
from nas.domains import Sample
from nas.protocols import Strategy, Task, Trial, crowding, fronts
from nas.strategies.novelty import Novelty

_TOURNAMENT = 25
_CHILDREN = 20
"""So many children of one tournament are looked at for one that is new, each mutated once more than the last."""


@final
class RegularizedEvolution(Strategy):
    """Mutates the winner of a tournament; the oldest leaves the population (Real et al. 2019, arXiv 1802.01548).

    Takes several objectives: the tournament then goes by non-dominated front, and by crowding distance within a front
    (Deb et al. 2002). Trials that were STOPPED compete with their last value; those that FAILED do not.

    Args:
        population_size: how many finished trials there are parents among.
        sample_size: of the tournament; 25 where omitted, or the whole of a smaller population.
        mutation_probability: of each choice to change; None changes exactly one.
        crossover: cross the winners of two tournaments, choice by choice, before mutating.
        remove: what leaves when the population is full: the "oldest" or the "worst".
        initial: random samples before the first tournament; None for a fifth of the population, so that a short search
            evolves too. The paper's is `population_size`.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> space = SearchSpace.of({"width": Categorical(range(100))})
        >>> strategy = RegularizedEvolution(population_size=10, sample_size=3)
        >>> strategy.start(Task(space=space))
        >>> strategy.ask(0)["width"] in range(100)
        True
    """

    def __init__(
        self,
        population_size: int = 100,
        sample_size: int | None = None,
        mutation_probability: float | None = None,
        *,
        crossover: bool = False,
        remove: Literal["oldest", "worst"] = "oldest",
        initial: int | None = None,
    ) -> None:
        where = "RegularizedEvolution"
        check_word("remove", remove, ("oldest", "worst"), where=where)
        self.population_size = check_int("population_size", population_size, least=1, where=where)
        if sample_size is None:
            sample_size = min(_TOURNAMENT, self.population_size)
        # One that is larger than the population would mean the whole of it, and select harder than is said.
        most = self.population_size
        self.sample_size = check_int("sample_size", sample_size, least=1, most=most, or_else="None", where=where)
        if mutation_probability is not None:
            mutation_probability = check_number(
                "mutation_probability", mutation_probability, least=0, most=1, or_else="None", where=where
            )
        if initial is None:
            initial = max(1, self.population_size // 5)
        self.initial = check_int("initial", initial, least=1, or_else="None", where=where)
        self.mutation_probability, self.remove = mutation_probability, remove
        self.crossover = check_bool("crossover", crossover, where=where)
        self._warned = False

    def omitted(self) -> dict[str, int]:
        """The size of the tournament, as it was written down before it could be left open."""
        return {"sample_size": _TOURNAMENT}

    def start(self, task: Task) -> None:
        """An empty population."""
        self._task, self._novelty = task, Novelty(task.space)
        self._population: list[Trial] = []
        self._begun = 0
        if not self._warned and task.max_trials is not None and task.max_trials <= self.population_size:
            self._warned = True
            warnings.warn(
                f"RegularizedEvolution(population_size={self.population_size}) in a search of {task.max_trials} "
                "trials: the population never fills, so none leaves it. The search evolves all the same; a smaller "
                "population_size would select harder.",
                stacklevel=2,
            )

    def ask(self, number: int) -> Sample:
        """A random sample to begin with, later a child."""
        rng = self._task.rng(number)
        early = self._begun < self.initial or not self._population
        return self._novelty.first(() if early else self._children(rng), rng)

    def tell(self, trial: Trial) -> None:
        """A finished trial joins the population, and another one leaves it."""
        self._novelty.tell(trial)
        if not trial.state.is_finished:
            self._begun += 1
        elif trial.values is not None:
            self._population.append(trial)
            if len(self._population) > self.population_size:
                leaving = 0 if self.remove == "oldest" else self._ranking(self._population)[-1]
                del self._population[leaving]

    def _children(self, rng: random.Random) -> Iterator[Sample]:
        space, probability = self._task.space, self.mutation_probability
        child = self._parent(rng).sample
        if self.crossover:
            child = space.cross(child, self._parent(rng).sample, rng)
        for _ in range(_CHILDREN):
            child = space.mutate(child, rng, probability)
            yield child

    def _parent(self, rng: random.Random) -> Trial:
        size = min(self.sample_size, len(self._population))
        contestants = rng.sample(self._population, size)
        return contestants[self._ranking(contestants)[0]]

    def _ranking(self, trials: list[Trial]) -> list[int]:
        """Positions, best first; the later trial of equals first."""
        points = [self._task.losses(trial) for trial in trials]
        if len(self._task.directions) == 1:
            return sorted(range(len(trials)), key=lambda i: (points[i], -trials[i].number))
        numbers, lonely = fronts(points), [0.0] * len(points)
        for front in set(numbers):
            members = [i for i, number in enumerate(numbers) if number == front]
            for i, room in zip(members, crowding([points[i] for i in members]), strict=True):
                lonely[i] = room
        return sorted(range(len(trials)), key=lambda i: (numbers[i], -lonely[i], -trials[i].number))
