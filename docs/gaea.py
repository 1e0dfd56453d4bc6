"""GAEA (Li et al. 2021, arXiv 2004.07802): the weights of mixtures are parameters, and stay on the simplex.

An exponentiated gradient multiplies the weights in place of adding to logits, which favours few large ones (section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Unpack, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nas import ModelSpace
from nas.oneshot import (
    ArchitectureSteps,
    Inputs,
    Learner,
    RelaxedLearner,
    RelaxedSupernet,
    Simplex,
    SoftmaxMixer,
    SupernetSettings,
    SupernetStrategy,
)


@final
class ExponentiatedGradient(Optimizer):
    """Multiplies each row of probabilities by `exp(-lr * gradient)`, and divides it by its sum (algorithm 1)."""

    def __init__(self, parameters: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for weights in group["params"]:
                    if weights.grad is not None:
                        weights.copy_((weights.log() - group["lr"] * weights.grad).softmax(-1))
        return loss


@final
class GAEA(SupernetStrategy):
    """DARTS with parameters on the simplex: `GAEA(epochs=50)`. It alternates as DARTS of the first order does."""

    def __init__(
        self, *, learning_rate: float = 0.1, warmup_epochs: int = 0, **settings: Unpack[SupernetSettings]
    ) -> None:
        super().__init__(**settings)
        optimizer = partial(ExponentiatedGradient, lr=learning_rate)
        self._steps = ArchitectureSteps(optimizer=optimizer, warmup_epochs=warmup_epochs)

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        supernet = RelaxedSupernet(space, seed=seed, parametrisation=Simplex())
        return RelaxedLearner(supernet, SoftmaxMixer(), self._steps, example)
