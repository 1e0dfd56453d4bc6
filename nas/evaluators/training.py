"""The evaluators that train by pytorch-lightning: what they have in common, from the arguments to the metrics."""

from __future__ import annotations

import copy
import inspect
import statistics
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn

from nas._compat.lightning_families import Family, family_of
from nas._compat.lightning_internals import starts_script_again
from nas.checks import check_int
from nas.domains import Answer, Domain
from nas.errors import NasError, NasTypeError, NasValueError, close_names, explain, nearest
from nas.evaluators.data import Data, Part, Source
from nas.evaluators.data_modules import Wrap
from nas.evaluators.judged_weights import clear, epochs_in, judged_weights
from nas.evaluators.settings import Settings, adopting, defaults_of
from nas.evaluators.trial_callback import TrialCallback, determinism_kept, fit, logged, metric_of, silenced
from nas.protocols import Evaluator, Job, Place, checkpoint_file
from nas.random_state import derive_seed, seeded, untouched
from nas.space import ModelSpace

TRAINER_ARGUMENTS = frozenset(inspect.signature(Trainer).parameters)
BATCH_SIZE = 32
_SHOWING = ("ProgressBar", "ModelSummary", "LearningRateMonitor", "DeviceStatsMonitor")


class TrainingEvaluator(Evaluator):
    """Trains a model by pytorch-lightning and validates it. `module`, `data` and `trainer` serve one-shot search too.

    Args:
        train: training data; see `Classification`.
        validation: validation data.
        settings: all the keyword arguments, the Trainer's among them.
        executions: how many times an architecture is trained, with seeds of its own.
        folds: of a cross-validation.
        theirs: what else the user has given that may be Lightning's.
        pairs: whether the samples must be inputs with their targets.
    """

    def __init__(
        self,
        train: Source,
        validation: Part | None,
        settings: Settings,
        *,
        executions: int,
        folds: int | None,
        theirs: Iterable[object] = (),
        pairs: bool = False,
    ) -> None:
        where = type(self).__name__
        self._settings, self._executions = settings, check_int("executions", executions, least=1, where=where)
        if folds is not None:
            folds = check_int("folds", folds, least=2, or_else="None", where=where)
        self._folds = folds
        for name in ("min_epochs", "max_epochs", "min_steps", "max_steps"):
            if (length := settings.fixed.get(name)) is not None:
                check_int(name, length, least=-1, or_else="a domain of them", where=where)
        given = settings.domains.get("batch_size", settings.fixed.get("batch_size"))
        sizes: Iterable[object] = [] if given is None else [given]
        if isinstance(given, Domain):
            sizes = given.values()
        for size in sizes:
            check_int("batch_size", size, least=1, or_else="a domain of them", where=where)
        self._whole = False
        self._data = Data(train, validation, batch_size=given is not None, folds=folds, pairs=pairs)
        self._theirs = [*theirs, *_parts(settings.fixed)]
        family_of(train, *self._theirs)

    may_change = frozenset(
        {
            *("accelerator", "devices", "num_nodes", "strategy", "logger", "log_every_n_steps", "default_root_dir"),
            *("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "num_sanity_val_steps"),
            *("profiler", "benchmark", "detect_anomaly", "model_registry", "enable_autolog_hparams"),
        }
    )
    """Where, how fast and with how many words models are trained."""

    def omitted(self) -> Mapping[str, Any]:
        """The Trainer's arguments that are others here where they are left out, and the size of batches."""
        return {**_defaults(dict(self._settings.fixed), None), "batch_size": BATCH_SIZE}

    def decisive(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All but where and how fast, callbacks that only show something, and what the Trainer does anyhow."""
        usual = {name: value for name, value in defaults_of(Trainer).items() if name not in self.omitted()}
        changed = {name: value for name, value in arguments.items() if name not in usual or usual[name] != value}
        found = super().decisive(changed)
        given = found.pop("callbacks", None)
        callbacks = given if isinstance(given, list | tuple) else [given]
        family = family_of(*callbacks)
        shown = tuple(family.get(f"callbacks.{name}") for name in _SHOWING)
        kept = [callback for callback in callbacks if callback is not None and not isinstance(callback, shown)]
        return {**found, **({"callbacks": kept} if kept else {})}

    @final
    def settled(self, found: Mapping[str, Answer]) -> tuple[Evaluator, dict[str, Answer]]:
        """What it is not given takes what the search has found; instead of folds there is one training on all data."""
        other, taken = adopting(self, self._settings, found, self._has)
        if other._folds is not None:
            other = copy.copy(other)
            other._data, other._executions, other._folds, other._whole = other._data.whole(), 1, None, True
        return other, taken

    def _has(self, name: str) -> bool:
        """Whether there is an argument of this name."""
        return name in TRAINER_ARGUMENTS or name in inspect.signature(type(self)).parameters

    def refuse(self, space: ModelSpace, *, place: Place) -> None:
        """Raises where Lightning would refuse every trial: the space's modules, the Trainer's arguments, the family.

        Raises:
            NasTypeError: the space builds no modules, or what is trained is of two packages or is not validated.
            NasValueError: the Trainer refuses its arguments: there is no such accelerator, say.
        """
        if not space.program.modules:
            rule, mend = "modules are trained, and this space builds none", "FunctionalEvaluator(function)"
            raise NasTypeError(explain(rule, got=space, where=type(self).__name__, mend=mend))
        if place != "elsewhere" and not TRAINER_ARGUMENTS & self._settings.searched.keys():
            with silenced(), determinism_kept():
                self.trainer()
        try:
            with untouched(), silenced():
                module = self.module(space.build(space.default(), device="meta"))
        except NasError:
            raise
        except Exception:  # what a module needs numbers for on the meta device
            return
        self._checked_family(module, load=place == "this process")

    def _checked_family(self, module: LightningModule, *, load: bool = True) -> Family:
        """The family of a module that can be validated.

        Raises:
            NasTypeError: it is of another package than the rest, or has no validation step.
        """
        family = family_of(module, *self._theirs, *(self._data.theirs() if load or self._data.at_hand else ()))
        if not family.is_overridden("validation_step", module):
            raise NasTypeError(
                explain(
                    "an architecture is judged by validation",
                    got=type(module).__name__,
                    mend="give it a validation_step",
                )
            )
        return family

    @property
    @abstractmethod
    def metric(self) -> str:
        """The first metric: what is searched for unless the experiment names another."""

    @abstractmethod
    def module(self, model: nn.Module, /, **hyperparameters: Answer) -> LightningModule:
        """How a model is trained and validated: a new LightningModule with the model as its attribute `model`.

        Args:
            model: is held, not copied.
            **hyperparameters: answers of the searched ones; a missing one takes its first.
        """

    @property
    @final
    def hyperparameters(self) -> Mapping[str, Domain | ModelSpace]:
        """The searched arguments: keyword -> domain or space."""
        return self._settings.searched

    @final
    def family(self, *others: object) -> Family:
        """Whether the training is one of pytorch_lightning or of lightning.pytorch: what the user has given decides.

        Args:
            *others: what else takes part in the training: the LightningModule, say.

        Raises:
            NasTypeError: classes of both are mixed.
        """
        return family_of(*others, *self._theirs, *self._data.theirs())

    @final
    def data(
        self,
        *,
        seed: int = 0,
        fold: int = 0,
        train: Wrap | None = None,
        validation: Wrap | None = None,
        family: Family | None = None,
        **hyperparameters: Answer,
    ) -> LightningDataModule:
        """The data as a Trainer takes it; `train_dataloader()` and `val_dataloader()` of it can be called without one.

        A data module of the user's is prepared and set up once in each process, and torn down when that ends; in all
        else what a Trainer sees is the user's: its class, attributes and hooks.

        Args:
            seed: decides the order.
            fold: of the cross-validation.
            train: makes what `train_dataloader()` returns, called as `train(load)`, where `load(seed)` makes the
                training loaders, fresh, in an order of that seed; None for the loaders themselves.
            validation: the same for `val_dataloader()`.
            family: of the module that is trained; what the user has given decides if omitted.
            **hyperparameters: answers of the searched ones.
        """
        size = self._settings.fill(hyperparameters).get("batch_size")
        size = BATCH_SIZE if size is None else size
        return self._data.module(
            family or self.family(), seed=seed, batch_size=size, fold=fold, wraps=(train, validation)
        )

    @property
    @final
    def folds(self) -> int | None:
        """Of the cross-validation on the training data; None where validation data was given."""
        return self._folds

    @property
    @final
    def keeps_weights(self) -> bool:
        """Whether the weights that a trial was judged with stay in its folder: not by `enable_checkpointing=False`."""
        fixed = self._settings.fixed
        return fixed.get("enable_checkpointing") is not False and not fixed.get("fast_dev_run")

    @final
    def trainer_arguments(self) -> dict[str, Any]:
        """What the user gave for the Trainer, searched arguments left out."""
        return {name: value for name, value in self._settings.fixed.items() if name in TRAINER_ARGUMENTS}

    @final
    def trainer(
        self,
        *,
        directory: Path | None = None,
        callbacks: Iterable[Callback] = (),
        changed: Mapping[str, Any] | None = None,
        family: Family | None = None,
        **hyperparameters: Answer,
    ) -> Trainer:
        """A new Trainer.

        Args:
            directory: for logs and checkpoints; None for neither.
            callbacks: besides the user's; those of pytorch_lightning are made members of the family.
            changed: arguments of the Trainer that stand in place of the user's.
            family: of the module that is trained; what the user has given decides if omitted.
            **hyperparameters: answers of the searched ones.

        Raises:
            NasValueError: the Trainer refuses the arguments.
        """
        family = family or self.family()
        filled = self._settings.fill(hyperparameters)
        given = {name: filled[name] for name in filled if name in TRAINER_ARGUMENTS}
        try:
            given = copy.deepcopy(given) | dict(changed or {})  # what a Trainer has used remembers it
            theirs = given.pop("callbacks", None) or []
            own = theirs if isinstance(theirs, list | tuple) else [theirs]
            defaults = _defaults(given, directory)
            if given.get("logger") in (None, True):
                given["logger"] = _logger(directory, family)
            if any(isinstance(callback, family.get("callbacks.Checkpoint")) for callback in own):
                defaults["enable_checkpointing"] = True
            members = [family.as_callback(callback) for callback in callbacks]
            trainer = family.Trainer(**{**defaults, **given, "callbacks": [*own, *members]})
        except Exception as error:
            mend = 'arguments of a Trainer that this machine can follow (accelerator="auto" takes what is there)'
            rule = f"the Trainer refuses its arguments: {error}"
            raise NasValueError(explain(rule, got=given, mend=mend)) from error
        if starts_script_again(trainer) and trainer.num_devices > 1:
            raise NasValueError(
                explain(
                    "this strategy starts the script anew for each device, which in a search would be a second search",
                    got=given.get("strategy"),
                    mend='strategy="ddp_spawn"',
                )
            )
        return trainer

    @final
    def close(self) -> None:
        """Tears down the user's data module."""
        self._data.close()

    @final
    def evaluate(self, job: Job) -> dict[str, float]:
        """Trains and validates the job's model.

        Returns:
            The metrics of the last validation. Of several executions or folds the means, with the standard deviation
            of each as `NAME_std`.
        """
        total = self._executions * (self._folds or 1)
        runs = [self._fit(job, job if number == 0 else job.again(number), number, total) for number in range(total)]
        if self._whole:
            # No data was held out: under their own names these would pass for metrics of a validation.
            return {f"train_{name}": value for name, value in runs[0].items() if not name.startswith("train_")}
        if total == 1:
            return runs[0]
        names = [name for name in runs[0] if all(name in run for run in runs)]
        means = {name: statistics.fmean(run[name] for run in runs) for name in names}
        return means | {f"{name}_std": statistics.stdev(run[name] for run in runs) for name in names}

    def _fit(self, job: Job, current: Job, number: int, total: int) -> dict[str, float]:
        """One training; reports are those of the first, and their curve is that of the trial."""
        with silenced(), nullcontext() if current is job else seeded(current.seed):
            model = current.model
            answers = current.hyperparameters
            module = self.module(model, **answers)
            family = self._checked_family(module)
            directory = current.directory
            if directory is not None and total > 1:
                directory = directory / f"run-{number}"
            paused = None if directory is None else checkpoint_file(directory, current.identity)
            epochs = 0 if paused is None else epochs_in(paused)
            seed = derive_seed(current.seed, epochs) if epochs else current.seed
            data = self.data(seed=seed, fold=number % (self._folds or 1), family=family, **answers)
            pause = paused if current.pauses and current is job else None
            follow = TrialCallback(self._reported(job.objective, total), current.sample, pause)
            clear(directory, goes_on=epochs > 0)
            kept = judged_weights(model, module, directory if self.keeps_weights else None)
            trainer = self.trainer(directory=directory, callbacks=[follow, *kept], family=family, **answers)
            try:
                with seeded(seed) if epochs else nullcontext():
                    fit(trainer, module, data, follow, current, paused if epochs else None)
            finally:
                data.trainer = None  # A data module outlives the trial, which should not live on in it.
            first = metric_of(trainer, self.metric)
            found = {self.metric: first} | logged(trainer)
        if current is not job:
            current.release()
        return found

    def _reported(self, objective: str | None, total: int) -> str:
        name = self.metric if objective is None else objective
        return name.removesuffix("_std") if total > 1 else name


def check_trainer_arguments(arguments: Mapping[str, object], evaluator: str, *, others: Iterable[str] = ()) -> None:
    """Refuses keywords that the Trainer does not have.

    Raises:
        NasTypeError: an unknown keyword.
    """
    unknown = [name for name in arguments if name not in TRAINER_ARGUMENTS]
    if unknown:
        known = {*TRAINER_ARGUMENTS, *others}
        raise NasTypeError(
            explain(
                f"{unknown[0]!r} is no argument of {evaluator}, nor of pytorch-lightning's Trainer; "
                f"{close_names(unknown[0], known)}",
                got={name: arguments[name] for name in unknown},
                mend=f"{near[0]}=..." if (near := nearest(unknown[0], known)) else f"leave {unknown[0]} out",
            )
        )


def _defaults(given: dict[str, Any], directory: Path | None) -> dict[str, Any]:
    """The Trainer's arguments where the user does not say; settles `strategy` in what is given."""
    found: dict[str, Any] = {
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
        "enable_checkpointing": directory is not None and not given.get("fast_dev_run"),
        "default_root_dir": directory,
    }
    if "max_epochs" not in given and given.get("max_steps", -1) == -1 and given.get("max_time") is None:
        found["max_epochs"] = 10
    if given.get("devices", 1) not in (1, "1", [0]):
        found["strategy"] = "ddp_spawn"
    strategy = given.get("strategy")
    if isinstance(strategy, str) and (strategy == "ddp" or strategy.startswith("ddp_find_")):
        # Plain "ddp" starts the script anew for each device; in a search that would be a second search.
        given["strategy"] = strategy.replace("ddp", "ddp_spawn", 1)
    return found


def _parts(arguments: Mapping[str, object]) -> list[object]:
    """The arguments of a Trainer, and what is in lists of them."""
    given = [value for name, value in arguments.items() if name in TRAINER_ARGUMENTS]
    return [part for value in given for part in (value if isinstance(value, list | tuple) else [value])]


def _logger(directory: Path | None, family: Family) -> Any:
    if directory is None:
        return False
    if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        return family.get("loggers.CSVLogger")(directory, name="", version="")
    return family.get("loggers.TensorBoardLogger")(directory, name="", version="", default_hp_metric=False)
