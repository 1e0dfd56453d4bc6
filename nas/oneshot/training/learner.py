"""The learner: what an algorithm of one-shot search does with a supernet in each step, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from nas.domains import Sample
from nas.example_inputs import Inputs
from nas.oneshot.speed import Recorder
from nas.oneshot.training.measures import IndexedBatch


class Judge(Protocol):
    """What a subnet with the shared weights is worth in validation; more is better."""

    def __call__(self, sample: Sample, batches: int | None = None) -> float:
        """The worth of a sample.

        Args:
            sample: of the subnet.
            batches: of validation data; for None all of them, or `judge_batches`. Fewer come with as much smaller a
                share of the training batches for its batch statistics.
        """

    def each(self, samples: Iterable[Sample], batches: int | None = None) -> Iterator[float]:
        """The worth of several samples, in their order; on a device that is left idle by one, some at a time.

        Args:
            samples: of the subnets.
            batches: as for one.
        """

    @property
    def batches(self) -> int:
        """How many batches of validation data a whole judgement has."""

    def passes(self, batches: int | None = None) -> int:
        """How many batches a judgement runs in all, those for the batch statistics among them."""

    def expect(self, paths: int, whole: float) -> None:
        """Says how many samples will be asked about, for the progress that is shown.

        Args:
            paths: different samples.
            whole: as how many whole judgements that takes.
        """


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
    def epochs(self) -> int | None:
        """How many the search has; None where something else ends it."""

    def loss(self, batch: Any) -> Tensor:
        """The evaluator's training loss of a batch, under whatever the model is at the moment; nothing of it is logged.

        A training step that returns None has a loss of 0, which needs no gradient.
        """

    def metrics(
        self, batches: Iterable[IndexedBatch], *, batch_statistics: nn.Module | None = None
    ) -> dict[str, float]:
        """The evaluator's validation metrics over some batches."""

    def value(self, metrics: Mapping[str, float]) -> float:
        """The metric that subnets are ranked by; more is better."""

    def validation_batches(self, seed: int) -> Iterator[IndexedBatch]:
        """Endless batches of validation data, on the device, in an order of the seed; each with its loader's number."""

    def step_architecture(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Steps one of the learner's optimizers, the gradients of all devices averaged."""

    def backward_into(self, loss: Tensor, inputs: list[nn.Parameter]) -> None:
        """Adds the gradients of a loss to those of the inputs, in the search's precision."""

    def record_updates(self, recorder: Callable[[], Recorder], tell: Callable[[str], object]) -> None:
        """Records what clips the gradients of the weights and updates these, from now on or anew.

        Args:
            recorder: makes the recorder of the device.
            tell: is told, in words, what runs as it is, and why.
        """

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as mixed precision wants it before its gradients are taken by hand."""

    def stop(self) -> None:
        """Ends the search after this epoch."""

    def note(self, text: str) -> None:
        """Shows a line to the user."""


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
    def prepare(self, search: Search, train: Any, validation: Any) -> Mapping[str, Tensor]:
        """Before a training step: makes the model what the step is to train, and lets the architecture learn.

        The evaluator's own training step, its optimizers and hooks follow, as Lightning calls them.

        Args:
            search: has the losses and the optimizers.
            train: a batch of training data.
            validation: a batch of validation data; None unless `needs_validation`.

        Returns:
            Losses to log, by name.
        """

    @property
    def parts(self) -> int:
        """How many losses a step of the weights has: that of the evaluator's training step, and `other_losses`."""
        return 1

    def other_losses(self, search: Search, train: Any) -> Iterator[Tensor]:
        """What else the weights learn from in the same step, after the gradients of the first loss were taken."""
        return iter(())

    def differentiate(self, loss: Tensor) -> bool:
        """Does what `loss.backward()` does, by a quicker way where there is one.

        Returns:
            Whether it did; else nothing was done.
        """
        return False

    def finish(self, search: Search) -> None:
        """After a training step."""

    @property
    @abstractmethod
    def needs_validation(self) -> bool:
        """Whether `prepare` is to be given batches of validation data."""

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
        """The largest eigenvalue of the Hessian of a batch's loss in the architecture parameters; None without any.

        Raises:
            NasValueError: an operation of the network cannot be differentiated twice.
        """

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
    def check(self, example: Inputs) -> None:
        """Raises a NasError where the supernet does not compute what its architectures would."""
