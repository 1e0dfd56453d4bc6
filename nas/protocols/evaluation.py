"""The evaluator protocol, the job an evaluator is handed, and intermediate reports."""

from __future__ import annotations

import hashlib
import inspect
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import inside_compiled
from nas.calls import explained
from nas.checks import check_int
from nas.domains import Answer, Domain, Sample, dumps_sample
from nas.errors import NasError, NasTypeError, NasValueError, TrialPruned, explain
from nas.protocols.metrics import as_number
from nas.protocols.objectives import Direction
from nas.protocols.remembered import Remembers
from nas.protocols.trained_weights import copy_weights, write_weights
from nas.random_state import derive_seed
from nas.space import ModelSpace

Place: TypeAlias = Literal["this process", "this machine", "elsewhere"]
"""Where trials run, as far as it is known beforehand: on this machine they see the devices that this process sees."""


class TrialTimeout(NasError):  # noqa: N818 - names the situation
    """Raised inside an evaluator when the trial has run longer than `max_trial_time`."""


class TrialKilled(NasError):  # noqa: N818 - names the situation
    """Raised inside an evaluator when somebody has asked for the trial's end."""


class Evaluator(Remembers, ABC):
    """Says what a sample is worth.

    Example:
        >>> class Parameters(Evaluator):
        ...     def evaluate(self, job):
        ...         return sum(p.numel() for p in job.model.parameters())
    """

    @property
    def hyperparameters(self) -> Mapping[str, Domain | ModelSpace]:
        """What is searched together with the architecture: keyword -> domain, or a space of `nas.search_space`."""
        return {}

    @property
    def direction(self) -> Direction | None:
        """Which way its first metric is better; None where the user is to say."""
        return None

    def refuse(self, space: ModelSpace, *, place: Place) -> None:
        """Raises a NasError where it is clear that no trial can succeed; asked before anything is written.

        Args:
            space: whose samples are to be judged.
            place: where.
        """

    def close(self) -> None:
        """Called in a worker process when it gets no more trials: what was opened there for all of them is closed."""

    def settled(self, found: Mapping[str, Answer]) -> tuple[Evaluator, dict[str, Answer]]:
        """How one architecture is trained to be kept, by what a search has found: how `Experiment.retrain` trains.

        What an evaluator fixes by arguments of its own wins over what the search has tuned.

        Args:
            found: the hyperparameters that the search has tuned, by name.

        Returns:
            An evaluator that trains once, on all of the data; and those of the answers by which it trains.
        """
        return self, dict(found)

    @abstractmethod
    def evaluate(self, job: Job) -> float | Mapping[str, float]:
        """Evaluates one sample.

        Returns:
            A finite number, or a dict of them.

        Raises:
            TrialPruned: passed on from `job.report` when early stopping says so.
        """


