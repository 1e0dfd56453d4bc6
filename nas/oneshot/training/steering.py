"""What a search does while Lightning trains the evaluator's own module: between its steps the learner does its part."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import LBFGS, Optimizer
from torchmetrics import Metric

from nas._compat.lightning_families import family_of
from nas._compat.lightning_loops import epoch_results, on_device
from nas.errors import NasTypeError, NasValueError, explain
from nas.oneshot.speed import RecordedClipping, Recorder, record_updates
from nas.oneshot.training.batches import generators_of, is_collection, of_validation, same_structure
from nas.oneshot.training.clips import Clips
from nas.oneshot.training.distributed import average_gradients, broadcast_buffers
from nas.oneshot.training.learner import Learner
from nas.oneshot.training.measures import (
    IndexedBatch,
    catching,
    measure,
    metrics_of_module,
    size_of,
    train_step,
    untouched,
)
from nas.oneshot.training.scaling import make_patient
from nas.protocols import Direction
from nas.random_state import derive_seed


@final
class Steering(Callback):
    """Steers the training of a supernet, which Lightning fits as it fits any module: with all of its hooks.

    Before each training step the learner decides what the model is: a path, or a mixture after a step of the
    architecture parameters. The rest is the module's own training step and Lightning's own loop.

    Args:
        inner: the evaluator's module, which holds the learner's model.
        learner: of the algorithm.
        metric: that subnets are ranked by.
        direction: of it.
        seed: of the search.
    """

    def __init__(
        self, inner: LightningModule, learner: Learner, *, metric: str, direction: Direction, seed: int
    ) -> None:
        self.inner, self.learner, self.metric, self.direction = inner, learner, metric, direction
        self.trainer: Trainer | None = None
        """Of the fit that goes on."""
        self.train_loaders: Any = None
        """The evaluator's loaders of training data, as they were last made."""
        self.weights: list[nn.Parameter] = []
        """The parameters of `inner`, as they were when the epoch began: thousands are slow to collect."""
        self.metrics_inside: list[Metric] = []
        self.show: Callable[[str], object] | None = None
        """Shows a line to the user; only while a fit goes on, as what shows it may not go to other processes."""
        self.done = 0
        """Training steps since the beginning of the search."""
        self.position = 0
        """Training steps since the beginning of the epoch."""
        self.resumed = False
        """Whether the fit goes on inside an epoch."""
        self._seed = seed
        self._batch: Any = None
        self._validation: Iterator[IndexedBatch] | None = None
        self._clips: Clips | None = None
        self._clippings: list[RecordedClipping] = []

    # What the learner calls.

    def loss(self, batch: Any) -> Tensor:
        """The evaluator's training loss of a batch, whatever the model is at the moment; nothing of it is logged."""
        with catching(self.inner), untouched(self.metrics_inside):
            if self.trainer is None:
                out = train_step(self.inner, batch, self.position)
            else:
                with self.trainer.precision_plugin.train_step_context():
                    out = train_step(self.inner, batch, self.position)
        loss = out["loss"] if isinstance(out, Mapping) else out
        if loss is None:  # a batch that the module leaves out
            return torch.zeros(())
        if not isinstance(loss, Tensor):
            raise NasTypeError(
                explain(
                    "training_step must return a loss, or a dict with one", got=loss, where=type(self.inner).__name__
                )
            )
        return loss

    def metrics(
        self, batches: Iterable[IndexedBatch], *, batch_statistics: nn.Module | None = None
    ) -> dict[str, float]:
        """The evaluator's validation metrics over some batches, under whatever the model is at the moment.

        Args:
            batches: of validation data, each with the number of its loader.
            batch_statistics: a module whose batch normalisation goes by the statistics of each batch.
        """
        trainer = self._fit
        trainer.validating = True
        try:
            with trainer.precision_plugin.val_step_context():
                return measure(self.inner, batches, batch_statistics=batch_statistics)
        finally:
            trainer.training = True

    def validation_batches(self, seed: int) -> Iterator[IndexedBatch]:
        """Endless batches of validation data, on the device, in an order of the seed; each with its loader's number."""
        trainer = self._fit
        return ((on_device(trainer, batch, loader), loader) for batch, loader in self._raw_validation(seed))

    def _raw_validation(self, seed: int) -> Iterator[IndexedBatch]:
        loaders = self._fit.val_dataloaders
        if loaders is None:
            loaders = self._fit.datamodule.val_dataloader()  # type: ignore[attr-defined]  # it was given one
        return of_validation(loaders, seed, like=self.train_loaders)

    def step_architecture(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Steps one of the learner's optimizers, the gradients of all devices averaged."""
        average_gradients(parameters)
        scaler = self._scaler
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()

    @property
    def weight_optimizers(self) -> list[Optimizer]:
        """The evaluator's."""
        return [] if self.trainer is None else self.trainer.optimizers

    @property
    def current_epoch(self) -> int:
        """The number of this epoch, from 0 on."""
        return self._fit.current_epoch

    @property
    def epochs(self) -> int | None:
        """How many the search has; None where something else ends it."""
        trainer = self._fit
        if trainer.max_epochs is not None and trainer.max_epochs != -1:
            return trainer.max_epochs
        total = trainer.estimated_stepping_batches
        steps = trainer.num_training_batches // trainer.accumulate_grad_batches
        return None if total == float("inf") else max(1, int(-(-total // max(1, steps))))

    def value(self, metrics: Mapping[str, float]) -> float:
        """The metric that subnets are ranked by; more is better.

        Raises:
            NasValueError: it is not among them.
        """
        if self.metric not in metrics:
            raise NasValueError(
                explain(
                    "subnets are ranked by a metric that validation logs",
                    got=self.metric,
                    where="objective",
                    mend=f"one of {', '.join(map(repr, metrics))}",
                )
            )
        value = metrics[self.metric]
        return value if self.direction == "maximize" else -value

    def backward_into(self, loss: Tensor, inputs: list[nn.Parameter]) -> None:
        """Adds the gradients of a loss to those of the inputs, in the search's precision."""
        if loss.requires_grad:
            self.scaled(loss).backward(inputs=inputs)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as mixed precision wants it before its gradients are taken by hand."""
        scaler = self._scaler
        return loss if scaler is None else scaler.scale(loss)

    def record_updates(self, recorder: Callable[[], Recorder], tell: Callable[[str], object]) -> None:
        """Records what clips the gradients of the weights and updates these, from now on or anew."""
        record_updates(self.weight_optimizers, recorder, tell)
        for clipping in self._clippings:
            clipping.forget()
        if not self._clippings and self._clips is not None:
            apart = self._clips.apart(self.inner)
            self._clippings = self._clips.replace(lambda clip: RecordedClipping(clip, recorder, tell, apart=apart))

    def stop(self) -> None:
        """Ends the search after this epoch."""
        self._fit.should_stop = True

    def note(self, text: str) -> None:
        """Shows a line to the user, from one device alone."""
        if self.show is not None:
            self.show(text)

    @property
    def _fit(self) -> Trainer:
        assert self.trainer is not None, "while Lightning fits"
        return self.trainer

    @property
    def _scaler(self) -> GradScaler | None:
        found: GradScaler | None = getattr(self._fit.precision_plugin, "scaler", None) if self.trainer else None
        return found

    # What Lightning calls.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remembers who trains."""
        self.trainer = trainer

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the architecture parameters to the device, and refuses what cannot be searched with."""
        self._refuse(trainer)
        trainer.precision_plugin.convert_module(self.learner)
        self.learner.to(trainer.strategy.root_device)
        self.metrics_inside = metrics_of_module(pl_module)
        if self._scaler is not None:
            make_patient(self._scaler)
        self._clips, self._clippings = Clips(trainer), []
        self._take_gradients(pl_module)

    def _refuse(self, trainer: Trainer) -> None:
        where = f"{type(self.inner).__name__}.configure_optimizers"
        architecture = {id(p) for p in self.learner.parameters()}
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, LBFGS):
                raise NasValueError(
                    explain(
                        "LBFGS computes a batch's loss several times in a step, and the supernet is another model in "
                        "each step",
                        got=type(optimizer).__name__,
                        where=where,
                        mend="take SGD or Adam for the search, and LBFGS for retraining",
                    )
                )
            if any(id(p) in architecture for group in optimizer.param_groups for p in group["params"]):
                raise NasValueError(
                    explain(
                        "the optimizer of the weights must not hold architecture parameters",
                        where=where,
                        mend="give it self.model.parameters()",
                    )
                )

    def _take_gradients(self, pl_module: LightningModule) -> None:
        """Lets the losses of further paths follow that of the training step; the module's own `backward` takes them."""
        given: Callable[..., None] = pl_module.backward
        is_usual = not family_of(pl_module).is_overridden("backward", pl_module)

        def backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            parts = self.learner.parts
            if loss.requires_grad:  # a path of skip connections alone has no weights
                part = loss if parts == 1 else loss / parts
                if args or kwargs or not (is_usual and self.learner.differentiate(part)):
                    given(part, *args, **kwargs)
            for other in self.learner.other_losses(self, self._batch):
                if other.requires_grad:
                    given(self.scaled(other / (parts * self._fit.accumulate_grad_batches)), *args, **kwargs)

        pl_module.__dict__["backward"] = backward

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on where a checkpoint was taken inside an epoch: the hook of its beginning is not called again."""
        if self.resumed:
            self._begin_epoch()
        self.resumed = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the learner."""
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.learner.begin_epoch(self)
        self.weights = list(self.inner.parameters())
        self._validation = None
        if self.learner.needs_validation:
            seed = derive_seed(derive_seed(self._seed, self.current_epoch), 1)
            devices, rank = self._fit.world_size, self._fit.global_rank
            raw = self._raw_validation(seed)
            self._validation = itertools.islice(raw, self.position * devices + rank, None, devices)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The learner's part of a step: it comes before that of the module."""
        self._batch = batch
        validation = None if self._validation is None else on_device(trainer, *next(self._validation))
        losses = self.learner.prepare(self, batch, validation)
        known = {key.rpartition(".")[2] for key in epoch_results(trainer)}
        for name, value in losses.items():
            if name not in known or f"on_train_batch_start.{name}" in epoch_results(trainer):
                pl_module.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=size_of(batch))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All devices have trained the same; each has gradients of its own batch."""
        average_gradients(self.weights)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Counts."""
        self._batch = None
        self.done += 1
        self.position += 1
        self.learner.finish(self)
        # A validation may follow: its order is the same whether the search has been interrupted or not.
        for generator in generators_of(trainer.val_dataloaders):
            generator.manual_seed(derive_seed(self._seed, self.done))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What the learner shows is validated, on all devices the same."""
        broadcast_buffers(pl_module)
        self.learner.show(self)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The learner's part between epochs; the position begins anew."""
        broadcast_buffers(pl_module)
        self.learner.end_epoch(self)
        pl_module.log_dict({name: float(value) for name, value in self.learner.logged().items()})
        self.position = 0

    def release(self) -> None:
        """After the fit, whatever ended it: the module is as the evaluator made it."""
        self.inner.__dict__.pop("backward", None)
        if self._clips is not None:
            self._clips.put_back()
        self._clips, self._clippings = None, []
        self.trainer, self._validation, self.show = None, None, None


def refuse_module(inner: LightningModule, learner: Learner, train_loaders: Any, data: Any) -> None:
    """Raises where a module or its data cannot be searched with."""
    name = type(inner).__name__
    if not inner.automatic_optimization:
        raise NasValueError(
            explain(
                "in one-shot search Lightning optimises the weights, by training_step and configure_optimizers",
                got="automatic_optimization=False",
                where=name,
                mend="return the loss from training_step, or search with a multi-trial strategy",
            )
        )
    if is_collection(train_loaders) and learner.needs_validation:
        validation_loaders = data.val_dataloader()
        if not same_structure(train_loaders, validation_loaders):
            raise NasValueError(
                explain(
                    "the architecture is trained by training_step on validation batches, and training batches are made "
                    "of several loaders",
                    got=f"{_words(train_loaders)} of training data, {_words(validation_loaders)} of validation data",
                    mend="let val_dataloader return loaders under the same keys, or search by paths: RandomOneShot",
                )
            )


def _words(loaders: Any) -> str:
    if isinstance(loaders, Mapping):
        return f"loaders {', '.join(map(repr, loaders))}"
    return f"{len(loaders)} loaders" if is_collection(loaders) else "one loader"
