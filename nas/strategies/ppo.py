"""Proximal policy optimisation: a controller network that is paid for the samples it walks to."""

from __future__ import annotations

import importlib.util
import random
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, final

from nas.checks import check_int, check_number
from nas.domains import Sample
from nas.errors import MissingDependency
from nas.protocols import Strategy, Task, Trial, check_single
from nas.random_state import one_thread
from nas.strategies.novelty import Novelty

if TYPE_CHECKING:
    from nas.strategies.ppo_updates import Episode

_DRAWS = 5
_MUTANTS = 20
_MEMORY = 0.7
"""How much of the baseline is kept at an update."""
_LIMIT = 3.0
"""Rewards are cut off here, in deviations from the baseline."""


@final
class PPO(Strategy):
    """A recurrent controller trained by proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

    The controller (`nas.strategies.Policy`) walks the choices of the search tree and is paid at the end of the
    walk; the update is tianshou's. A reward is the value less a moving baseline, in units of the moving deviation, so
    the scale of the values does not matter. Results may come late and in any order: each is weighed by the probability
    that its sample had when it was proposed. A sample that was tried is drawn again, and then mutated. One objective.

    Args:
        trials_per_update: finished trials from one update to the next.
        updates: gradient steps of an update.
        learning_rate: of Adam.
        entropy_weight: what one nat of entropy is worth, in units of the reward.
        clip: how far the probability of a decision may move in an update, as a share of it.
        failed_reward: of a trial that FAILED, in deviations from the baseline.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.
        MissingDependency: tianshou is not installed.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = PPO(trials_per_update=10)
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32, 64])})))
        >>> strategy.ask(0)["width"] in (16, 32, 64)
        True
    """

    def __init__(
        self,
        trials_per_update: int = 20,
        *,
        updates: int = 8,
        learning_rate: float = 0.01,
        entropy_weight: float = 0.005,
        clip: float = 0.4,
        failed_reward: float = -2.0,
    ) -> None:
        self.trials_per_update = check_int("trials_per_update", trials_per_update, least=1, where="PPO")
        self.updates = check_int("updates", updates, least=1, where="PPO")
        self.learning_rate = check_number("learning_rate", learning_rate, least=0, most=1, where="PPO")
        self.entropy_weight = check_number("entropy_weight", entropy_weight, least=0, most=1e6, where="PPO")
        self.clip = check_number("clip", clip, least=0, most=1, where="PPO")
        self.failed_reward = check_number("failed_reward", failed_reward, least=-1e6, most=1e6, where="PPO")

    def start(self, task: Task) -> None:
        """A controller to which all options are equal."""
        check_single(task, "PPO")
        if importlib.util.find_spec("tianshou") is None:
            raise MissingDependency("tianshou", purpose="PPO", extra="rl")
        from nas.strategies.ppo_updates import PPOUpdates

        self._task, self._novelty = task, Novelty(task.space)
        self._controller = PPOUpdates(
            task.space,
            learning_rate=self.learning_rate,
            entropy_weight=self.entropy_weight,
            clip=self.clip,
            seed=task.seed,
        )
        self._running: dict[int, Episode] = {}
        self._finished: list[tuple[Episode, float | None]] = []
        self._baseline: tuple[float, float] | None = None

    def ask(self, number: int) -> Sample:
        """A draw from the controller that is new, or a new neighbour of one."""
        rng = self._task.rng(number)
        with one_thread():
            return self._novelty.first(self._drawn(rng), rng)

    def tell(self, trial: Trial) -> None:
        """Notes how likely a sample was, and learns when enough results are there."""
        self._novelty.tell(trial)
        if not trial.state.is_finished:
            with one_thread():
                self._running[trial.number] = self._controller.episode(trial.sample)
            return
        value = None if trial.values is None else -self._task.losses(trial)[0]
        self._finished.append((self._running.pop(trial.number), value))
        if len(self._finished) >= self.trials_per_update:
            episodes = [episode for episode, _ in self._finished]
            with one_thread():
                self._controller.learn(episodes, self._rewards([value for _, value in self._finished]), self.updates)
            self._finished = []

    def _drawn(self, rng: random.Random) -> Iterator[Sample]:
        for _ in range(_DRAWS):
            sample = self._controller.policy.sample(rng)
            yield sample
        for _ in range(_MUTANTS):
            sample = self._task.space.mutate(sample, rng)
            yield sample

    def _rewards(self, values: list[float | None]) -> list[float]:
        known = [value for value in values if value is not None]
        if known:
            mean, deviation = statistics.fmean(known), statistics.pstdev(known)
            if self._baseline is not None:
                mean = _MEMORY * self._baseline[0] + (1 - _MEMORY) * mean
                deviation = _MEMORY * self._baseline[1] + (1 - _MEMORY) * deviation
            self._baseline = mean, deviation
        return [self.failed_reward if value is None else self._reward(value) for value in values]

    def _reward(self, value: float) -> float:
        assert self._baseline is not None
        mean, deviation = self._baseline
        return min(_LIMIT, max(-_LIMIT, (value - mean) / deviation)) if deviation > 0 else 0.0
