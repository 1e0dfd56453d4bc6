"""The learner: what an algorithm of one-shot search does with a supernet in each step, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from nas.domains import Sample

Judge: TypeAlias = Callable[[Sample], float]
"""What a subnet with the shared weights is worth in validation; more is better."""


class Search(Protocol):
    """What a learner may ask of the search that it learns in."""

    @property
    def inner(self) -> nn.Module:
        """The evaluator's module, which holds the learner's model."""

    @property
    def weights(self) -> list[nn.Parameter]:
        """Its parameters, as they were when the epoch began."""

    @property
    def weight_optimizers(self) -> list[Optimizer]:
        """The evaluator's."""

    @property
    def done(self) -> int:
        """Training steps since the beginning of the search."""

    @property
    def current_epoch(self) -> int:
        """The number of this epoch, from 0 on."""

    @property
    def epochs(self) -> int:
        """How many the search has."""

    def training_loss(self, batch: Any) -> Tensor:
        """The evaluator's training loss of a batch, under whatever the model is at the moment; it is logged."""

    def loss(self, batch: Any) -> Tensor:
        """The same, for what is no step of the weights: nothing of it is logged."""

    def metrics(self, batches: Iterable[Any], *, batch_statistics: nn.Module | None = None) -> dict[str, float]:
        """The evaluator's validation metrics over some batches."""

    def value(self, metrics: Mapping[str, float]) -> float:
        """The metric that subnets are ranked by; more is better."""

    def validation_batches(self, seed: int) -> Iterator[Any]:
        """Batches of validation data without end, on the device, in an order of the seed."""

    def zero_weights(self) -> None:
        """Forgets the gradients of the weights."""

    def step_weights(self) -> None:
        """Clips, and steps the evaluator's optimizers."""

    def step_architecture(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Steps one of the learner's optimizers, the gradients of all devices averaged."""

    def backward_into(self, loss: Tensor, inputs: list[nn.Parameter] | None = None) -> None:
        """Adds the gradients of a loss to those of the inputs, all weights where omitted, in the search's precision."""

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as mixed precision wants it before its gradients are taken by hand."""

    def stop(self) -> None:
        """Ends the search after this epoch."""


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
    def step(self, search: Search, train: Any, validation: Any) -> Mapping[str, Tensor]:
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
    def show(self, search: Search) -> None:
        """Makes the model what is validated: the mixture, or the path that is thought best."""

    @abstractmethod
    def begin_epoch(self, search: Search) -> None:
        """Before the training steps of an epoch, or of what is left of it."""

    @abstractmethod
    def end_epoch(self, search: Search) -> None:
        """After the training steps of an epoch."""

    @property
    @abstractmethod
    def stopped(self) -> bool:
        """Whether the search has been ended early; part of the state that checkpoints hold."""

    @abstractmethod
    def curvature(self, search: Search, batch: Any) -> float | None:
        """The largest eigenvalue of the Hessian of a batch's loss in the architecture parameters; None without any."""

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
