"""Simulated annealing: a walk that goes downhill too, less and less."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator
from typing import final

from nas.checks import check_int, check_number
from nas.domains import Sample
from nas.protocols import Strategy, Task, Trial, check_single
from nas.strategies.novelty import Novelty

_TRIES = 20


@final
class Anneal(Strategy):
    """Simulated annealing over one-choice neighbours (Kirkpatrick et al. 1983, Science 220).

    The walk steps to each better sample, and to a worse one with probability `exp(-loss / temperature)`. The
    temperature falls by a factor with each trial; it is measured in standard deviations of the values seen, so it needs
    no knowledge of their scale. One objective.

    Args:
        initial: random samples before the walk, which begins at the best of them.
        temperature: at the beginning, in standard deviations of the values seen.
        cooling: what each finished trial multiplies the temperature by.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = Anneal()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32])})))
        >>> strategy.ask(0)["width"] in (16, 32)
        True
    """

    def __init__(self, initial: int = 10, *, temperature: float = 0.2, cooling: float = 0.97) -> None:
        self.initial = check_int("initial", initial, least=1, where="Anneal")
        self.temperature = check_number("temperature", temperature, least=0, where="Anneal")
        self.cooling = check_number("cooling", cooling, least=0, most=1, where="Anneal")

    def start(self, task: Task) -> None:
        """Nowhere yet."""
        check_single(task, "Anneal")
        self._task, self._novelty = task, Novelty(task.space)
        self._begun = 0
        self._losses: list[float] = []
        self._place: Trial | None = None

    def ask(self, number: int) -> Sample:
        """A step from where the walk is."""
        rng = self._task.rng(number)
        early = self._begun < self.initial or self._place is None
        return self._novelty.first(() if early else self._steps(rng), rng)

    def tell(self, trial: Trial) -> None:
        """Goes there, or not."""
        self._novelty.tell(trial)
        if not trial.state.is_finished:
            self._begun += 1
        elif trial.values is not None:
            (loss,) = self._task.losses(trial)
            self._losses.append(loss)
            if self._place is None or self._accepts(loss - self._task.losses(self._place)[0], trial.number):
                self._place = trial

    def _accepts(self, worse: float, number: int) -> bool:
        walked = len(self._losses) - self.initial
        if worse <= 0 or walked < 0:
            return worse <= 0
        heat = self.temperature * statistics.pstdev(self._losses) * self.cooling**walked
        return heat > 0 and random.Random(f"{self._task.seed}/{number}/accept").random() < math.exp(-worse / heat)

    def _steps(self, rng: random.Random) -> Iterator[Sample]:
        assert self._place is not None
        space, sample = self._task.space, self._place.sample
        for _ in range(_TRIES):
            domains = space.domains_of(sample)
            labels = [label for label, domain in domains.items() if domain.size > 1]
            if not labels:
                return
            label = rng.choice(labels)
            sample = space.replace(sample, label, domains[label].near(sample[label], rng), rng)
            yield sample
