"""Experiments: a space, an evaluator and a strategy, run trial by trial into a ledger that survives anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final, overload

from nas.calls import explained
from nas.checks import absolute, check_bool
from nas.execution import Executor
from nas.opened import loading, opened, opening_of
from nas.protocols import Direction, EarlyStopping, Evaluator, ExperimentArguments, OneShotTask, Strategy, Trial
from nas.records import History, Session, describe_experiment
from nas.search.arguments import (
    ExecutorName,
    as_model_space,
    ask_parts,
    check_parts,
    check_pruner,
    choose_objectives,
    folder_of_experiment,
    make_executor,
    may_be_gone_on_with,
    note_round,
    open_folder,
)
from nas.search.background import BackgroundRun
from nas.search.conclusion import conclude, tell_if_enough
from nas.search.control import Controlled
from nas.search.found import Found
from nas.search.limits import LIMITS, Limits, check_limits
from nas.search.orders import Orders
from nas.search.pauses import make_pauses
from nas.search.progress import Progress, ProgressMode, make_progress
from nas.search.results import Results
from nas.search.retraining import Retrained, retrain
from nas.search.search_loop import EARLY, INTERRUPTED, STOPPED, UNTRAINED, SearchLoop, interruption
from nas.search.shared_weights import SharedWeights
from nas.space import Mutator

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage


@explained(methods=True)
@final
class Experiment(Found, Controlled):
    """A search: proposes samples, evaluates them, and keeps every result.

    Args:
        space: a ModelSpace, or anything that ModelSpace takes: a decorated instance or class, a function, a module; or
            what `nas.search_space` makes. A model without choices will do where the evaluator asks some.
        evaluator: what a sample is worth.
        strategy: what to try next.
        name: of the experiment; its folder is `directory/name`.
        directory: where experiments are kept; a relative one is one of the working directory that there is now.
        objective: "maximize", "minimize", or a dict metric -> direction; None for the direction of the evaluator's
            metric, or "maximize" where it has none; but a function's metric called loss or error has to be said.
        seed: all random numbers of the search come from it.
        mutators: changes to the space from outside.
        executor: where trials run: "inline" is this process, "process" worker processes, "ray" a Ray cluster; or one
            with arguments of its own, as ProcessExecutor(gpus_per_trial=0.5) or FuturesExecutor(pool), for SLURM say.
        repeats: evaluations of each sample, with seeds of their own; the metrics are their means.
        early_stopping: asked at each `nas.report`: MedianStop, SuccessiveHalving, Hyperband, Patience, or any Optuna
            pruner.
        storage: an Optuna storage or its URL; None keeps a journal in the experiment's folder.
        resume: go on with the experiment of this name where there is one; "auto": unless trials have failed and none
            has succeeded, when it is begun anew, whatever has changed. Where there is one and it is not to be gone on
            with, it is begun anew if no trial of it has succeeded, else refused; what it held is kept in its folder,
            under `earlier`.
        accept_changes: go on with it though the code, the space or the strategy has changed since; else that is
            refused, with a list of what has.

    Raises:
        NasError: an experiment of this name exists, another one is to be resumed, or an argument is of the wrong kind.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from nas import ValueChoice
        >>> from nas.evaluators import FunctionalEvaluator
        >>> from nas.strategies import GridSearch
        >>> experiment = Experiment(
        ...     lambda: nn.Linear(4, ValueChoice([1, 2, 3], label="width")),
        ...     FunctionalEvaluator(lambda model: sum(p.numel() for p in model.parameters())),
        ...     GridSearch(), name="smallest", directory=tempfile.mkdtemp(), objective="minimize")
        >>> experiment.run(progress="silent")
        >>> experiment.best_trial.sample, experiment.best_trial.value
        ({'width': 1}, 5.0)
    """

    def __init__(
        self,
        space: object,
        evaluator: Evaluator,
        strategy: Strategy,
        *,
        name: str,
        directory: str | Path = "nas-experiments",
        objective: Direction | Mapping[str, Direction] | None = None,
        seed: int = 0,
        mutators: Iterable[Mutator] = (),
        executor: ExecutorName | Executor = "inline",
        repeats: int = 1,
        early_stopping: EarlyStopping | BasePruner | None = None,
        storage: str | BaseStorage | None = None,
        resume: bool | Literal["auto"] = False,
        accept_changes: bool = False,
    ) -> None:
        choices = {"executor": executor, "resume": resume, "accept_changes": accept_changes}
        name, directory, storage, executor, resume, accept_changes = opened(
            name=name, directory=directory, storage=storage, **choices
        )
        seed, repeats = check_parts(evaluator, strategy, name, seed, repeats)
        self.name, self.seed, self.repeats, self.early_stopping = name, seed, repeats, early_stopping
        self.objectives = choose_objectives(objective, evaluator)
        self.space = as_model_space(space, mutators, evaluator.hyperparameters)
        self.evaluator, self.strategy = evaluator, strategy
        self.path = folder_of_experiment(directory, name)
        self.ending = ""
        """Why the latest run ended, in words."""
        self._executor = make_executor(executor)
        self._pruner = check_pruner(early_stopping, self.objectives)
        given = ExperimentArguments(
            space=self.space,
            evaluator=evaluator,
            objectives=self.objectives,
            executor=executor,
            repeats=repeats,
            early_stopping=early_stopping,
        )
        later = may_be_gone_on_with(resume, accept_changes, storage, self.path)
        self._ask = ask_parts(strategy, given, seed=seed, place=self._executor.place, later=later)
        self._session = Session(
            open_folder(storage, self.path),
            self.path,
            describe_experiment(self.space, evaluator, strategy, self.objectives, seed=seed, repeats=repeats),
            space=self.space,
            strategy=strategy,
            objectives=self.objectives,
            seed=seed,
            resume=resume,
            accept_changes=accept_changes,
        )
        self._opening = opening_of(self)

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        history = self._session.history
        return [] if history is None else [trial for _, trial in sorted(history.trials.copy().items())]

    @property
    def results(self) -> Results:
        """The trials with what can be asked of them."""
        return Results(
            trials=self.trials,
            objectives=self.objectives,
            path=self.path,
            space=self.space,
            header=self._session.header,
            inputs=[] if self._session.history is None else self._session.history.inputs,
            inherit=None if self.strategy.shared_training is None else self._shared_weights.inherit,
        )

    def retrain(
        self,
        rank: int = 1,
        *,
        inherit_weights: bool = False,
        seed: int | None = None,
        evaluator: Evaluator | None = None,
    ) -> Retrained:
        """Trains one of the best architectures alone: the module and its metrics.

        Args:
            rank: 1 for the best.
            inherit_weights: whether it begins with the shared weights of one-shot search.
            seed: of the training; the experiment's where omitted.
            evaluator: how it is trained; the experiment's where omitted. What it fixes wins over what was tuned, and
                with folds it trains once on all data.
        """
        return retrain(
            self.results,
            rank,
            evaluator=self.evaluator if evaluator is None else evaluator,
            seed=self.seed if seed is None else seed,
            inherit=self._shared_weights.inherit if inherit_weights else None,
        )

    def one_shot_report(self, k: int = 5, **options: Any) -> Any:
        """How far the supernet of a one-shot search can be trusted: some architectures are trained alone, and compared.

        Args:
            k: how many architectures.
            **options: `evaluator`, how they are trained, and `choose`: "spread" (the best and random ones) or "best".
        """
        return self._shared_weights.report(self.results.counted, k, **options)

    @property
    def _shared_weights(self) -> SharedWeights:
        return SharedWeights(
            self.strategy,
            OneShotTask(
                space=self.space,
                evaluator=self.evaluator,
                direction=self.objectives.directions[0],
                objective=self.objectives.names[0],
                seed=self.seed,
                directory=self.path / "supernet",
            ),
        )

    @overload
    @classmethod
    def load(
        cls, directory: str | Path, space: object = None, *, storage: str | BaseStorage | None = None
    ) -> Results: ...

    @overload
    @classmethod
    def load(
        cls,
        directory: str | Path,
        space: object,
        evaluator: Evaluator,
        strategy: Strategy,
        *,
        storage: str | BaseStorage | None = None,
    ) -> Experiment: ...

    @classmethod
    def load(
        cls,
        directory: str | Path,
        space: object = None,
        evaluator: Evaluator | None = None,
        strategy: Strategy | None = None,
        *,
        storage: str | BaseStorage | None = None,
    ) -> Results | Experiment:
        """An experiment from its folder; nothing in it is executed.

        Args:
            directory: the experiment's folder, `directory/name`.
            space: its model space, or what ModelSpace takes; needed to export models, ONNX or code.
            evaluator, strategy: with these too, the experiment can be run on.
            storage: as it was given to the experiment.

        Returns:
            The results alone, or with an evaluator and a strategy the experiment.

        Raises:
            ExperimentError: there is no experiment in this folder, or it is another one.
        """
        path = absolute(directory)
        results = Results.load(path, space, storage)
        if evaluator is None or strategy is None:
            return results
        with loading():
            return cls(
                space,
                evaluator,
                strategy,
                name=path.name,
                directory=path.parent,
                objective=None if results.objectives.assumed else results.objectives.objective,
                seed=results.header["seed"],
                repeats=results.header["repeats"],
                storage=storage,
                resume=True,
            )

    @overload
    def run(
        self,
        max_trials: int | None = None,
        *,
        timeout: float | str | None = None,
        concurrency: int | None = None,
        max_trial_time: float | str | None = None,
        progress: ProgressMode = "auto",
        background: Literal[False] = False,
    ) -> None: ...

    @overload
    def run(
        self,
        max_trials: int | None = None,
        *,
        timeout: float | str | None = None,
        concurrency: int | None = None,
        max_trial_time: float | str | None = None,
        progress: ProgressMode = "auto",
        background: Literal[True],
    ) -> BackgroundRun: ...

    def run(
        self,
        max_trials: int | None = None,
        *,
        timeout: float | str | None = None,
        concurrency: int | None = None,
        max_trial_time: float | str | None = None,
        progress: ProgressMode = "auto",
        background: bool = False,
    ) -> BackgroundRun | None:
        """Searches, until there are `max_trials` trials, the time is up, or the strategy has nothing left to propose.

        Ctrl-C ends the search in good order, and then the script, with exit code 130; calling `run` again (or
        `resume=True` in a new process) goes on with it.
        Trials in other processes are let finish first; a second Ctrl-C breaks them off, and they run again next time.

        Args:
            max_trials: of the whole experiment, those of earlier runs counted in (save those that a supernet judged
                which has been trained on since); None for no limit.
            timeout: seconds after which no new trial starts, or a text such as "12h", "1h30m" or "90s".
            concurrency: trials at a time, as far as the executor can; where omitted, as many as it has workers.
            max_trial_time: seconds, or such a text, after which a trial is FAILED.
            progress: "auto" (a live line on a terminal, plain lines elsewhere, nothing in the background), "rich",
                "plain" or "silent".
            background: search in a thread of its own, and come back as soon as that has begun.

        Returns:
            By which the search in the background is steered and waited for; else None.

        Raises:
            ExperimentError: the first 10 trials all failed, or another process runs this experiment.
            KeyboardInterrupt: after a Ctrl-C, once all is written down.
        """
        given = dict(zip(LIMITS, (max_trials, timeout, concurrency, max_trial_time), strict=True))
        if self._opening is not None and self._opening.run(self, {**given, "progress": progress}):
            return BackgroundRun(self, lambda _: self.ending not in EARLY, interruption) if background else None
        limits = Limits(**check_limits(given, where="run", possible=self._executor.max_concurrency))
        self._ask()
        if not check_bool("background", background, where="run"):
            if self._search(limits, make_progress(progress)) == INTERRUPTED:
                raise interruption()
            return None
        shown = make_progress("silent" if progress == "auto" else progress)
        return BackgroundRun(self, lambda begun: self._search(limits, shown, begun) not in EARLY, interruption)

    def _search(self, limits: Limits, shown: Progress, begun: Callable[[], None] | None = None) -> str:
        """Searches; `begun` is called in the background alone, as soon as it has. Why it ended, in words."""
        begin = time.monotonic()
        if (earlier := self._session.earlier) is not None:
            shown.note(f"no trial had succeeded, so the experiment begins anew; what it held is in {earlier}")
        with self._session.writing():
            history = self._session.begun(limits.max_trials)
            assert self._session.ledger is not None
            known = self.strategy.shared_training is None and self.space.exact and isinstance(self.space.size, int)
            size = int(self.space.size) if known else None
            ledger, executor, behind = self._session.ledger, self._executor, begun is not None
            places = {"concurrency": limits.concurrency or executor.usual_concurrency, "most": executor.max_concurrency}
            notes = self._session.note_run(**{**vars(limits), **places, "size": size})
            orders = Orders(ledger, notes, limits, begin, executor, ends_with_script=behind)
            if begun is not None:
                begun()
            tell_if_enough(limits.max_trials, history.begun, shown)
            try:
                judge: Evaluator | None = self.evaluator
                if self.strategy.shared_training is not None:
                    judge = self._shared_weights.search(shown.note, orders.until)
                shown.begin(limits.max_trials, history.ended, size)
                note_round(self.early_stopping, limits.max_trials, shown.note)
                ending = STOPPED if orders.is_stopped else UNTRAINED
                if judge is not None:
                    ending = self._loop(judge, history, orders).run(shown)
            except KeyboardInterrupt:
                ending = INTERRUPTED
            finally:
                self._executor.close()
                shown.end()
            self.ending = ending
            conclude(shown, self.results, ending, time.monotonic() - begin)
        return ending

    def _loop(self, judge: Evaluator, history: History, orders: Orders) -> SearchLoop:
        ledger = self._session.ledger
        assert ledger is not None
        return SearchLoop(
            space=self.space,
            evaluator=judge,
            strategy=self.strategy,
            objectives=self.objectives,
            executor=self._executor,
            pruner=self._pruner,
            pauses=make_pauses(self.early_stopping, history, ledger, self.objectives),
            history=history,
            ledger=ledger,
            path=self.path,
            seed=self.seed,
            repeats=self.repeats,
            orders=orders,
        )
