"""What this package takes for granted of tianshou's private names."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy
import pytest
import torch
from tianshou.algorithm.algorithm_base import Algorithm
from tianshou.algorithm.modelfree.ppo import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import ReplayBuffer
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, nn

from nas import ExperimentError
from nas._compat.tianshou_internals import WeighedPPO


class Actor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(1, 2)

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, None]:
        return self.scores(torch.as_tensor(obs).float()), None


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(1, 1)

    def forward(self, obs: Any) -> Tensor:
        found: Tensor = self.value(torch.as_tensor(obs).float())
        return found


def updated(proposed: list[float]) -> list[float]:
    """The actor's weights after one update, from the same first weights."""
    torch.manual_seed(0)
    actor = Actor()
    algorithm = WeighedPPO(
        policy=ProbabilisticActorPolicy(
            actor=actor,  # type: ignore[arg-type]  # any module of this signature serves
            dist_fn=lambda logits: torch.distributions.Categorical(logits=logits),
            action_space=gymnasium.spaces.Discrete(2),
            action_scaling=False,
            action_bound_method=None,
        ),
        critic=Critic(),
        optim=AdamOptimizerFactory(lr=0.1),
        eps_clip=0.2,
        ent_coef=0.0,
    )
    rows = numpy.arange(4.0)[:, None]
    ends = numpy.ones(4, dtype=bool)
    buffer = ReplayBuffer.from_data(
        obs=rows,
        act=numpy.array([0, 1, 0, 1]),
        rew=numpy.array([1.0, 0.0, 1.0, 0.0]),
        terminated=ends,
        truncated=~ends,
        done=ends,
        obs_next=rows,
    )
    with policy_within_training_step(algorithm.policy):
        algorithm.update_from(buffer, proposed=torch.tensor(proposed), repeat=1)
    weights: list[float] = actor.scores.weight.detach().flatten().tolist()
    return weights


@pytest.mark.slow
def test_the_update_goes_by_the_probabilities_that_are_given() -> None:
    assert updated([-0.7] * 4) == updated([-0.7] * 4)
    # A ratio beyond the clip, for actions that were good, teaches nothing more.
    assert updated([-9.0] * 4) != updated([-0.7] * 4)


@pytest.mark.slow
def test_an_update_that_prepares_itself_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    update = Algorithm._update

    def _update(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._preprocess_batch = lambda batch, buffer, indices: PPO._preprocess_batch(self, batch, buffer, indices)
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Algorithm, "_update", _update)  # as if it called another method, which ours does not replace
    with pytest.raises(ExperimentError, match=r"PPO\._preprocess_batch of tianshou .* late results are weighed"):
        updated([-0.7] * 4)
