"""The learner: what an algorithm of one-shot search does with a supernet in each step, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from nas.samples import Sample

if TYPE_CHECKING:
    from nas.oneshot.search_module import SearchModule

Judge: TypeAlias = Callable[[Sample], float]
"""What a subnet with the shared weights is worth in validation; more is better."""


class Learner(nn.Module, ABC):
    """The state of an algorithm. Its parameters are those of the architecture; the weights are in `model`.

    All that is random in it comes from the seed and the numbers of step and epoch, so that every device trains the
    same path, and a search that goes on goes on exactly as it would have.
    """

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """What the evaluator trains: takes the network's inputs; its parameters are the weights."""

    @abstractmethod
    def optimizers(self) -> list[Optimizer]:
        """Of the architecture."""

    @abstractmethod
    def step(self, search: SearchModule, train: Any, validation: Any) -> Mapping[str, Tensor]:
        """One step of the search.

        Args:
            search: has the losses and the optimizers.
            train: a batch of training data.
            validation: a batch of validation data; None unless `needs_validation`.

        Returns:
            Losses to log, by name.
        """

    @property
    @abstractmethod
    def needs_validation(self) -> bool:
        """Whether `step` is to be given batches of validation data."""

    @abstractmethod
    def show(self, search: SearchModule) -> None:
        """Makes the model what is validated: the mixture, or the path that is thought best."""

    @abstractmethod
    def begin_epoch(self, search: SearchModule) -> None:
        """Before the training steps of an epoch, or of what is left of it."""

    @abstractmethod
    def end_epoch(self, search: SearchModule) -> None:
        """After the training steps of an epoch."""

    @property
    @abstractmethod
    def stopped(self) -> bool:
        """Whether the search has been ended early; part of the state that checkpoints hold."""

    @abstractmethod
    def logged(self) -> dict[str, float]:
        """What is worth a curve: the entropy of each label, say."""

    @abstractmethod
    def rank(self, k: int, judge: Judge) -> list[Sample]:
        """The k best samples, best first; fewer where there are not so many."""

    @property
    @abstractmethod
    def has_weights(self) -> bool:
        """Whether its architectures can take its weights along."""

    @abstractmethod
    def select(self, sample: Sample) -> None:
        """Makes the model compute one architecture."""

    @abstractmethod
    def extract(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with its own copy of the weights."""

    @abstractmethod
    def check(self, example: tuple[Any, ...]) -> None:
        """Raises a NasError where the supernet does not compute what its architectures would."""
