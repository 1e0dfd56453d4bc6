"""DrNAS (Chen et al. 2021, arXiv 2006.10355): the weights of mixtures are drawn from learned Dirichlet distributions.

Left out is the paper's progressive learning, which prunes candidates in stages while more channels pass the mixtures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack, final

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from nas import ModelSpace
from nas.oneshot import (
    Architecture,
    ArchitectureSteps,
    Concentrations,
    Inputs,
    Learner,
    Mixer,
    Moment,
    Phase,
    RandomStream,
    RelaxedLearner,
    RelaxedSupernet,
    Rule,
    SupernetSettings,
    SupernetStrategy,
)


@final
class DirichletMixer(Mixer):
    """Every candidate, by weights that are drawn anew in each phase and differentiable in the concentrations."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def rule(self, moment: Moment, phase: Phase) -> Rule:
        stream = RandomStream(moment.seed(self._seed, phase))  # the same after a restart, and on every device

        def draw(label: str, logits: Tensor) -> tuple[Tensor, Sequence[int]]:
            with stream.active():  # whose generator is that of the CPU
                weights: Tensor = Dirichlet(logits.exp().cpu()).rsample()
            return weights.to(logits.device), range(len(logits))

        return draw

    def after_architecture_step(self, architecture: Architecture) -> None:
        """Nothing to mend."""


def anchored(architecture: Architecture, *, weight: float) -> Tensor:
    """How far the distributions are from the uniform one (section 3.2): that keeps a search from deciding too soon."""
    found = [Dirichlet(architecture.logits_of(label).exp()) for label in architecture.labels]
    apart = [kl_divergence(each, Dirichlet(torch.ones_like(each.concentration))).sum() for each in found]
    return weight * torch.stack(apart).sum()


@final
class DrNAS(SupernetStrategy):
    """Its derived architecture is the likeliest of the mean of the distributions: `DrNAS(epochs=50)`."""

    def __init__(
        self, *, learning_rate: float = 6e-4, anchor: float = 1e-3, **settings: Unpack[SupernetSettings]
    ) -> None:
        super().__init__(**settings)
        pull = partial(anchored, weight=anchor)
        self._steps = ArchitectureSteps(learning_rate=learning_rate, weight_decay=0.0, extra_loss=pull)

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        supernet = RelaxedSupernet(space, seed=seed, parametrisation=Concentrations())
        return RelaxedLearner(supernet, DirichletMixer(seed=seed), self._steps, example)
