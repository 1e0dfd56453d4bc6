"""The learner of shared weights: each step trains the weights of one path or a few; a chooser says which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nas.domains import Sample
from nas.example_inputs import Inputs
from nas.oneshot.paths import PathSupernet
from nas.oneshot.training.learner import Judge, Learner, Search

Distillation: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(what a subnet says, what the largest one says) -> a loss."""


class Chooser(ABC):
    """Chooses paths. What is random comes from the seed and the numbers of step and epoch."""

    @abstractmethod
    def paths(self, step: int) -> list[Sample]:
        """What is trained in a step; with distillation the first one teaches the others."""

    @abstractmethod
    def favourite(self) -> Sample:
        """What is validated after an epoch."""

    @abstractmethod
    def learn(self, search: Search, reward: Callable[[Sample, Any], float]) -> None:
        """After an epoch; `reward(sample, batch)` is what a path is worth on a batch of `search.validation_batches`."""

    @abstractmethod
    def rank(self, k: int, judge: Judge) -> list[Sample]:
        """The k best samples, best first."""

    @abstractmethod
    def logged(self) -> dict[str, float]:
        """What is worth a curve."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that a checkpoint must hold, as plain data and tensors."""

    @abstractmethod
    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""


@final
class PathLearner(Learner):
    """Trains one path after the other.

    Args:
        supernet: the shared weights.
        chooser: of paths.
        distillation: what paths after the first of a step learn from the first; their own loss where None.
    """

    def __init__(self, supernet: PathSupernet, chooser: Chooser, distillation: Distillation | None = None) -> None:
        super().__init__()
        self._supernet = (supernet,)
        self._chooser, self._distillation = chooser, distillation
        self._said: list[Tensor] = []
        self._paths: list[Sample] = []
        self._left_out = 0
        self._listening: RemovableHandle | None = None

    @property
    def supernet(self) -> PathSupernet:
        """The shared weights."""
        return self._supernet[0]

    @property
    def model(self) -> nn.Module:
        """Runs the path that is selected."""
        return self.supernet

    @property
    def needs_validation(self) -> bool:
        """Not in the steps of training."""
        return False

    @property
    def stopped(self) -> bool:
        """Never."""
        return False

    def optimizers(self) -> list[Optimizer]:
        """None that Lightning must know: what a chooser learns, it learns by itself."""
        return []

    def get_extra_state(self) -> dict[str, Any]:
        """The chooser's."""
        return self._chooser.state()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """The chooser's."""
        self._chooser.load(state)

    def prepare(self, search: Search, train: Any, validation: Any) -> dict[str, Tensor]:
        """The first of the step's paths is what the evaluator's step trains."""
        self._paths = self._chooser.paths(search.done)
        self.supernet.select(self._paths[0])
        self._said.clear()
        if self._distillation is not None and self._listening is None:
            self._listening = self.supernet.register_forward_hook(self._hear)
        return {}

    @property
    def parts(self) -> int:
        """One for each path."""
        return len(self._paths)

    def other_losses(self, search: Search, train: Any) -> Iterator[Tensor]:
        """Those of the other paths, which may learn from the first."""
        teacher = self._said[-1].detach() if self._distillation is not None else None
        for sample in self._paths[1:]:
            self.supernet.select(sample)
            loss = search.loss(train)
            yield loss if teacher is None or self._distillation is None else self._distillation(self._said[-1], teacher)

    def finish(self, search: Search) -> None:
        """Begins to build what the next steps train."""
        if self._listening is not None:
            self._listening.remove()
            self._listening = None
        self._said.clear()
        self.supernet.prepare([sample for step in (0, 1) for sample in self._chooser.paths(search.done + step)])

    def _hear(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._said = [output]

    def show(self, search: Search) -> None:
        """The chooser's favourite."""
        self.supernet.select(self._chooser.favourite())

    def begin_epoch(self, search: Search) -> None:
        """Nothing to prepare."""

    def end_epoch(self, search: Search) -> None:
        """Lets the chooser learn."""

        def reward(sample: Sample, batch: Any) -> float:
            self.supernet.select(sample)
            return search.value(search.metrics([batch], batch_statistics=self.supernet))

        self._chooser.learn(search, reward)
        if len(self.supernet.uncovered) > self._left_out:
            self._left_out = len(self.supernet.uncovered)
            search.note(
                f"supernet: {self._left_out} of the architectures that were drawn need larger weights than it has, for "
                "several choices decide them together; they are left out"
            )

    def curvature(self, search: Search, batch: Any) -> None:
        """A path has no architecture parameters."""

    def logged(self) -> dict[str, float]:
        """The chooser's."""
        return self._chooser.logged()

    def rank(self, k: int, judge: Judge) -> list[Sample]:
        """The chooser's."""
        return self._chooser.rank(k, judge)

    @property
    def has_weights(self) -> bool:
        """Yes."""
        return True

    def select(self, sample: Sample) -> None:
        """Makes the model compute one architecture."""
        self.supernet.select(sample)

    def extract(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with its own copy of the weights."""
        return self.supernet.extract(sample, settings=False)  # the evaluator's module sets what it sets once more

    def check(self, example: Inputs) -> None:
        """Compares paths with the architectures that they stand for."""
        space = self.supernet.space
        self.supernet.check(example, [space.default(), *(space.sample(seed) for seed in range(3))])


def soft_cross_entropy(scores: Tensor, teacher: Tensor) -> Tensor:
    """The cross entropy of a subnet's scores with the teacher's probabilities, both (batch, classes, ...)."""
    return torch.nn.functional.cross_entropy(scores, teacher.softmax(1))