@explained()
@final
class Job:
    """One evaluation of one sample: what an evaluator is handed.

    Args:
        number: the trial's.
        sample: as proposed; completed when the model is built.
        seed: for all that is random in the evaluation.
        build: makes the module of a sample, and completes the sample.
        hyperparameters: the labels of the sample that belong to the evaluator.
        on_report: takes (step, value), and says whether the trial should stop.
        check: raises where the trial is to end, because its time is up, say.
        directory: the trial's folder, not made yet; None outside an experiment.
        objective: the name of the metric that is searched for; None for the first.
        pauses: whether a report that ends the evaluation may only pause it, so that it should leave a checkpoint.
    """

    def __init__(
        self,
        *,
        number: int,
        sample: Sample,
        seed: int = 0,
        build: Callable[[Sample, int], tuple[nn.Module, Sample]],
        hyperparameters: frozenset[str] = frozenset(),
        on_report: Callable[[int, float], bool] | None = None,
        check: Callable[[], None] | None = None,
        directory: Path | None = None,
        objective: str | None = None,
        pauses: bool = False,
    ) -> None:
        self.pauses = pauses
        self.identity = hashlib.sha256(f"{dumps_sample(sample)} {seed}".encode()).hexdigest()[:12]
        """Tells it from other evaluations in the same folder, which may be left from another experiment."""
        self.number, self.sample, self.seed = number, sample, seed
        self._build, self._hyperparameters = build, hyperparameters
        self._on_report, self._check = on_report, check
        self._directory, self.objective = directory, objective
        self._model: nn.Module | None = None
        self._inputs = _RememberInputs()
        self.reports: dict[int, float] = {}

    @property
    def model(self) -> nn.Module:
        """The architecture, or what a space without modules makes; built when first asked for."""
        if self._model is None:
            self._model, self.sample = self._build(self.sample, self.seed)
            self._inputs.watch(self._model)
        return self._model

    @property
    def hyperparameters(self) -> dict[str, Answer]:
        """The searched hyperparameters of the evaluator."""
        return {label: answer for label, answer in self.sample.items() if label in self._hyperparameters}

    @property
    def directory(self) -> Path | None:
        """The trial's folder, made when first asked for; None outside an experiment."""
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    def again(self, number: int) -> Job:
        """The same architecture once more: fresh weights, a seed of its own, and no reports."""
        return Job(
            number=self.number,
            sample=self.sample,
            seed=derive_seed(self.seed, 0, number),
            build=self._build,
            hyperparameters=self._hyperparameters,
            check=self._check,
            directory=self._directory,
            objective=self.objective,
            pauses=self.pauses,
        )

    @property
    def input_shapes(self) -> list[dict[str, Any]]:
        """Shape and dtype of each tensor the model was first called with, the value of each other argument, and names
        where it was called by keyword; empty while it was not."""
        return self._inputs.found

    def report(self, value: float, step: int | None = None) -> None:
        """Records an intermediate result.

        Raises:
            TrialPruned: early stopping says that this trial should not go on.
            TrialTimeout: its time is up.
            TrialKilled: somebody has asked for its end.
            NasTypeError: a value that is no number, a step that is no int.
        """
        number = as_number(value, "nas.report")
        if step is None:
            step = max(self.reports, default=-1) + 1
        step = check_int("step", step, where="nas.report")
        self.check_time()
        # Written down first: a curve must not have a point that the ledger could not take.
        stops = self._on_report is not None and self._on_report(step, number)
        self.reports[step] = number
        if stops:
            raise TrialPruned(f"stopped early at step {step} with {number:g}")

    def keep_weights(self, model: nn.Module | None = None) -> None:
        """Keeps weights as those that the trial is judged with; the latest call counts.

        Args:
            model: has them; the job's own where omitted.

        Raises:
            NasTypeError: it is no module.
            NasValueError: it is of another architecture, or its weights cannot be read without executing code.
        """
        mine = self.model
        model = mine if model is None else model
        _check_module(model)
        _check_module(mine)
        model = inside_compiled(model)
        if model.state_dict().keys() != mine.state_dict().keys():
            raise NasValueError(
                explain(
                    "the weights to keep are those of the trial's architecture",
                    got=type(model).__name__,
                    where="keep_weights",
                    mend="give the model that was handed in, or a copy of it",
                )
            )
        directory = self.directory
        if directory is not None and not write_weights(directory, copy_weights(model)):
            raise NasValueError(
                explain(
                    "weights are kept as tensors, which are read without executing code",
                    got=type(model).__name__,
                    where="keep_weights",
                    mend="let get_extra_state return tensors, numbers and texts, and dicts of these",
                )
            )

    def check_time(self) -> None:
        """Raises TrialTimeout when the time is up, TrialKilled when somebody has asked for the trial's end."""
        if self._check is not None:
            self._check()

    def release(self) -> None:
        """Lets go of the model."""
        self._inputs.forget()
        self._model = None


_JOB: ContextVar[Job | None] = ContextVar("nas_job", default=None)


@contextmanager
def evaluating(job: Job) -> Iterator[None]:
    """Makes `nas.report` report to this job."""
    token = _JOB.set(job)
    try:
        yield
    finally:
        _JOB.reset(token)


def current_job() -> Job | None:
    """The job of the evaluation that runs here."""
    return _JOB.get()


