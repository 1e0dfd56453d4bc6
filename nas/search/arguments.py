"""Checks what a user hands to an experiment, before anything runs."""

from __future__ import annotations

import functools
import os
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from torch import nn

from nas.checks import absolute, check_bool, check_int, check_path
from nas.domains import Domain
from nas.errors import ExperimentError, NasTypeError, NasValueError, explain
from nas.execution import Executor, InlineExecutor, ProcessExecutor, RayExecutor
from nas.plain_text import flaw_of_name, same_folder_key
from nas.protocols import (
    Direction,
    EarlyStopping,
    Evaluator,
    ExperimentArguments,
    Hyperband,
    Objectives,
    Place,
    Strategy,
    Task,
    usual_direction,
)
from nas.records import Store
from nas.space import ModelSpace, Mutator, Program, SearchSpace, as_mutators, search_space

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage

ExecutorName: TypeAlias = Literal["inline", "process", "ray"]


def check_evaluator(evaluator: object, strategy: object = None) -> None:
    """Refuses what is no evaluator; the strategy that comes with it tells whether the two were confused."""
    if not isinstance(evaluator, Evaluator):
        raise NasTypeError(
            explain("the evaluator must be a nas.Evaluator", got=evaluator, mend=_as_evaluator(evaluator, strategy))
        )


def check_parts(evaluator: object, strategy: object, name: object, seed: object, repeats: object) -> tuple[int, int]:
    """Refuses an evaluator, a strategy or a name that cannot serve; the seed and the number of repeats, if they can."""
    check_evaluator(evaluator, strategy)
    if not isinstance(strategy, Strategy):
        raise NasTypeError(explain("the strategy must be a nas.Strategy", got=strategy, mend=_as_strategy(strategy)))
    if not isinstance(name, str) or (flaw := flaw_of_name(name)):
        rule = "the name of an experiment is the name of its folder"
        mend = 'name="first", and directory=... for where that folder is kept'
        raise NasValueError(explain(f"{rule}: it {flaw}" if isinstance(name, str) else rule, got=name, mend=mend))
    return check_int("seed", seed, where="Experiment"), check_int("repeats", repeats, least=1, where="Experiment")


def _as_evaluator(given: object, strategy: object) -> str:
    if isinstance(given, Strategy) or isinstance(strategy, Evaluator):
        return "Experiment(space, evaluator, strategy): the evaluator stands before the strategy"
    if isinstance(given, type) and issubclass(given, Evaluator):
        return f"give an instance: {given.__name__}(...)"
    if isinstance(given, nn.Module | type):
        return "an object of nas.evaluators: Classification(...), LightningEvaluator(...), FunctionalEvaluator(...)"
    return "wrap a function in nas.evaluators.FunctionalEvaluator"


def _as_strategy(given: object) -> str:
    if isinstance(given, type) and issubclass(given, Strategy):
        return f"give an instance: {given.__name__}(), not {given.__name__}"
    if isinstance(given, Evaluator):
        return "Experiment(space, evaluator, strategy): the evaluator stands before the strategy"
    kind = given if isinstance(given, type) else type(given)
    if "optuna" in sys.modules and issubclass(kind, sys.modules["optuna"].samplers.BaseSampler):
        return f"nas.strategies.OptunaStrategy({kind.__name__}(...)), which asks an Optuna sampler"
    if isinstance(given, str):
        return "an object of nas.strategies, such as Random(), not a name"
    return "an object of nas.strategies or nas.oneshot, such as Random(), or of a class of your own below nas.Strategy"


def folder_of_experiment(directory: object, name: str) -> Path:
    """Where an experiment is kept.

    Raises:
        NasTypeError: the directory is no path.
        NasValueError: the name of another one differs from it by case or Unicode form alone, so that the two would be
            one folder on some file systems.
    """
    folder = absolute(check_path("directory", directory, where="Experiment")) / name
    try:
        there = os.listdir(folder.parent)
    except (OSError, ValueError):  # There is no such folder yet, say.
        return folder
    twins = [] if name in there else [other for other in there if same_folder_key(other) == same_folder_key(name)]
    for other in twins:
        if unicodedata.normalize("NFC", other) != name or not folder.exists():  # Apple's writes in a form of its own.
            rule = f"beside an experiment {other!r}, no other name may differ from it by case or Unicode form alone"
            raise NasValueError(explain(rule, got=name, where="Experiment", mend=f"take {other!r}, or another name"))
    return folder


