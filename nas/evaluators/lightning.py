"""The evaluator of a user's own LightningModule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, final, get_args

from pytorch_lightning import LightningModule
from torch import nn

from nas._compat.lightning_families import is_module
from nas.calls import misfit
from nas.checks import check_word
from nas.domains import Answer, Domain
from nas.errors import NasTypeError, NasValueError, explain
from nas.evaluators.data import Part, Source
from nas.evaluators.settings import Settings, defaults_of, takes
from nas.evaluators.training import TRAINER_ARGUMENTS, TrainingEvaluator, check_trainer_arguments
from nas.protocols import Direction, usual_direction


@final
class LightningEvaluator(TrainingEvaluator):
    """Trains a LightningModule that holds the model, and takes what it logs in validation for the metrics.

    Args:
        factory: `factory(model, **values) -> LightningModule`: a class or a function. Where one-shot search is to use
            it, it keeps the model as its attribute `model`. The LightningModule is of pytorch_lightning or of
            lightning.pytorch; data modules, callbacks and loggers are then of the same package.
        train: as for `Classification`.
        validation: as for `Classification`.
        metric: the name that the module logs in validation: what is searched for, and reported after each epoch.
        direction: "maximize" or "minimize"; where omitted, as the name tells: `val_loss`, `val_acc`.
        batch_size: where datasets are given; 32 if omitted.
        executions: how many times each architecture is trained, with other seeds; the metrics are the means.
        folds: of a cross-validation on `train`.
        **arguments: those that the factory names go to it, those of pytorch-lightning's Trainer to that, and those of
            both (`max_epochs`, say) to both. Any of them may be a domain: it joins the sample under its keyword.

    Raises:
        NasTypeError, NasValueError: arguments that do not fit, before anything is trained.

    Example:
        >>> import torch
        >>> from nas import Real
        >>> from torch.utils.data import TensorDataset
        >>> class Fit(LightningModule):
        ...     def __init__(self, model, rate):
        ...         super().__init__()
        ...         self.model, self.rate = model, rate
        ...     def training_step(self, batch, batch_idx):
        ...         return nn.functional.mse_loss(self.model(batch[0]), batch[1])
        ...     def validation_step(self, batch, batch_idx):
        ...         self.log("val_loss", self.training_step(batch, batch_idx))
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.model.parameters(), lr=self.rate)
        >>> data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
        >>> evaluator = LightningEvaluator(Fit, data, data, metric="val_loss", rate=Real(0.01, 0.1), max_epochs=3)
        >>> list(evaluator.hyperparameters), evaluator.direction
        (['rate'], 'minimize')
    """

    def __init__(
        self,
        factory: Callable[..., LightningModule],
        train: Source,
        validation: Part | None = None,
        *,
        metric: str,
        direction: Direction | None = None,
        batch_size: int | Domain | None = None,
        executions: int = 1,
        folds: int | None = None,
        **arguments: Any,
    ) -> None:
        if not callable(factory) or isinstance(factory, nn.Module):
            raise NasTypeError(
                explain(
                    "the factory must be a class or function (model, **values) -> LightningModule",
                    got=factory,
                    mend="the class, not an instance: each trial makes its own, of its own model",
                )
            )
        if not isinstance(metric, str) or not metric:
            mend = 'metric="val_loss", for self.log("val_loss", ...) in validation_step'
            raise NasTypeError(explain("metric must be the name of a logged metric", got=metric, mend=mend))
        _check_model_argument(factory)
        if direction is not None:
            check_word("direction", direction, get_args(Direction), or_else="None", where="LightningEvaluator")
        self._factory, self._metric, self._direction = factory, metric, direction
        parameters = _parameters(factory)
        self._named = _taken(factory, parameters, arguments)
        check_trainer_arguments(
            {name: value for name, value in arguments.items() if name not in self._named},
            f"{getattr(factory, '__name__', factory)} or LightningEvaluator",
            others=[*parameters, "metric", "direction", "batch_size", "executions", "folds"],
        )
        values = arguments if batch_size is None else {"batch_size": batch_size, **arguments}
        theirs = [factory] if isinstance(factory, type) else []
        super().__init__(train, validation, Settings(values), executions=executions, folds=folds, theirs=theirs)

    def omitted(self) -> Mapping[str, Any]:
        """The defaults of the factory's parameters too, save those that are the Trainer's as well."""
        factory = {name: value for name, value in defaults_of(self._factory).items() if name not in TRAINER_ARGUMENTS}
        return {**super().omitted(), **factory}

    def _has(self, name: str) -> bool:
        return super()._has(name) or takes(self._factory, name)

    @property
    def metric(self) -> str:
        """The one that was named."""
        return self._metric

    @property
    def direction(self) -> Direction | None:
        """As it was given, or as the metric's name tells."""
        return self._direction or usual_direction(self._metric)

    def module(self, model: nn.Module, /, **hyperparameters: Answer) -> LightningModule:
        """What the factory makes of the model.

        Raises:
            NasTypeError: it is no LightningModule.
        """
        values = self._settings.fill(hyperparameters)
        made: object = self._factory(model, **{name: values[name] for name in self._named})
        if not is_module(made):
            raise NasTypeError(
                explain(
                    "the factory must return a LightningModule of the package pytorch_lightning or lightning.pytorch",
                    got=made,
                    where="LightningEvaluator",
                    mend="give a class below LightningModule that takes the model, or a function that returns one",
                )
            )
        return made


def _parameters(factory: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The parameters of the factory after the model."""
    try:
        parameters = list(inspect.signature(factory).parameters.items())
    except (TypeError, ValueError):  # Some built-in functions have no signature to look at.
        return {"values": inspect.Parameter("values", inspect.Parameter.VAR_KEYWORD)}
    return dict(parameters[1:])


def _check_model_argument(factory: Callable[..., object]) -> None:
    """Refuses a factory that cannot be given the model."""
    if (found := misfit(factory, (None,))) is not None and "by position" in found[0]:
        rule = f"the factory is called as factory(model, **values), but {found[0]}"
        mend = "let the model be its first argument"
        raise NasTypeError(explain(rule, got=factory, where="LightningEvaluator", mend=mend))


def _taken(
    factory: Callable[..., object], parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> list[str]:
    """Which of the arguments the factory takes.

    Raises:
        NasValueError: it lacks one that it needs.
    """
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    missing = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in arguments]
    if missing:
        raise NasValueError(
            explain(
                f"the factory is called as factory(model, **values), and needs {', '.join(sorted(missing))}",
                got=f"{getattr(factory, '__name__', factory)} with {sorted(arguments)}",
                mend="give them as keywords of LightningEvaluator",
            )
        )
    return [n for n in arguments if n in named or (takes_any and n not in TRAINER_ARGUMENTS)]