@explained()
def report(value: float, step: int | None = None) -> None:
    """Reports an intermediate result from inside an evaluator: the curve of the trial, and the food of early stopping.

    Outside a trial, where the same function serves other training, nothing is recorded, and a warning says so.

    Args:
        value: of the objective, so far.
        step: the epoch, say; one more than the last where omitted.

    Raises:
        TrialPruned: early stopping says that this trial should not go on; let it pass.
        NasTypeError, NasValueError: a value that is no finite number, or a step that is no int.

    Example:
        >>> def train(model):
        ...     for epoch in range(3):
        ...         report(0.5 + 0.1 * epoch, step=epoch)
        ...     return 0.7
    """
    job = _JOB.get()
    if job is not None:
        job.report(value, step)
        return
    as_number(value, "nas.report")
    if step is not None:
        check_int("step", step, where="nas.report")
    _note_outside("nas.report", "recorded")


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        rule, mend = "only a torch.nn.Module has weights to keep", "keep_weights(model), with the model of the trial"
        raise NasTypeError(explain(rule, got=model, where="keep_weights", mend=mend))


def _note_outside(function: str, done: str) -> None:
    warnings.warn(
        f"{function} was called outside of a trial, where nothing is {done}. Inside a trial it has to be called in the "
        "thread and process that the evaluator was called in.",
        UserWarning,
        stacklevel=4,
    )


@explained()
def keep_weights(model: nn.Module) -> None:
    """Keeps the weights of a model, as they are now, as those that the trial is judged with.

    They are what `export_top_models(weights="trained")`, `trial.checkpoint` and `nas export --trained` give. Call it
    where the value is measured that the function returns; the latest call counts. Outside a trial nothing is kept,
    and a warning says so.

    Args:
        model: that the evaluator was handed, or a copy of it (a moving average of its weights, say).

    Raises:
        NasTypeError, NasValueError: a model of another architecture.

    Example:
        >>> def train(model):
        ...     best = 0.0
        ...     for epoch in range(3):
        ...         accuracy = 0.5 + 0.1 * epoch  # train and validate
        ...         if accuracy > best:
        ...             best = accuracy
        ...             keep_weights(model)
        ...     return best
    """
    job = _JOB.get()
    if job is not None:
        job.keep_weights(model)
        return
    _check_module(model)
    _note_outside("nas.keep_weights", "kept")


@explained()
def trial_directory() -> Path:
    """The folder of the trial that runs: what an evaluator saves there stays with the trial.

    Outside a trial it is a new temporary folder, so that the same function serves retraining.

    Example:
        >>> trial_directory().is_dir()
        True
    """
    job = _JOB.get()
    directory = None if job is None else job.directory
    return Path(tempfile.mkdtemp(prefix="nas-trial-")) if directory is None else directory


_LONGEST = 1000
"""Characters of a text that a model is called with which is noted."""


@final
class _RememberInputs:
    """Notes the tensors that a model is first called with, so that it can be exported without asking for an example."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._handle: Any = None

    def watch(self, model: object) -> None:
        if not isinstance(model, nn.Module):
            return
        self._handle = model.register_forward_pre_hook(self, with_kwargs=True)

    def forget(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        names = _names(model, len(args)) if kwargs else [None] * len(args)
        values = [*zip(names, args, strict=False), *kwargs.items()]
        known = all(isinstance(value, Tensor | bool | int | float | str | None) for _, value in values)
        known = known and not any(isinstance(value, str) and len(value) > _LONGEST for _, value in values)
        if known and len(names) == len(args) and any(isinstance(value, Tensor) for _, value in values):
            self.found = [_spec(value) | ({} if name is None else {"name": name}) for name, value in values]
        self.forget()


def _names(model: nn.Module, count: int) -> list[str]:
    """The names of the first arguments of `forward`, as far as they have some that a caller can write."""
    parameters = list(inspect.signature(model.forward).parameters.values())[:count]
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _spec(value: Any) -> dict[str, Any]:
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    return {"value": value}
