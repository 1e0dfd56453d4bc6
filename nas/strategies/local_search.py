"""Local search: from neighbour to better neighbour, and anew where there is none."""

from __future__ import annotations

import random
from typing import Literal, final

from nas.checks import check_int, check_word
from nas.domains import Answer, Sample
from nas.protocols import Strategy, Task, Trial, check_single
from nas.strategies.novelty import Novelty


@final
class LocalSearch(Strategy):
    """Hill climbing over the neighbours that answer one choice otherwise (White et al. 2020, arXiv 2005.02960).

    A climb begins at the best of `initial` samples, tries the neighbours in random order and moves on at the first that
    is better. Where none is, the next climb begins. One objective.

    Args:
        initial: random samples before the first climb.
        restart: where a later climb begins: at a "random" sample, or at the best one so far with a few choices
            changed ("perturb": iterated local search, Lourenço et al. 2003).
        strength: how many choices a perturbation changes.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> from nas import Categorical, SearchSpace, TrialState
        >>> space = SearchSpace.of({"width": Categorical([16, 32]), "kernel": Categorical([3, 5])})
        >>> strategy = LocalSearch(initial=1)
        >>> strategy.start(Task(space=space))
        >>> strategy.tell(Trial(number=0, sample={"width": 16, "kernel": 3}))
        >>> done = Trial(number=0, sample={"width": 16, "kernel": 3}, state=TrialState.COMPLETE, values=(0.5,))
        >>> strategy.tell(done)
        >>> strategy.ask(1) in ({"width": 32, "kernel": 3}, {"width": 16, "kernel": 5})
        True
    """

    def __init__(
        self, initial: int = 10, *, restart: Literal["random", "perturb"] = "perturb", strength: int = 3
    ) -> None:
        check_word("restart", restart, ("random", "perturb"), where="LocalSearch")
        self.initial = check_int("initial", initial, least=1, where="LocalSearch")
        self.strength = check_int("strength", strength, least=1, where="LocalSearch")
        self.restart = restart

    def start(self, task: Task) -> None:
        """Nowhere yet."""
        check_single(task, "LocalSearch")
        self._task, self._novelty = task, Novelty(task.space)
        self._climb, self._begun = 0, 0
        self._climb_of: dict[int, int] = {}
        self._under_way: set[int] = set()
        self._best: Trial | None = None
        self._centre: Trial | None = None
        self._moves: list[tuple[str, Answer]] = []

    def ask(self, number: int) -> Sample:
        """A neighbour of where the climb has come to, or a place to begin one at."""
        rng = self._task.rng(number)
        if self._begun < self.initial:
            return self._novelty.first((), rng)
        if self._centre is not None:
            for move in reversed(self._moves):
                sample = self._moved(*move)
                if self._novelty.admits(sample):
                    return sample
        return self._novelty.first(self._beginnings(rng), rng)

    def tell(self, trial: Trial) -> None:
        """Moves to a better neighbour; begins anew where there is none."""
        self._novelty.tell(trial)
        if not trial.state.is_finished:
            self._begun += 1
            self._climb_of[trial.number] = self._climb
            self._under_way.add(trial.number)
            return
        self._under_way.discard(trial.number)
        if trial.values is not None:
            if self._better(trial, self._best):
                self._best = trial
            if self._climb_of[trial.number] == self._climb and self._better(trial, self._centre):
                self._move_to(trial)
        if self._begun >= self.initial and self._arrived():
            self._climb += 1
            self._centre, self._moves = None, []

    def _better(self, trial: Trial, other: Trial | None) -> bool:
        return other is None or self._task.losses(trial) < self._task.losses(other)

    def _move_to(self, trial: Trial) -> None:
        self._centre = trial
        rng, domains = self._rng("moves"), self._task.space.domains_of(trial.sample)
        self._moves = [(n, a) for n, domain in domains.items() for a in domain.neighbours(trial.sample[n], rng)]
        rng.shuffle(self._moves)

    def _arrived(self) -> bool:
        """Whether all neighbours have been tried, and none of this climb is under way."""
        if self._centre is None:
            return False
        while self._moves and not self._novelty.admits(self._moved(*self._moves[-1])):
            self._moves.pop()
        return not self._moves and not any(self._climb_of[number] == self._climb for number in self._under_way)

    def _moved(self, label: str, answer: Answer) -> Sample:
        assert self._centre is not None
        rng = self._rng(f"{label}={answer!r}")
        return self._task.space.replace(self._centre.sample, label, answer, rng)

    def _rng(self, purpose: str) -> random.Random:
        assert self._centre is not None
        return random.Random(f"{self._task.seed}/{self._centre.number}/{purpose}")

    def _beginnings(self, rng: random.Random) -> list[Sample]:
        if self.restart == "random" or self._best is None:
            return []
        found: list[Sample] = []
        for _ in range(10):
            sample = self._best.sample
            for _ in range(self.strength + len(found) // 3):
                sample = self._task.space.mutate(sample, rng)
            found.append(sample)
        return found
