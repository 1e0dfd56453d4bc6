"""The controller network in tianshou's terms, and its update. Imported when PPO starts: tianshou takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import gymnasium
import numpy
import torch
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import ReplayBuffer
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, nn

from nas._compat.tianshou_internals import WeighedPPO
from nas.domains import Sample
from nas.random_state import derive_seed, seeded
from nas.space import SearchSpace
from nas.strategies.policy import IMPOSSIBLE, Decision, Policy, Walks, stack_walks


@final
@dataclass(frozen=True, kw_only=True)
class Episode:
    """One walk of the tree, and how likely each of its decisions was when it was proposed."""

    decisions: list[Decision]
    log_probs: list[float]


@final
class PPOUpdates:
    """A controller and its update by tianshou's PPO.

    Each decision is one step of an episode; the reward comes with the last one, undiscounted. What a step observes is
    the whole walk and its own position in it: the network looks at nothing after the position, and so runs over each
    walk once instead of once for each step.

    Args:
        space: of the samples.
        learning_rate: of Adam.
        entropy_weight: of the entropy in the loss.
        clip: of the ratio of probabilities.
        seed: of the network's first weights.
    """

    def __init__(
        self, space: SearchSpace, *, learning_rate: float, entropy_weight: float, clip: float, seed: int
    ) -> None:
        self.policy = Policy(space, seed=derive_seed(seed, 1))
        self._seed, self._learned = seed, 0
        with seeded(derive_seed(seed, 2)):
            self._algorithm = WeighedPPO(
                policy=ProbabilisticActorPolicy(
                    actor=_Actor(self.policy),  # type: ignore[arg-type]  # any module of this signature serves
                    dist_fn=lambda logits: torch.distributions.Categorical(logits=logits, validate_args=False),
                    action_space=gymnasium.spaces.Discrete(max(self.policy.widest, 1)),
                    action_scaling=False,
                    action_bound_method=None,
                ),
                critic=_Critic(self.policy),
                optim=AdamOptimizerFactory(lr=learning_rate),
                eps_clip=clip,
                ent_coef=entropy_weight,
                advantage_normalization=True,
                max_grad_norm=1.0,
                gamma=1.0,
                gae_lambda=1.0,
                max_batchsize=1 << 20,
            )

    def episode(self, sample: Sample) -> Episode:
        """A sample with the probabilities that its decisions have now."""
        decisions = self.policy.decisions.of(sample)
        with torch.no_grad():
            log_probs = self.policy.step_log_probs(stack_walks([decisions], self.policy.widest))[0].tolist()
        return Episode(decisions=decisions, log_probs=log_probs[: len(decisions)])

    def learn(self, episodes: list[Episode], rewards: list[float], updates: int) -> None:
        """Takes `updates` gradient steps on these episodes."""
        pairs = [(episode, reward) for episode, reward in zip(episodes, rewards, strict=True) if episode.decisions]
        if not pairs:
            return
        walks = stack_walks([episode.decisions for episode, _ in pairs], self.policy.widest)
        observed = _observations(walks)
        last = walks.real.sum(1) - 1
        paid = torch.zeros(walks.real.shape, dtype=torch.float64)
        paid[torch.arange(len(pairs)), last] = torch.tensor([reward for _, reward in pairs], dtype=torch.float64)
        done = torch.zeros_like(walks.real)
        done[torch.arange(len(pairs)), last] = True
        rows = observed[walks.real].numpy()
        ends = done[walks.real].numpy()
        buffer = ReplayBuffer.from_data(
            obs=rows,
            act=walks.options[walks.real].numpy(),
            rew=paid[walks.real].numpy(),
            terminated=ends,
            truncated=numpy.zeros_like(ends),
            done=ends,
            # After the end nothing is observed; elsewhere the next row is the next step.
            obs_next=numpy.concatenate([rows[1:], rows[-1:]]),
        )
        proposed = torch.tensor([p for episode, _ in pairs for p in episode.log_probs])
        self._learned += 1
        with seeded(derive_seed(self._seed, 3, self._learned)), policy_within_training_step(self._algorithm.policy):
            self._algorithm.update_from(buffer, proposed=proposed, repeat=updates)


def _observations(walks: Walks) -> Tensor:
    """(walks, steps, 2 * steps + 1 + options): places and options of the whole walk, the position, what is possible."""
    number, steps = walks.places.shape
    whole = torch.cat([walks.places, walks.options], 1)[:, None].expand(-1, steps, -1)
    position = torch.arange(steps)[None, :, None].expand(number, -1, -1)
    return torch.cat([whole, position, walks.possible.long()], 2)


def _features(policy: Policy, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features (rows, hidden), places (rows,) and what is possible (rows, options), the network run once a walk."""
    steps = (observed.shape[1] - 1 - policy.widest) // 2
    whole, position = observed[:, : 2 * steps], observed[:, 2 * steps]
    different, which = torch.unique(whole, dim=0, return_inverse=True)
    places, options = different[:, :steps], different[:, steps:]
    nothing = torch.empty(0)
    hidden = policy.features(Walks(places=places, options=options, possible=nothing, real=nothing))
    return hidden[which, position], places[which, position], observed[:, 2 * steps + 1 :].bool()


@final
class _Actor(nn.Module):
    """Observations (rows, ...) to scores (rows, options)."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, None]:
        features, places, possible = _features(self.policy, torch.as_tensor(obs))
        return self.policy.scores(features, places).masked_fill(~possible, IMPOSSIBLE), None


@final
class _Critic(nn.Module):
    """Observations (rows, ...) to expected rewards (rows, 1); at first 0, which is the baseline."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.value = nn.Linear(policy.lstm.hidden_size, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, obs: Any) -> Tensor:
        features, _, _ = _features(self.policy, torch.as_tensor(obs))
        expected: Tensor = self.value(features)
        return expected
