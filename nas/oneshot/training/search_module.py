"""The LightningModule of one-shot search: the evaluator's own steps on a supernet, and the learner's beside them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.errors import NasTypeError, NasValueError, explain
from nas.oneshot.training.distributed import average_gradients, broadcast_buffers
from nas.oneshot.training.learner import Learner
from nas.oneshot.training.measures import Logged, measure, size_of, to_device, train_step
from nas.oneshot.training.optimizers import Optimization, read_optimization
from nas.protocols import Direction

_REFUSED = (
    "optimizer_step",
    "optimizer_zero_grad",
    "lr_scheduler_step",
    "configure_gradient_clipping",
    "backward",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_optimizer_step",
)


@final
class SearchModule(LightningModule):
    """Trains a supernet: `inner` says what the loss is, `learner` which subnet or mixture is trained.

    Args:
        inner: the evaluator's module, which holds the learner's model.
        learner: of the algorithm.
        clip: `gradient_clip_val` and `gradient_clip_algorithm` of the weights.
        metric: that subnets are ranked by.
        direction: of it.
    """

    def __init__(
        self,
        inner: LightningModule,
        learner: Learner,
        *,
        clip: tuple[float | None, str | None],
        metric: str,
        direction: Direction,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.inner: LightningModule = inner
        self.learner, self.metric, self.direction = learner, metric, direction
        self.validation: Callable[[int], Iterator[Any]] | None = None
        self.after_epoch: Callable[[], None] = _nothing
        self._clip = clip
        self.done = 0
        """Training steps since the beginning of the search."""
        self.position = 0
        """Training steps since the beginning of the epoch."""
        self.optimization = Optimization()
        self.weights: list[nn.Parameter] = []
        """The parameters of `inner`, as they were when the epoch began: thousands are slow to collect."""
        self._logged = Logged(self)
        self._logged.attach(inner)

    # What the learner calls.

    def training_loss(self, batch: Any) -> Tensor:
        """The evaluator's training loss of a batch, under whatever the model is at the moment; it is logged."""
        out = train_step(self.inner, batch, self.position)
        loss = out["loss"] if isinstance(out, Mapping) else out
        if not isinstance(loss, Tensor):
            raise NasTypeError(
                explain(
                    "training_step must return a loss, or a dict with one", got=loss, where=type(self.inner).__name__
                )
            )
        return loss

    def loss(self, batch: Any) -> Tensor:
        """The same, for what is no step of the weights: nothing of it is logged."""
        with self._logged.catching():
            return self.training_loss(batch)

    def metrics(self, batches: Iterable[Any], *, batch_statistics: nn.Module | None = None) -> dict[str, float]:
        """The evaluator's validation metrics over some batches, under whatever the model is at the moment.

        Args:
            batches: of validation data.
            batch_statistics: a module whose batch normalisation goes by the statistics of each batch.
        """
        with self.trainer.precision_plugin.val_step_context():
            return measure(self.inner, self._logged, batches, batch_statistics=batch_statistics)

    def measured(self, batches: Iterable[Any]) -> dict[str, float]:
        """The same without a Trainer."""
        return measure(self.inner, self._logged, batches)

    def validation_batches(self, seed: int) -> Iterator[Any]:
        """Batches of validation data without end, on the device, in an order of the seed."""
        assert self.validation is not None, "set before training"
        for batch in self.validation(seed):
            yield to_device(batch, self.device)

    def zero_weights(self) -> None:
        """Forgets the gradients of the weights."""
        for optimizer in self.optimization.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def step_weights(self) -> None:
        """Clips, and steps the evaluator's optimizers and those of its schedulers that go by the step."""
        for optimizer in self.optimization.optimizers:
            average_gradients(p for group in optimizer.param_groups for p in group["params"])
            self._wrapped[id(optimizer)].step()
        for schedule in self.optimization.schedules:
            if schedule.interval == "step" and (self.done + 1) % schedule.frequency == 0:
                schedule.step(None)

    def step_architecture(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Steps one of the learner's optimizers, the gradients of all devices averaged."""
        average_gradients(parameters)
        self._wrapped[id(optimizer)].step()

    @property
    def weight_optimizers(self) -> list[Optimizer]:
        """The evaluator's."""
        return self.optimization.optimizers

    @property
    def epochs(self) -> int:
        """How many the search has."""
        epochs = self.trainer.max_epochs
        assert epochs is not None, "a search has a number of epochs"
        return epochs

    def value(self, metrics: Mapping[str, float]) -> float:
        """The metric that subnets are ranked by; more is better."""
        value = metrics[self.metric]
        return value if self.direction == "maximize" else -value

    def backward_into(self, loss: Tensor, inputs: list[nn.Parameter] | None = None) -> None:
        """Adds the gradients of a loss to those of the inputs, all weights where omitted, in the search's precision."""
        self.manual_backward(loss, **({} if inputs is None else {"inputs": inputs}))

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as mixed precision wants it before its gradients are taken by hand."""
        found: Tensor = self.trainer.precision_plugin.pre_backward(loss, self)
        return found

    def stop(self) -> None:
        """Ends the search after this epoch."""
        self.trainer.should_stop = True

    @property
    def _wrapped(self) -> dict[int, Any]:
        found = self.optimizers()
        each: list[Any] = list(found) if isinstance(found, list) else [found]
        return {id(wrapped.optimizer): wrapped for wrapped in each}

    # What Lightning calls.

    def configure_optimizers(self) -> Any:
        """The evaluator's optimizers, and after them the learner's."""
        self.optimization = read_optimization(self.inner.configure_optimizers())
        architecture = {id(p) for p in self.learner.parameters()}
        for optimizer in self.optimization.optimizers:
            if any(id(p) in architecture for group in optimizer.param_groups for p in group["params"]):
                raise NasValueError(
                    explain(
                        "the optimizer of the weights must not hold architecture parameters",
                        where=f"{type(self.inner).__name__}.configure_optimizers",
                        mend="give it self.model.parameters()",
                    )
                )
        return [*self.optimization.optimizers, *self.learner.optimizers()]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the gradients of the weights; by now mixed precision has taken its scale out of them."""
        if self._clip[0] is not None and any(optimizer is each for each in self.optimization.optimizers):
            self.clip_gradients(optimizer, gradient_clip_val=self._clip[0], gradient_clip_algorithm=self._clip[1])

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """One step of the algorithm."""
        self._logged.names.clear()
        losses = self.learner.step(self, batch["train"], batch.get("validation"))
        self.done += 1
        self.position += 1
        size = size_of(batch["train"])
        for name, value in losses.items():
            if name in self._logged.names:
                continue  # the evaluator's module logs it, in its own way
            self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The evaluator's, on what the learner shows in validation."""
        taken = len(inspect.signature(self.inner.validation_step).parameters)
        return self.inner.validation_step(*(batch, batch_idx, dataloader_idx)[:taken])

    def on_train_epoch_start(self) -> None:
        """Tells the learner and the evaluator's module."""
        self.learner.begin_epoch(self)
        self.inner.on_train_epoch_start()
        self.weights = list(self.inner.parameters())

    def on_train_epoch_end(self) -> None:
        """The learner's part between epochs; the position begins anew."""
        self.inner.on_train_epoch_end()
        broadcast_buffers(self)
        self.learner.end_epoch(self)
        self.log_dict({name: float(value) for name, value in self.learner.logged().items()})
        for schedule in self.optimization.schedules:
            if schedule.interval == "epoch" and (self.current_epoch + 1) % schedule.frequency == 0:
                schedule.step(self.trainer.callback_metrics)
        self.position = 0
        self.after_epoch()

    def on_validation_epoch_start(self) -> None:
        """What the learner shows is validated, on all devices the same."""
        broadcast_buffers(self)
        self.learner.show(self)
        self.inner.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        """The evaluator's."""
        self.inner.on_validation_epoch_end()

    def on_fit_start(self) -> None:
        """The evaluator's."""
        self.inner.on_fit_start()

    def on_train_start(self) -> None:
        """The evaluator's."""
        self.inner.on_train_start()

    def on_train_end(self) -> None:
        """The evaluator's."""
        self.inner.on_train_end()


def refuse_module(inner: LightningModule) -> None:
    """Raises where a module cannot be trained step by step from outside."""
    name = type(inner).__name__
    if not inner.automatic_optimization:
        raise NasValueError(
            explain(
                "one-shot search optimises the weights itself, by training_step and configure_optimizers",
                got="automatic_optimization=False",
                where=name,
            )
        )
    found = [hook for hook in _REFUSED if is_overridden(hook, inner) and not _is_ours(inner, hook)]
    if found:
        raise NasValueError(
            explain(
                "one-shot search does not call these hooks of a module", got=found, where=name, mend="leave them out"
            )
        )
    for hook in ("training_step", "validation_step", "configure_optimizers"):
        if not is_overridden(hook, inner):
            raise NasTypeError(explain(f"one-shot search needs a module with {hook}", got=name))


def _is_ours(inner: LightningModule, hook: str) -> bool:
    return str(getattr(type(inner), hook).__module__).startswith("nas.")


def _nothing() -> None:
    """Nobody waits for the end of an epoch."""
