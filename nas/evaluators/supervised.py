"""Classification and regression: evaluators that train on pairs of inputs and targets."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import nn
from torch.optim import Optimizer
from torchmetrics import Metric

from nas.checks import check_number
from nas.domains import Answer, Domain
from nas.errors import NasTypeError, NasValueError, close_names, explain, nearest
from nas.evaluators.data import Part, Source
from nas.evaluators.measures import Accuracy, Criterion, MetricLike, squared_error
from nas.evaluators.settings import Settings, choice_of
from nas.evaluators.supervised_module import (
    Supervised,
    SupervisedModule,
    bound_optimizer,
    fails,
    takes_total_steps,
)
from nas.evaluators.training import TrainingEvaluator, check_trainer_arguments
from nas.evaluators.trial_callback import silenced
from nas.protocols import Direction, Place, usual_direction
from nas.random_state import untouched
from nas.space import ModelSpace

OptimizerLike: TypeAlias = str | Callable[..., Optimizer]
"""A class like `torch.optim.AdamW`, its name, or a function (parameters, lr=..., weight_decay=...)."""

_OTHERS = ("train", "validation", "metrics", "executions", "folds")
_OBJECTS = ("criterion", "optimizer", "scheduler")


class SupervisedEvaluator(TrainingEvaluator):
    """What classification and regression have in common; the arguments are those of `Classification`."""

    def __init__(
        self,
        train: Source,
        validation: Part | None,
        values: Mapping[str, Any],
        *,
        metrics: Mapping[str, MetricLike],
        executions: int,
        folds: int | None,
        trainer: Mapping[str, Any],
    ) -> None:
        check_trainer_arguments(trainer, type(self).__name__, others=(*values, *_OTHERS))
        values = {name: value for name, value in values.items() if name != "batch_size" or value is not None}
        settings = Settings({**values, **trainer}, _OBJECTS)
        super().__init__(train, validation, settings, executions=executions, folds=folds, pairs=True)
        self._metrics = _checked_metrics(metrics)
        _check_criteria(settings)
        _check_optimizers(settings)

    @property
    @abstractmethod
    def match_shapes(self) -> bool:
        """Whether a prediction takes the shape of its target."""

    @final
    def refuse(self, space: ModelSpace, *, place: Place) -> None:
        """Raises too where the criterion or a metric does not take what the models say with the targets of the data.

        A few samples tell, and an architecture without weights; where it fails, some with weights, which must fail too.

        Raises:
            NasValueError: float targets for classes, a class that the model has no score for, ...
        """
        super().refuse(space, place=place)
        movable = all(isinstance(part, nn.Module) for part in (self._criterion, *self._metrics.values()))
        if self._criterion is None or (torch.accelerator.is_available() and not movable):
            return  # Functions may hold tensors of a device.
        for batch in self._data.batches(load=place == "this process"):
            with untouched(), silenced():
                if fails(self.module, space.build(space.default(), device="meta"), batch) is not None:
                    # The number of outputs may be a matter of choice.
                    samples = [space.default(), *(space.sample(seed) for seed in range(2))]
                    found = [fails(self.module, space.build(sample), batch) for sample in samples]
                    if found[0] is not None and None not in found:
                        raise found[0]

    @property
    def _criterion(self) -> Criterion | None:
        """The criterion; None where it is searched."""
        candidates = self._settings.candidates("criterion")
        return _made(candidates[0]) if len(candidates) == 1 else None

    @property
    @final
    def metric(self) -> str:
        """The first of the metrics."""
        return next(iter(self._metrics))

    @property
    @final
    def direction(self) -> Direction | None:
        """What torchmetrics says of the first metric, or its name."""
        metric = self._metrics[self.metric]
        better: object = metric.higher_is_better if isinstance(metric, Metric) else None
        if isinstance(better, bool):
            return "maximize" if better else "minimize"
        return usual_direction(self.metric)

    @final
    def module(self, model: nn.Module, /, **hyperparameters: Answer) -> Supervised:
        """A module that trains and validates the model; see `SupervisedModule` for its open steps.

        It is a `SupervisedModule`, or with classes of lightning.pytorch one of the same methods.
        """
        values = self._settings.fill(hyperparameters)
        optimizer = _found_optimizer(values["optimizer"])
        family = self.family()
        kind: type[Supervised] = SupervisedModule
        if not issubclass(kind, family.LightningModule):
            kind = family.member(Supervised, "LightningModule")
        return kind(
            model,
            criterion=_made(values["criterion"]),
            metrics=self._metrics,
            optimizer=bound_optimizer(optimizer, values["learning_rate"], values["weight_decay"]),
            scheduler=values["scheduler"],
            auxiliary_weight=values["auxiliary_weight"],
            match_shapes=self.match_shapes,
        )


@final
class Classification(SupervisedEvaluator):
    """Trains a classifier and measures its accuracy.

    The accuracy is that of classes, of two classes by one score, of one-hot or soft targets by the highest share, and
    of targets with any number of labels by each label (a score above 0 says that it applies). What the criterion
    ignores (`ignore_index`) does not count.

    Any argument but the data, the metrics and the numbers of runs may be a domain (`Categorical`, `Integer`, `Real`);
    it joins the sample under its keyword. For objects (criterion, optimizer, scheduler) a dict name -> object stands
    for the choice among the names.

    Args:
        train: a Dataset, a DataLoader, a LightningDataModule, or a function without arguments that returns a data
            module or a pair (train, validation). The function is called once in each process, however many trials.
        validation: a Dataset or a DataLoader.
        batch_size: where datasets are given; 32 if omitted.
        criterion: (scores, target) -> mean loss: a module, its class, or a function.
        optimizer: a class of torch.optim, its name, or a function (parameters, lr=..., weight_decay=...).
        learning_rate: of the optimizer.
        weight_decay: of the optimizer; its own where omitted.
        scheduler: a function from the optimizer to a scheduler, stepped each epoch; one that also takes `total_steps`
            (`functools.partial(OneCycleLR, max_lr=0.1)`) is stepped each batch.
        auxiliary_weight: of the losses of auxiliary heads, 0.4 as in NASNet and DARTS: those of what a model returns
            behind the scores, as a tuple, in training.
        metrics: name -> a torchmetrics Metric, or a function (scores, target) -> a mean, or one number for each sample;
            the first is searched for. `loss` is always measured too.
        executions: how many times each architecture is trained, with other seeds; the metrics are the means.
        folds: of a cross-validation on `train`; the metrics are means, and `NAME_std` their standard deviations.
        **trainer: the arguments of pytorch-lightning's Trainer: `max_epochs=10` if omitted, `precision`,
            `gradient_clip_val`, `devices`, `callbacks`, ...

    Raises:
        NasTypeError, NasValueError: arguments that do not fit, before anything is trained.

    Example:
        >>> from nas import Categorical, Real
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.randn(64, 4), torch.randint(3, (64,)))
        >>> evaluator = Classification(data, folds=4, max_epochs=2, learning_rate=Real(1e-4, 1e-1, log=True),
        ...     optimizer=Categorical(["SGD", "AdamW"]))
        >>> list(evaluator.hyperparameters), evaluator.direction
        (['optimizer', 'learning_rate'], 'maximize')
        >>> module = evaluator.module(nn.Linear(4, 3), optimizer="AdamW")
        >>> type(module.configure_optimizers()).__name__
        'AdamW'
    """

    def __init__(
        self,
        train: Source,
        validation: Part | None = None,
        *,
        batch_size: int | Domain | None = None,
        criterion: Criterion | type[nn.Module] | Mapping[str, Any] = nn.CrossEntropyLoss,
        optimizer: OptimizerLike | Domain | Mapping[str, Any] = torch.optim.AdamW,
        learning_rate: float | Domain = 1e-3,
        weight_decay: float | Domain | None = None,
        scheduler: Callable[..., Any] | Mapping[str, Any] | None = None,
        auxiliary_weight: float | Domain = 0.4,
        metrics: Mapping[str, MetricLike] | None = None,
        executions: int = 1,
        folds: int | None = None,
        **trainer: Any,
    ) -> None:
        super().__init__(
            train,
            validation,
            {
                "batch_size": batch_size,
                "criterion": criterion,
                "optimizer": optimizer,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "scheduler": scheduler,
                "auxiliary_weight": auxiliary_weight,
            },
            metrics={"accuracy": Accuracy()} if metrics is None else metrics,
            executions=executions,
            folds=folds,
            trainer=trainer,
        )

    @property
    def match_shapes(self) -> bool:
        """No: scores have a dimension more than labels."""
        return False


@final
class Regression(SupervisedEvaluator):
    """Trains a regression model and measures its mean squared error, `mse`, which is minimised.

    The arguments are those of `Classification`; the criterion is the mean squared error. A prediction of shape
    (batch, 1) takes the shape of its target, (batch,).

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.randn(64, 4), torch.randn(64))
        >>> evaluator = Regression(data, data, batch_size=16, max_epochs=2)
        >>> evaluator.metric, evaluator.direction
        ('mse', 'minimize')
    """

    def __init__(
        self,
        train: Source,
        validation: Part | None = None,
        *,
        batch_size: int | Domain | None = None,
        criterion: Criterion | type[nn.Module] | Mapping[str, Any] = nn.MSELoss,
        optimizer: OptimizerLike | Domain | Mapping[str, Any] = torch.optim.AdamW,
        learning_rate: float | Domain = 1e-3,
        weight_decay: float | Domain | None = None,
        scheduler: Callable[..., Any] | Mapping[str, Any] | None = None,
        auxiliary_weight: float | Domain = 0.4,
        metrics: Mapping[str, MetricLike] | None = None,
        executions: int = 1,
        folds: int | None = None,
        **trainer: Any,
    ) -> None:
        super().__init__(
            train,
            validation,
            {
                "batch_size": batch_size,
                "criterion": criterion,
                "optimizer": optimizer,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "scheduler": scheduler,
                "auxiliary_weight": auxiliary_weight,
            },
            metrics={"mse": squared_error} if metrics is None else metrics,
            executions=executions,
            folds=folds,
            trainer=trainer,
        )

    @property
    def match_shapes(self) -> bool:
        """Yes: (batch, 1) less (batch,) would be (batch, batch)."""
        return True


def _made(criterion: Any) -> Criterion:
    made: Criterion = criterion() if isinstance(criterion, type) else criterion
    return made


def _found_optimizer(optimizer: Any) -> Callable[..., Optimizer]:
    found: Callable[..., Optimizer] = getattr(torch.optim, optimizer) if isinstance(optimizer, str) else optimizer
    return found


def _checked_metrics(metrics: Mapping[str, MetricLike]) -> dict[str, MetricLike]:
    if not isinstance(metrics, Mapping) or not metrics:
        raise NasTypeError(
            explain(
                "metrics must be a dict name -> metric with at least one entry",
                got=metrics,
                mend='metrics={"f1": torchmetrics.F1Score(task="multiclass", num_classes=10)}, say',
            )
        )
    for name, metric in metrics.items():
        if not isinstance(name, str) or name in ("loss", "train_loss"):
            raise NasValueError(
                explain(
                    "the name of a metric is a str other than loss and train_loss, which come by themselves",
                    got=name,
                    mend="another name",
                )
            )
        if isinstance(metric, type) or not callable(metric):
            raise NasTypeError(
                explain(
                    "a metric is a torchmetrics Metric or a function (prediction, target) -> tensor",
                    got=metric,
                    where=f"metric {name!r}",
                    mend="give an instance, not the class",
                )
            )
    return dict(metrics)


def _check_criteria(settings: Settings) -> None:
    for criterion in settings.candidates("criterion"):
        if not callable(criterion):
            mend = choice_of("criterion", criterion) or "criterion=nn.CrossEntropyLoss(), say"
            raise NasTypeError(explain("criterion must be a loss module or a function", got=criterion, mend=mend))
        try:
            _made(criterion)
        except TypeError as error:
            raise NasTypeError(
                explain(
                    f"the criterion cannot be made without arguments: {error}", got=criterion, mend="give an instance"
                )
            ) from error


def _check_optimizers(settings: Settings) -> None:
    """Makes each of them once, for a lone weight."""
    first = settings.fill({})
    for name in ("learning_rate", "weight_decay", "auxiliary_weight"):
        rate = first[name]
        optional = name == "weight_decay" and rate is None
        if not optional:
            check_number(name, rate, least=0, or_else="a domain of them")
    for optimizer in settings.candidates("optimizer"):
        if isinstance(optimizer, str) and not hasattr(torch.optim, optimizer):
            names = [n for n in dir(torch.optim) if inspect.isclass(getattr(torch.optim, n))]
            raise NasValueError(
                explain(
                    f"torch.optim has no such optimizer; {close_names(optimizer, names)}",
                    got=optimizer,
                    where="optimizer",
                    mend=f'optimizer="{[*nearest(optimizer, names), "AdamW"][0]}"',
                )
            )
        if not isinstance(optimizer, str) and not callable(optimizer):
            raise NasTypeError(
                explain(
                    "optimizer must be a class of torch.optim, its name, or a function",
                    got=optimizer,
                    mend=choice_of("optimizer", optimizer) or "optimizer=torch.optim.SGD, the class",
                )
            )
        made = bound_optimizer(_found_optimizer(optimizer), first["learning_rate"], first["weight_decay"])
        weight: Iterable[nn.Parameter] = [nn.Parameter(torch.zeros(1))]
        try:
            built = made(weight)
        except (TypeError, ValueError) as error:
            mend = "functools.partial(optimizer, ...) binds what it needs besides lr and weight_decay"
            rule = f"the optimizer refuses its arguments: {error}"
            raise NasValueError(explain(rule, got=optimizer, mend=mend)) from error
        if not isinstance(built, Optimizer):
            raise NasTypeError(
                explain(
                    "optimizer must make a torch.optim.Optimizer",
                    got=built,
                    mend="a function (parameters, lr=...) that returns one",
                )
            )
        _check_schedulers(settings, built)


def _check_schedulers(settings: Settings, optimizer: Optimizer) -> None:
    for scheduler in settings.candidates("scheduler"):
        if scheduler is None:
            continue
        if not callable(scheduler):
            rule = "scheduler must be a function from an optimizer to a scheduler"
            mend = choice_of("scheduler", scheduler) or "functools.partial(StepLR, step_size=30)"
            raise NasTypeError(explain(rule, got=scheduler, mend=mend))
        try:
            scheduler(optimizer, **({"total_steps": 10} if takes_total_steps(scheduler) else {}))
        except (TypeError, ValueError) as error:
            raise NasValueError(
                explain(
                    f"the scheduler refuses its arguments: {error}",
                    got=scheduler,
                    mend="bind the others by functools.partial",
                )
            ) from error
