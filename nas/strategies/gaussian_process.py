"""Bayesian optimisation by a Gaussian process on path encodings, and the process: fast for some thousand points."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from nas.checks import check_int
from nas.domains import Sample
from nas.protocols import Strategy, Task, Trial, check_single
from nas.random_state import one_thread
from nas.strategies.encoding import PathEncoding
from nas.strategies.novelty import Novelty

_ROUNDS = 3
_PARENTS = 10
_LOCAL = 4.0
"""How fast the local part of the kernel falls with the share of features that differ."""
_WEIGHTS = tuple(
    (linear, quadratic, local) for linear in (1.0, 0.5) for quadratic in (0.0, 0.3, 0.7) for local in (0.0, 0.1, 0.5)
)
_NOISES = (1e-4, 1e-2, 1e-1)
_ENOUGH = 200
"""So many points decide on the weights."""


@final
class GaussianProcess(Strategy):
    """Expected improvement of a Gaussian process on path encodings, maximised by rounds of mutation. One objective.

    The kernel counts the paths that two samples share; its linear part stands for effects of single answers, its
    quadratic part for those of pairs (Baptista and Poloczek 2018, arXiv 1806.08838), a local part for the rest. Weights
    and noise are those of the largest marginal likelihood. Trials under way count with what the model expects of them.
    Expected improvement: Jones et al. 1998; for architectures: Ru et al. 2021, arXiv 2006.07556.

    Args:
        initial: random samples before the first model.
        candidates: mutants of the most promising samples that each of three rounds looks at.

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> strategy = GaussianProcess()
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32, 64])})))
        >>> strategy.ask(0)["width"] in (16, 32, 64)
        True
    """

    def __init__(self, initial: int = 10, *, candidates: int = 60) -> None:
        self.initial = check_int("initial", initial, least=1, where="GaussianProcess")
        self.candidates = check_int("candidates", candidates, least=1, where="GaussianProcess")

    def start(self, task: Task) -> None:
        """No data."""
        check_single(task, "GaussianProcess")
        self._task, self._novelty = task, Novelty(task.space)
        self._encode = PathEncoding(task.space)
        self._model = KernelModel(self._encode.width)
        self._samples: list[Sample] = []
        self._running: dict[int, Sample] = {}
        self._begun = 0

    def ask(self, number: int) -> Sample:
        """The candidate with the largest expected improvement."""
        rng = self._task.rng(number)
        if self._begun < self.initial or len(self._samples) < 2:
            return self._novelty.first((), rng)
        with one_thread():
            posterior = self._model.posterior(self._encoded(list(self._running.values())))
            return self._novelty.first(self._promising(posterior, rng), rng)

    def tell(self, trial: Trial) -> None:
        """Adds the result to the data."""
        self._novelty.tell(trial)
        if not trial.state.is_finished:
            self._begun += 1
            self._running[trial.number] = trial.sample
            return
        self._running.pop(trial.number, None)
        if trial.values is not None:
            self._samples.append(trial.sample)
            self._model.add(self._encode(trial.sample), self._task.losses(trial)[0])

    def _promising(self, posterior: Posterior, rng: random.Random) -> list[Sample]:
        """Candidates, the most promising first: the best ones of a round are the parents of the next."""
        samples = [*self._samples, *self._running.values()]
        parents = [samples[i] for i in posterior.order[:_PARENTS]]
        ranked: list[tuple[float, Sample]] = []
        for _ in range(_ROUNDS):
            found = self._novelty.mutants(parents, self.candidates, rng)
            if found:
                # Candidates that are alike by symmetry must tie, whatever the last bits are on this machine.
                gains = posterior.expected_improvement(self._encoded(found)).round(decimals=9).tolist()
                ranked = sorted([*ranked, *zip(gains, found, strict=True)], key=lambda pair: -pair[0])
                ranked = ranked[: self.candidates]
                parents = [sample for _, sample in ranked[:_PARENTS]]
        return [sample for _, sample in ranked]

    def _encoded(self, samples: list[Sample]) -> Tensor:
        return torch.tensor([self._encode(sample) for sample in samples], dtype=torch.float64).reshape(
            len(samples), self._encode.width
        )


@final
@dataclass(frozen=True, kw_only=True)
class Kernel:
    """`linear * s + quadratic * s**2 + local * exp(4 (s - 1))`, where s is the cosine between two vectors."""

    linear: float
    quadratic: float
    local: float
    noise: float

    @property
    def variance(self) -> float:
        """Of one point: the kernel at s = 1."""
        return self.linear + self.quadratic + self.local

    def __call__(self, similarity: Tensor) -> Tensor:
        """The covariances, of the shape of the similarities."""
        covariance = similarity * (self.linear + self.quadratic * similarity)
        return covariance + self.local * torch.exp(_LOCAL * (similarity - 1)) if self.local else covariance


@final
class KernelModel:
    """The data, and what they say.

    Args:
        width: of the vectors.

    Example:
        >>> model = KernelModel(2)
        >>> model.add([1.0, 0.0], 3.0)
        >>> model.add([0.0, 1.0], 5.0)
        >>> model.posterior(torch.empty(0, 2, dtype=torch.float64)).order
        [0, 1]
    """

    def __init__(self, width: int) -> None:
        self._rows = torch.empty(16, width, dtype=torch.float64)
        self._losses: list[float] = []
        self._fitted = 0
        """How many points the kernel was chosen by."""
        self._factor = torch.empty(0, 0, dtype=torch.float64)

    def add(self, row: list[float], loss: float) -> None:
        """Adds a point: a vector, and its loss."""
        if len(self._losses) == len(self._rows):
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows)])
        vector = torch.tensor(row, dtype=torch.float64)
        self._rows[len(self._losses)] = vector / vector.norm().clamp_min(1e-12)
        self._losses.append(loss)

    def posterior(self, expected: Tensor) -> Posterior:
        """What the points say.

        Args:
            expected: (points, width), vectors whose losses are taken to be what the others make one expect.
        """
        number = len(self._losses)
        losses = torch.tensor(self._losses, dtype=torch.float64)
        rows = self._rows[:number]
        self._fit(rows, losses)
        losses = _standardised(losses)
        self._factor = _extended(self._factor, rows, self.kernel)
        first = Posterior(kernel=self.kernel, rows=rows, losses=losses, factor=self._factor)
        if not len(expected):
            return first
        expected = expected / expected.norm(dim=1, keepdim=True).clamp_min(1e-12)
        every = torch.cat([rows, expected])
        guessed = torch.cat([losses, first.predict(expected)[0]])
        return Posterior(
            kernel=self.kernel, rows=every, losses=guessed, factor=_extended(self._factor, every, self.kernel)
        )

    def _fit(self, rows: Tensor, losses: Tensor) -> None:
        """Chooses the kernel anew whenever there is a fifth more to go by."""
        size = 2
        while (following := max(size + 1, size * 6 // 5)) <= len(losses):
            size = following
        if size == self._fitted:
            return
        self._fitted = size
        chosen = torch.linspace(0, size - 1, min(size, _ENOUGH)).long()
        # Nothing that came later has a say in it: a replay, which fits later, must choose the same.
        self.kernel = _likeliest(rows[chosen], _standardised(losses[chosen]))
        self._factor = torch.linalg.cholesky(_covariance(rows[:size], self.kernel))


@final
class Posterior:
    """What a Gaussian process expects. Losses are standardised here: mean 0, deviation 1.

    Args:
        kernel: of the process.
        rows: (points, width), of length 1.
        losses: (points,).
        factor: (points, points), the Cholesky factor of the covariance.
    """

    def __init__(self, *, kernel: Kernel, rows: Tensor, losses: Tensor, factor: Tensor) -> None:
        self._kernel, self._rows, self._factor = kernel, rows, factor
        half = torch.linalg.solve_triangular(factor, losses[:, None], upper=False)
        self._solved = torch.linalg.solve_triangular(factor.T, half, upper=True)
        self._scale = float((half**2).sum()) / len(losses)
        smooth = losses - kernel.noise * self._solved[:, 0]
        self._best = float(smooth.min())
        self.order: list[int] = torch.argsort(smooth, stable=True).tolist()
        """The points by what is expected of them, the best first."""

    def predict(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation for vectors (points, width): two tensors (points,)."""
        rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
        covariance = self._kernel(rows @ self._rows.T)
        mean = (covariance @ self._solved)[:, 0]
        explained = torch.linalg.solve_triangular(self._factor, covariance.T, upper=False)
        left = (self._kernel.variance - (explained**2).sum(0)).clamp_min(1e-9)
        return mean, (left * self._scale).sqrt()

    def expected_improvement(self, rows: Tensor) -> Tensor:
        """How much better than the best point vectors (points, width) are expected to be, were they not worse."""
        mean, deviation = self.predict(rows)
        gap = (self._best - mean) / deviation
        density = torch.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi)
        gain: Tensor = deviation * (gap * torch.special.ndtr(gap) + density)
        return gain


