"""Checks what a user hands to an experiment, before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from nas.checks import check_int, check_number
from nas.domains import Domain
from nas.errors import ExperimentError, NasTypeError, NasValueError, explain
from nas.execution import Executor, InlineExecutor, ProcessExecutor, RayExecutor
from nas.protocols import Direction, EarlyStopping, Evaluator, Hyperband, Objectives, Strategy, usual_direction
from nas.records import open_storage
from nas.space import ModelSpace, Mutator, Program, SearchSpace, search_space

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage

ExecutorName: TypeAlias = Literal["inline", "process", "ray"]


def check_evaluator(evaluator: object) -> None:
    """Refuses what is no evaluator."""
    if not isinstance(evaluator, Evaluator):
        raise NasTypeError(
            explain(
                "the evaluator must be a nas.Evaluator",
                got=evaluator,
                mend="wrap a function in nas.evaluators.FunctionalEvaluator",
            )
        )


def check_parts(evaluator: object, strategy: object, name: object, seed: object, repeats: object) -> tuple[int, int]:
    """Refuses an evaluator, a strategy or a name that cannot serve; the seed and the number of repeats, if they can."""
    check_evaluator(evaluator)
    if not isinstance(strategy, Strategy):
        raise NasTypeError(
            explain("the strategy must be a nas.Strategy", got=strategy, mend="give an instance: Random(), not Random")
        )
    if not isinstance(name, str) or not name or Path(name).name != name or name == "..":
        raise NasValueError(explain("the name of an experiment is the name of its folder", got=name))
    return check_int("seed", seed, where="Experiment"), check_int("repeats", repeats, least=1, where="Experiment")


def choose_objectives(objective: Direction | Mapping[str, Direction] | None, evaluator: Evaluator) -> Objectives:
    """What the user says; else the evaluator's direction; else "maximize", until a metric is called a loss or an error.

    Warns where the user says that an error is to be maximised.
    """
    if objective is None:
        return Objectives(evaluator.direction or "maximize", assumed=evaluator.direction is None)
    objectives = Objectives(objective)
    for name, direction in zip(objectives.names, objectives.directions, strict=True):
        usual = evaluator.direction if name is None else usual_direction(name)
        if usual is not None and usual != direction:
            shown, mend = ("the evaluator's metric", usual) if name is None else (f"the metric {name!r}", {name: usual})
            warnings.warn(
                f"This search will {direction} {shown}, which is better the other way. It is done as you say; if you "
                f"did not mean it, write objective={mend!r}.",
                UserWarning,
                stacklevel=3,
            )
    return objectives


def check_limits(
    max_trials: object, timeout: object, concurrency: object, max_trial_time: object, possible: int
) -> tuple[int | None, float | None, int, float | None]:
    """The limits of a run, in this order, if they make sense."""
    if max_trials is not None:
        max_trials = check_int("max_trials", max_trials, least=1, or_else="None", where="run")
    return (
        max_trials,
        _seconds("timeout", timeout),
        check_int("concurrency", concurrency, least=1, most=possible, where="run, by this executor"),
        _seconds("max_trial_time", max_trial_time),
    )


def _seconds(name: str, limit: object) -> float | None:
    if limit is None:
        return None
    return check_number(name, limit, above=0, infinite=True, unit="seconds", or_else="None", where="run")


def make_executor(executor: object) -> Executor:
    """The executor of a name, or the one given."""
    if isinstance(executor, Executor):
        return executor
    if executor == "inline":
        return InlineExecutor()
    if executor == "process":
        return ProcessExecutor()
    if executor == "ray":
        return RayExecutor()
    raise NasValueError(
        explain(
            'the executor is "inline", "process" or "ray", or a nas.Executor: an InlineExecutor, ProcessExecutor, '
            "RayExecutor or FuturesExecutor, or one of your own",
            got=executor,
            mend='executor="process", or executor=FuturesExecutor(pool) for a pool of futures',
        )
    )


def check_pruner(early_stopping: object, objectives: Objectives) -> BasePruner | None:
    """The pruner that is meant, once there is a single objective."""
    if early_stopping is None:
        return None
    from optuna.pruners import BasePruner

    if not isinstance(early_stopping, BasePruner | EarlyStopping):
        raise NasTypeError(
            explain(
                "early_stopping is a nas.EarlyStopping (MedianStop, Patience, ...) or an Optuna pruner",
                got=early_stopping,
                mend="early_stopping=MedianStop()",
            )
        )
    if len(objectives.names) > 1:
        raise NasValueError(explain("early stopping needs a single objective", got=objectives.describe()))
    return early_stopping.pruner() if isinstance(early_stopping, EarlyStopping) else early_stopping


def note_round(early_stopping: object, max_trials: int | None, note: Callable[[str], None]) -> None:
    """Says how many trials fill the brackets of Hyperband once, and whether the search has so many."""
    if isinstance(early_stopping, Hyperband):
        whole = early_stopping.trials_per_round
        less = max_trials is not None and max_trials < whole
        short = f"; with {max_trials} of them, the later brackets are not filled" if less else ""
        note(f"a full round of Hyperband's brackets takes {whole} trials{short}")


def open_folder(storage: str | BaseStorage | None, folder: Path) -> BaseStorage:
    """The storage of an experiment, its folder made where needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open_storage(storage, folder)
    except OSError as error:
        raise ExperimentError(
            explain(f"the experiment's folder cannot be written ({error})", got=str(folder), mend="give directory=")
        ) from error


def as_model_space(
    space: object, mutators: Iterable[Mutator], hyperparameters: Mapping[str, Domain | ModelSpace]
) -> ModelSpace:
    """What a user searches, joined with what the evaluator asks.

    Raises:
        NasError: there is nothing to search, or it is no space.
    """
    mutators = tuple(mutators)
    if isinstance(space, ModelSpace):
        made = space.with_mutators(mutators) if mutators else space
    elif isinstance(space, Mapping | SearchSpace):
        if mutators:
            raise NasTypeError(explain("mutators change modules, and this space builds none", got=mutators))
        made = search_space(space)
    elif hyperparameters:
        made = ModelSpace.of(Program(space, mutators=mutators))
    else:
        made = ModelSpace(space, mutators=mutators)
    return made.with_hyperparameters(hyperparameters)
