"""Efficient neural architecture search: a controller that is paid by shared weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack, final, get_args

import torch
from torch.optim import Adam

from nas.checks import check_int, check_number, check_word
from nas.domains import Sample, sample_key
from nas.example_inputs import Inputs
from nas.oneshot.contest import Thoroughness, make_contest
from nas.oneshot.paths import PathSupernet
from nas.oneshot.relaxed import CostPenalty, check_penalty
from nas.oneshot.strategy import SupernetSettings, SupernetStrategy
from nas.oneshot.training import Chooser, Judge, Learner, PathLearner, Search, gather
from nas.random_state import derive_seed, one_thread
from nas.space import ModelSpace
from nas.strategies import Policy


@final
class ENAS(SupernetStrategy):
    """Efficient neural architecture search (Pham et al. 2018, arXiv 1802.03268).

    In each epoch the shared weights are trained on paths that the controller draws; after it the controller, an LSTM
    that walks the choices (`nas.strategies.Policy`, the network of PPO), takes some steps of REINFORCE, paid by
    the metric of its paths on batches of validation data. At the end the trained controller draws paths, and these are
    ranked on all the validation data.

    Args:
        controller_steps: steps of the controller after each epoch.
        samples_per_step: paths of each.
        learning_rate: of the controller's Adam.
        entropy_weight: what a nat of entropy is worth, in units of the reward.
        baseline_decay: how much of the moving baseline is kept at a step.
        warmup_epochs: epochs at first in which the controller does not learn: its paths are uniform.
        draws: paths that the trained controller draws to be ranked.
        penalty: on what architectures cost, subtracted from the reward.
        judging: "whole" judges each of the draws on all the batches; "halving" all on few of them, and the best on
            more: a third of the passes, as by `RandomOneShot`.
        **settings: see `SupernetSettings`: `epochs`, `checkpoint_every`, `candidates`, `recalibration`,
            `judge_batches`.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> ENAS(epochs=150, controller_steps=50)
        ENAS(controller_steps=50, epochs=150)
    """

    def __init__(
        self,
        *,
        controller_steps: int = 30,
        samples_per_step: int = 5,
        learning_rate: float = 3.5e-3,
        entropy_weight: float = 1e-3,
        baseline_decay: float = 0.95,
        warmup_epochs: int = 0,
        draws: int = 50,
        penalty: CostPenalty | None = None,
        judging: Thoroughness = "whole",
        **settings: Unpack[SupernetSettings],
    ) -> None:
        super().__init__(**settings)
        check_penalty(penalty)
        check_word("judging", judging, get_args(Thoroughness), where="ENAS")
        self._controller = partial(
            _Controller,
            steps=check_int("controller_steps", controller_steps, least=1, where="ENAS"),
            samples=check_int("samples_per_step", samples_per_step, least=1, where="ENAS"),
            learning_rate=check_number("learning_rate", learning_rate, above=0, where="ENAS"),
            entropy_weight=check_number("entropy_weight", entropy_weight, least=0, where="ENAS"),
            decay=check_number("baseline_decay", baseline_decay, least=0, below=1, where="ENAS"),
            warmup=check_int("warmup_epochs", warmup_epochs, least=0, where="ENAS"),
            draws=check_int("draws", draws, least=1, where="ENAS"),
            penalty=penalty,
            judging=judging,
        )

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        """Paths by a controller."""
        supernet = PathSupernet(space, seed=seed, example_input=example)
        return PathLearner(supernet, self._controller(supernet.covered, seed))


@final
class _Controller(Chooser):
    """A policy that learns by REINFORCE; see `ENAS` for the arguments."""

    def __init__(
        self,
        space: ModelSpace,
        seed: int,
        *,
        steps: int,
        samples: int,
        learning_rate: float,
        entropy_weight: float,
        decay: float,
        warmup: int,
        draws: int,
        penalty: CostPenalty | None,
        judging: Thoroughness,
    ) -> None:
        self._space, self._seed, self._judging = space, seed, judging
        self._steps, self._samples, self._draws = steps, samples, draws
        self._entropy_weight, self._decay, self._warmup, self._penalty = entropy_weight, decay, warmup, penalty
        self.policy = Policy(space.search_space, seed=seed)
        self._optimizer = Adam(self.policy.parameters(), lr=learning_rate)
        self._baseline: float | None = None
        self._reward = self._entropy = 0.0
        self._drawn: dict[int, Sample] = {}

    def paths(self, step: int) -> list[Sample]:
        """One that the controller draws."""
        if step not in self._drawn:
            self._drawn = {s: sample for s, sample in self._drawn.items() if s >= step - 1}
            self._drawn[step] = self._draw(f"path/{step}")
        return [self._drawn[step]]

    def _draw(self, name: str) -> Sample:
        rng = random.Random(f"{self._seed}/{name}")
        for _ in range(100):
            sample = self.policy.sample(rng)
            if self._space.search_space.constraint is None or self._space.contains(sample):
                return sample
        return self._space.sample(rng)

    def favourite(self) -> Sample:
        """One that the controller draws; always with the same random numbers."""
        return self._draw("favourite")

    def learn(self, search: Search, reward: Callable[[Sample, Any], float]) -> None:
        """Some steps of REINFORCE with a moving baseline (arXiv 1802.03268, section 2.2)."""
        if search.current_epoch < self._warmup:
            return
        batches = search.validation_batches(derive_seed(self._seed, search.current_epoch))
        self._drawn = {}
        with one_thread():
            for step in range(self._steps):
                batch = next(batches)
                names = [f"controller/{search.current_epoch}/{step}/{i}" for i in range(self._samples)]
                samples = [self._draw(name) for name in names]
                rewards = [reward(sample, batch) - self._cost(sample) for sample in samples]
                # The same on every device, whatever their last bits are.
                rewards = [sum(each) / len(each) for each in zip(*gather(rewards), strict=True)]
                self._step(samples, rewards)

    def _step(self, samples: list[Sample], rewards: list[float]) -> None:
        mean = sum(rewards) / len(rewards)
        self._baseline = mean if self._baseline is None else self._decay * self._baseline + (1 - self._decay) * mean
        logarithms = self.policy.log_prob(samples)
        advantage = torch.tensor(rewards) - self._baseline
        # The gradient of the entropy, by the same samples: each is worth its surprise too.
        worth = advantage - self._entropy_weight * (logarithms.detach() - logarithms.detach().mean())
        loss = -(worth * logarithms).mean()
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 5.0)
        self._optimizer.step()
        self._reward, self._entropy = mean, float(-logarithms.detach().mean())

    def _cost(self, sample: Sample) -> float:
        return 0.0 if self._penalty is None else self._penalty.of_sample(sample)

    def rank(self, k: int, judge: Judge) -> list[Sample]:
        """Draws of the trained controller, ranked on validation data."""
        drawn: dict[str, Sample] = {}
        for number in range(self._draws):
            sample = self._draw(f"rank/{number}")
            drawn.setdefault(sample_key(sample), sample)
        contest = make_contest(self._judging, judge, self._penalty)
        contest.expect(len(drawn))
        contest.add(drawn.values())
        return contest.ranked[:k]

    def logged(self) -> dict[str, float]:
        """What the controller is paid, and how sure it is; nothing before it learns."""
        if self._baseline is None:
            return {}
        return {"controller_reward": self._reward, "controller_entropy": self._entropy}

    def state(self) -> dict[str, Any]:
        """The policy, its optimizer and the baseline."""
        return {
            "policy": dict(self.policy.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "baseline": self._baseline,
            "logged": [self._reward, self._entropy],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self.policy.load_state_dict(state["policy"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._baseline = state["baseline"]
        self._reward, self._entropy = state["logged"]
        self._drawn = {}
