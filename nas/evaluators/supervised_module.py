"""The LightningModule of classification and regression: pairs of inputs and targets, a criterion, metrics."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, final

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from nas._compat.torch_internals import tree_map
from nas.errors import NasError, NasTypeError, NasValueError, explain
from nas.evaluators.measures import IGNORED, Accuracy, Criterion, MeanOf, MetricLike, ignored_by

if TYPE_CHECKING:
    _Base: TypeAlias = LightningModule
else:
    _Base = object


class Supervised(_Base):
    """What a LightningModule of either family does that trains a model on batches (inputs..., target).

    Args:
        model: is called with the inputs of a batch.
        criterion: (prediction, target) -> the loss.
        metrics: name -> metric; `loss` comes by itself.
        optimizer: makes one of the parameters.
        scheduler: makes one of the optimizer, stepped each epoch; or of it and `total_steps`, stepped each batch.
        match_shapes: whether the prediction takes the shape of the target: (batch, 1) for (batch,).
        auxiliary_weight: of the losses of what a model returns behind its prediction, as a tuple, in training.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        criterion: Criterion,
        metrics: Mapping[str, MetricLike],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., Any] | None = None,
        match_shapes: bool = False,
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion: Criterion = copy.deepcopy(criterion)
        self.metric_names = (*metrics, "loss")
        ignored = ignored_by(criterion)
        loss = MeanOf(self.criterion, ignored)
        made = [copy.deepcopy(m) if isinstance(m, Metric) else MeanOf(m) for m in metrics.values()]
        self.metrics = nn.ModuleList([*made, loss])
        for metric in made:
            if isinstance(metric, Accuracy) and ignored is not None:
                metric.ignored = ignored
        self._optimizer, self._scheduler, self._match_shapes = optimizer, scheduler, match_shapes
        self._auxiliary_weight = auxiliary_weight

    def forward(self, *inputs: Tensor) -> Any:
        """What the model says: a prediction, or a tuple of it and those of auxiliary heads."""
        return self.model(*inputs)

    def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        """The loss of a batch, and of auxiliary heads a part of theirs."""
        (prediction, *auxiliary), target = self._predict(batch)
        loss = self.criterion(prediction, target)
        for other in auxiliary:
            loss = loss + self._auxiliary_weight * self.criterion(other, target)
        return loss

    def validation_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> None:
        """Adds a batch to the metrics."""
        (prediction, *_), target = self._predict(batch)
        for metric in self._each_metric():
            metric.update(prediction, target)

    def scores(self) -> dict[str, Tensor]:
        """The metrics over all batches since they were last computed."""
        found = {name: metric.compute() for name, metric in zip(self.metric_names, self._each_metric(), strict=True)}
        self._forget()
        return found

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs the mean loss of the epoch."""
        # Lightning has divided it, to accumulate gradients.
        loss = outputs["loss"] * self.trainer.accumulate_grad_batches
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch[-1]))

    def on_validation_epoch_start(self) -> None:
        """Begins the metrics anew."""
        self._forget()

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics."""
        self.log_dict(self.scores())

    def configure_optimizers(self) -> Any:
        """The optimizer of the model's parameters, and the scheduler."""
        optimizer = self._optimizer(self.model.parameters())
        if self._scheduler is None:
            return optimizer
        if takes_total_steps(self._scheduler):
            scheduler = self._scheduler(optimizer, total_steps=self._total_steps())
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        scheduler = self._scheduler(optimizer)
        plan: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch"}
        if isinstance(scheduler, ReduceLROnPlateau):
            plan["monitor"] = "loss"
        return {"optimizer": optimizer, "lr_scheduler": plan}

    def _predict(self, batch: Any) -> tuple[list[Tensor], Tensor]:
        """The predictions, that of the model itself first, and the target."""
        if not isinstance(batch, list | tuple) or len(batch) < 2:
            raise NasTypeError(
                explain(
                    "a batch must be (inputs..., target)",
                    got=type(batch).__name__,
                    mend="let the dataset return pairs, or write a LightningModule for LightningEvaluator",
                )
            )
        *inputs, target = batch
        if all(isinstance(part, list | tuple | Mapping) for part in batch):
            raise NasTypeError(
                explain(
                    "a batch must be (inputs..., target), and this is one of several loaders together",
                    got=[type(part).__name__ for part in batch],
                    mend="train on one loader, or write a LightningModule for LightningEvaluator",
                )
            )
        said = self(*inputs)
        predictions = [part for part in said if part is not None] if isinstance(said, tuple) else [said]
        return [self._matched(prediction, target) for prediction in predictions], target

    def _matched(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self._match_shapes and prediction.shape != target.shape:
            if prediction.numel() != target.numel():
                raise NasValueError(
                    explain(
                        "there must be one prediction for each target",
                        got=f"predictions {tuple(prediction.shape)} for targets {tuple(target.shape)}",
                        mend="a model with as many outputs, or targets of the shape of its predictions",
                    )
                )
            return prediction.reshape(target.shape)
        return prediction

    def _total_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise NasValueError(
                explain(
                    "a scheduler of total_steps needs to know how many there will be",
                    mend="give max_epochs and data of known length, or max_steps",
                )
            )
        return int(steps)

    def _each_metric(self) -> Iterator[Metric]:
        for metric in self.metrics:
            assert isinstance(metric, Metric)
            yield metric

    def _forget(self) -> None:
        for metric in self._each_metric():
            metric.reset()


@final
class SupervisedModule(Supervised, LightningModule):
    """Trains a model on batches (inputs..., target).

    `training_step` and `configure_optimizers` need no Trainer, so that one-shot search can call them; nor do
    `validation_step`, which adds a batch to the metrics, and `scores`, which computes and resets them.

    The arguments are those of `Supervised`, of which this is the one of `pytorch_lightning`.
    """


def fails(make: Callable[[nn.Module], Supervised], model: nn.Module, batch: Any) -> NasError | None:
    """What is wrong with the scores of a model for a batch; None where nothing is, or the model does not run.

    Args:
        make: makes what trains and validates a model.
        model: on the CPU; or on the meta device, where it says of its scores no more than their shape.
        batch: a few samples.
    """
    batch = tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, batch)
    scores: Any = None
    try:
        if isinstance(batch, list | tuple) and len(batch) > 1:
            device = next(iter(model.parameters())).device
            inputs = tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, batch[:-1])
            with torch.no_grad():
                said = model.eval()(*inputs)
            scores = said[0] if isinstance(said, tuple) else said
            scores = torch.zeros_like(scores, device="cpu") if scores.is_meta else scores
    except Exception:  # the trial says what a model cannot do
        return None
    try:
        module = make(_Says(scores)).cpu()
        module.train().training_step(batch, 0)
        with torch.no_grad():
            module.eval().validation_step(batch, 0)
    except NasError as error:
        return error
    except Exception as error:
        return _misfit(scores, batch[-1], error)
    return None


