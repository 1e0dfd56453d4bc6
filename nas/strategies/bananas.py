"""BANANAS: an ensemble of small predictors on path encodings."""

from __future__ import annotations

import itertools
import random
from typing import final

import torch
from torch import Tensor

from nas.checks import check_int
from nas.domains import Sample
from nas.protocols import Strategy, Task, Trial, check_single
from nas.random_state import derive_seed, one_thread
from nas.strategies.encoding import PathEncoding
from nas.strategies.novelty import Novelty

_PARENTS = 10
_HIDDEN = 64
_STEPS = 100
_RATE = 0.01
_DECAY = 1e-4


@final
class BANANAS(Strategy):
    """An ensemble of predictors, independent Thompson sampling, mutation (White et al. 2021, arXiv 1910.11858).

    Each proposal is the best of many mutants of the ten best samples by a draw from the normal distribution that the
    ensemble's mean and deviation make for it. The ensemble is trained anew after every so many results, which is what a
    proposal costs here: some 10 ms each, where other strategies take one. One objective.

    Args:
        initial: random samples before the first ensemble.
        ensemble_size: how many predictors, each a perceptron of two hidden layers.
        candidates: mutants that each proposal is chosen from.
        retrain_every: results from one ensemble to the next.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = BANANAS()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32, 64])})))
        >>> strategy.ask(0)["width"] in (16, 32, 64)
        True
    """

    def __init__(
        self, initial: int = 10, *, ensemble_size: int = 5, candidates: int = 100, retrain_every: int = 10
    ) -> None:
        self.initial = check_int("initial", initial, least=1, where="BANANAS")
        self.ensemble_size = check_int("ensemble_size", ensemble_size, least=2, where="BANANAS")
        self.candidates = check_int("candidates", candidates, least=1, where="BANANAS")
        self.retrain_every = check_int("retrain_every", retrain_every, least=1, where="BANANAS")

    def start(self, task: Task) -> None:
        """No data."""
        check_single(task, "BANANAS")
        self._task, self._novelty = task, Novelty(task.space)
        self._encode = PathEncoding(task.space)
        self._samples: list[Sample] = []
        self._vectors: list[list[float]] = []
        self._losses: list[float] = []
        self._begun, self._trained = 0, 0

    def ask(self, number: int) -> Sample:
        """The candidate whose draw is the best."""
        rng = self._task.rng(number)
        if self._begun < self.initial or len(self._losses) < 2:
            return self._novelty.first((), rng)
        with one_thread():
            self._train()
            return self._novelty.first(self._promising(rng), rng)

    def tell(self, trial: Trial) -> None:
        """Adds the result to the data."""
        self._novelty.tell(trial)
        if not trial.state.is_finished:
            self._begun += 1
        elif trial.values is not None:
            self._samples.append(trial.sample)
            self._vectors.append(self._encode(trial.sample))
            self._losses.append(self._task.losses(trial)[0])

    def _promising(self, rng: random.Random) -> list[Sample]:
        best = sorted(range(len(self._losses)), key=lambda i: self._losses[i])[:_PARENTS]
        parents = [self._samples[i] for i in best]
        found = self._novelty.mutants(parents, self.candidates, rng)
        if not found:
            return []
        mean, deviation = self._ensemble.predict(torch.tensor([self._encode(sample) for sample in found]))
        drawn = [m + s * rng.gauss(0, 1) for m, s in zip(mean.tolist(), deviation.tolist(), strict=True)]
        return [found[i] for i in sorted(range(len(found)), key=lambda i: drawn[i])]

    def _train(self) -> None:
        """Trains on the first so many results: the same ones, and so the same ensemble, after a replay."""
        number = max(2, len(self._losses) // self.retrain_every * self.retrain_every)
        if number != self._trained:
            self._trained = number
            vectors, losses = torch.tensor(self._vectors[:number]), torch.tensor(self._losses[:number])
            self._ensemble = Ensemble(vectors, losses, self.ensemble_size, derive_seed(self._task.seed, number))


@final
class Ensemble:
    """Perceptrons of two hidden layers that differ in their first weights, trained all at once on the squared error.

    Args:
        vectors: (points, width).
        losses: (points,).
        size: how many perceptrons.
        seed: of their first weights.
    """

    def __init__(self, vectors: Tensor, losses: Tensor, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        widths = (vectors.shape[1], _HIDDEN, _HIDDEN, 1)
        self._size = size
        self._weights = [
            torch.randn(size, before, after, generator=generator).mul_((2 / before) ** 0.5).requires_grad_()
            for before, after in itertools.pairwise(widths)
        ]
        self._biases = [torch.zeros(size, 1, after, requires_grad=True) for after in widths[1:]]
        target = (losses - losses.mean()) / losses.std().clamp_min(1e-6)
        optimizer = torch.optim.Adam([*self._weights, *self._biases], lr=_RATE, weight_decay=_DECAY)
        with torch.enable_grad():
            for _ in range(_STEPS):
                optimizer.zero_grad()
                ((self._forward(vectors) - target) ** 2).mean(1).sum().backward()
                optimizer.step()

    def predict(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the predictions for (points, width), standardised: two tensors (points,)."""
        with torch.no_grad():
            found = self._forward(vectors)
        return found.mean(0), found.std(0)

    def _forward(self, vectors: Tensor) -> Tensor:
        hidden = vectors.expand(self._size, -1, -1)
        for weight, bias in list(zip(self._weights, self._biases, strict=True))[:-1]:
            hidden = torch.relu(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(self._biases[-1], hidden, self._weights[-1])[..., 0]
