"""Bayesian optimisation by a Gaussian process on path encodings."""

from __future__ import annotations

import random
from typing import final

import torch
from torch import Tensor

from nas.checks import check_int
from nas.protocols import Strategy, Task, Trial, check_single
from nas.random_state import one_thread
from nas.space import Sample
from nas.strategies.candidates import mutants
from nas.strategies.encoding import PathEncoding
from nas.strategies.kernel_model import KernelModel, Posterior
from nas.strategies.novelty import Novelty

_ROUNDS = 3
_PARENTS = 10


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
            found = mutants(self._task.space, parents, self.candidates, novelty=self._novelty, rng=rng)
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