@final
class _Says(nn.Module):
    """Stands in for a model whose scores are known."""

    def __init__(self, scores: Any) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, *_: Any) -> Any:
        """The scores."""
        return self.scores


def _misfit(scores: Tensor, target: Any, error: Exception) -> NasValueError:
    """What is wrong with scores and targets, by the commonest reasons; else as the criterion says it."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    rule = f"the criterion and the metrics must take what the model says with the targets, but fail: {first}"
    got, mend = f"what the model says, {_form(scores)}, for targets {_form(target)}", "let the three fit each other"
    numbers = isinstance(target, Tensor) and target.ndim == scores.ndim - 1 and target.numel() > 0
    if numbers and (target.is_floating_point() or target.dtype is torch.bool):
        rule, mend = "the targets are the numbers of classes, as ints", "targets.long() in the dataset, or Regression"
    elif numbers and (strange := target[((target < 0) & (target != IGNORED)) | (target >= scores.shape[1])]).numel():
        most = int(strange.max())
        rule = f"a model with {scores.shape[1]} outputs knows the classes 0 to {scores.shape[1] - 1}"
        mend = f"a model with {most + 1} outputs or more, or " if most > 0 else ""
        got, mend = f"a target of the class {most}", f"{mend}targets counted from 0"
    return NasValueError(explain(rule, got=got, mend=mend))


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"of shape {tuple(value.shape)} and {str(value.dtype).removeprefix('torch.')}"


def takes_total_steps(scheduler: Callable[..., Any]) -> bool:
    """Whether a scheduler wants to know how many batches there will be."""
    return "total_steps" in inspect.signature(scheduler).parameters


def bound_optimizer(
    optimizer: Callable[..., Optimizer], learning_rate: float, weight_decay: float | None
) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    """The optimizer with its rates, unless it has its own; it can be pickled where the optimizer can."""
    rates = {"lr": learning_rate} | ({} if weight_decay is None else {"weight_decay": weight_decay})
    own = optimizer.keywords if isinstance(optimizer, functools.partial) else {}
    return functools.partial(optimizer, **(rates | own))