def ask_parts(
    strategy: Strategy, given: ExperimentArguments, *, seed: int, place: Place, later: bool
) -> Callable[[], None]:
    """Asks the strategy and the evaluator whether this search can be done, before anything is written.

    Args:
        strategy: that is asked.
        given: what it is to work on, the evaluator among it.
        seed: of the experiment.
        place: where trials run.
        later: whether the evaluator is asked when the search is run: an experiment that is there may be looked at, and
            exported from, where it could not be run.

    Returns:
        What asks the evaluator, unless it has been asked.

    Raises:
        NasError: it cannot be done: the strategy knows no such domain, no trial could succeed, ...
    """
    space, directions = given.space.search_space, given.objectives.directions
    strategy.start(Task(space=space, directions=directions, seed=seed))
    if (shared := strategy.shared_training) is not None:
        shared.refuse(given)
    ask = functools.cache(functools.partial(given.evaluator.refuse, given.space, place=place))
    if not later:
        ask()
    return ask


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
                stacklevel=4,
            )
    return objectives


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
        mend = "leave early_stopping out, or search for one of them"
        raise NasValueError(explain("early stopping needs a single objective", got=objectives.describe(), mend=mend))
    return early_stopping.pruner() if isinstance(early_stopping, EarlyStopping) else early_stopping


def note_round(early_stopping: object, max_trials: int | None, note: Callable[[str], None]) -> None:
    """Says how many trials fill the brackets of Hyperband once, and whether the search has so many."""
    if isinstance(early_stopping, Hyperband):
        whole = early_stopping.trials_per_round
        less = max_trials is not None and max_trials < whole
        short = f"; with {max_trials} of them, the later brackets are not filled" if less else ""
        note(f"a full round of Hyperband's brackets takes {whole} trials{short}")


def may_be_gone_on_with(resume: object, accept_changes: object, storage: object, folder: Path) -> bool:
    """Whether there may be an experiment that is gone on with; without a journal in the folder there is none.

    Raises:
        NasTypeError: `resume` or `accept_changes` does not say whether it is.
    """
    check_bool("accept_changes", accept_changes, where="Experiment")
    if resume != "auto":
        check_bool("resume", resume, or_else='"auto"', where="Experiment", mend='resume=True, or resume="auto"')
    return bool(resume) and (storage is not None or (folder / "journal.log").exists())


def open_folder(storage: str | BaseStorage | None, folder: Path) -> Store:
    """Where the ledger of an experiment is; its folder is made where it is not there, and the storage too."""
    store = Store(storage, folder)
    if storage is not None:
        store.look()  # First, for one that cannot be opened leaves no folder behind.
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExperimentError(
            explain(f"the experiment's folder cannot be written ({error})", got=str(folder), mend="give directory=")
        ) from error
    if store.look() is None:
        store.write()
    return store


def as_model_space(
    space: object, mutators: Iterable[Mutator], hyperparameters: Mapping[str, Domain | ModelSpace]
) -> ModelSpace:
    """What a user searches, joined with what the evaluator asks.

    Raises:
        NasError: there is nothing to search, or it is no space.
    """
    mutators = as_mutators(mutators)
    if isinstance(space, ModelSpace):
        made = space.with_mutators(mutators) if mutators else space
    elif isinstance(space, Mapping | SearchSpace):
        if mutators:
            mend = "leave mutators out"
            raise NasTypeError(explain("mutators change modules, and this space builds none", got=mutators, mend=mend))
        made = search_space(space)
    elif hyperparameters:
        made = ModelSpace.of(Program(space, mutators=mutators))
    else:
        made = ModelSpace(space, mutators=mutators)
    return made.with_hyperparameters(hyperparameters)