def _standardised(losses: Tensor) -> Tensor:
    return (losses - losses.mean()) / losses.std().clamp_min(1e-12)


def _covariance(rows: Tensor, kernel: Kernel) -> Tensor:
    return kernel(rows @ rows.T) + kernel.noise * torch.eye(len(rows), dtype=torch.float64)


def _extended(factor: Tensor, rows: Tensor, kernel: Kernel) -> Tensor:
    """The Cholesky factor for more rows than it has: one after the other, so that its bits do not depend on when."""
    old, number = len(factor), len(rows)
    if old == number:
        return factor
    whole = torch.zeros(number, number, dtype=torch.float64)
    whole[:old, :old] = factor
    for i in range(old, number):
        across = kernel(rows[:i] @ rows[i])
        below = torch.linalg.solve_triangular(whole[:i, :i], across[:, None], upper=False)[:, 0]
        whole[i, :i] = below
        whole[i, i] = (kernel.variance + kernel.noise - below @ below).clamp_min(1e-10).sqrt()
    return whole


def _likeliest(rows: Tensor, losses: Tensor) -> Kernel:
    """The kernel under which the losses are most likely, the scale of the process being the best for each."""
    similarity = rows @ rows.T
    kernels = [
        Kernel(linear=linear, quadratic=quadratic, local=local, noise=noise)
        for linear, quadratic, local in _WEIGHTS
        for noise in _NOISES
    ]
    unit = torch.eye(len(rows), dtype=torch.float64)
    factors, faults = torch.linalg.cholesky_ex(torch.stack([k(similarity) + k.noise * unit for k in kernels]))
    halves = torch.linalg.solve_triangular(factors, losses[None, :, None].expand(len(kernels), -1, 1), upper=False)
    misfit = 0.5 * len(losses) * torch.log((halves**2).sum((1, 2)) / len(losses))
    worth = -misfit - factors.diagonal(dim1=1, dim2=2).log().sum(1)
    worth[faults != 0] = -math.inf
    return kernels[int(worth.argmax())]
