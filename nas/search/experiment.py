"""Experiments: a space, an evaluator and a strategy, run trial by trial into a ledger that survives anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final, overload

from nas.calls import explained
from nas.checks import absolute, check_bool
from nas.domains import Answer
from nas.execution import Executor
from nas.opened import loading, opened, opening_of
from nas.protocols import Direction, EarlyStopping, Evaluator, ExperimentArguments, OneShotTask, Strategy, Trial
from nas.records import History, Session, describe_experiment
from nas.search.arguments import (
    ExecutorName,
    as_model_space,
    ask_parts,
    check_limits,
    check_parts,
    check_pruner,
    choose_objectives,
    folder_of_experiment,
    make_executor,
    may_be_gone_on_with,
    note_round,
    open_folder,
)
from nas.search.conclusion import conclude
from nas.search.found import Found
from nas.search.pauses import make_pauses
from nas.search.progress import ProgressMode, make_progress
from nas.search.results import Results
from nas.search.retraining import Retrained, retrain
from nas.search.search_loop import INTERRUPTED, SearchLoop, interruption
from nas.search.shared_weights import SharedWeights
from nas.space import Mutator

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage


@explained(methods=True)
@final
class Experiment(Found):
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

    # Results.

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        history = self._session.history
        return [] if history is None else [trial for _, trial in sorted(history.trials.items())]

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

    # The search.

    def run(
        self,
        max_trials: int | None = None,
        *,
        timeout: float | None = None,
        concurrency: int | None = None,
        max_trial_time: float | None = None,
        progress: ProgressMode = "auto",
    ) -> None:
        """Searches, until there are `max_trials` trials, the time is up, or the strategy has nothing left to propose.

        Ctrl-C ends the search in good order, and then the script, with exit code 130; calling `run` again (or
        `resume=True` in a new process) goes on with it.
        Trials in other processes are let finish first; a second Ctrl-C breaks them off, and they run again next time.

        Args:
            max_trials: of the whole experiment, those of earlier runs counted in (save those that a supernet judged
                which has been trained on since); None for no limit.
            timeout: seconds after which no new trial starts.
            concurrency: trials at a time, as far as the executor can; where omitted, as many as it has workers.
            max_trial_time: seconds after which a trial is FAILED.
            progress: "auto" (a live line on a terminal, plain lines elsewhere), "rich", "plain" or "silent".

        Raises:
            ExperimentError: the first 10 trials all failed, or another process runs this experiment.
            KeyboardInterrupt: after a Ctrl-C, once all is written down.
        """
        limits = {"max_trials": max_trials, "timeout": timeout, "max_trial_time": max_trial_time}
        asked = {**limits, "concurrency": concurrency, "progress": progress}
        if self._opening is not None and self._opening.run(self, asked):
            return
        concurrency = self._executor.usual_concurrency if concurrency is None else concurrency
        max_trials, timeout, concurrency, max_trial_time = check_limits(
            max_trials, timeout, concurrency, max_trial_time, self._executor.max_concurrency
        )
        limits = {"max_trials": max_trials, "timeout": timeout, "max_trial_time": max_trial_time}
        shown = make_progress(progress)
        self._ask()
        begin = time.monotonic()
        if (earlier := self._session.earlier) is not None:
            shown.note(f"no trial had succeeded, so the experiment begins anew; what it held is in {earlier}")
        with self._session.writing():
            history = self._session.begun(max_trials)
            known = self.strategy.shared_training is None and self.space.exact and isinstance(self.space.size, int)
            size = int(self.space.size) if known else None
            self._session.note_run(**limits, concurrency=concurrency, size=size)
            end = None if timeout is None else begin + timeout
            try:
                judge: Evaluator | None = self.evaluator
                if self.strategy.shared_training is not None:
                    judge = self._shared_weights.search(shown.note, end)
                shown.begin(max_trials, history.ended, size)
                note_round(self.early_stopping, max_trials, shown.note)
                ending = "the time is up, before the supernet is trained and ranked"
                if judge is not None:
                    ending = self._loop(judge, history, concurrency, max_trial_time).run(max_trials, end, shown)
            except KeyboardInterrupt:
                ending = INTERRUPTED
            finally:
                self._executor.close()
                shown.end()
            self.ending = ending
            conclude(shown, self.results, ending, time.monotonic() - begin)
        if ending == INTERRUPTED:
            raise interruption()

    def _loop(self, judge: Evaluator, history: History, concurrency: int, max_trial_time: float | None) -> SearchLoop:
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
            concurrency=concurrency,
            max_trial_time=max_trial_time,
        )

    def enqueue(self, sample: Mapping[str, Answer], *, again: bool = False) -> bool:
        """Puts a sample in front of what the strategy proposes: known architectures to begin with.

        The queue is part of the ledger. A sample that was enqueued or tried before is not enqueued again, so a script
        that is run again with `resume=True` may say the same once more. It may be called while another process runs the
        experiment.

        Args:
            sample: label -> answer; what it lacks takes its default.
            again: whether it is evaluated once more where it has been tried before.

        Returns:
            Whether it was put in the queue.

        Raises:
            NasValueError: unknown labels, answers outside their domain, or a sample that is not allowed in the space.
        """
        whole = self.space.validate(self.space.complete(sample))
        return self._session.enqueue(whole, again=check_bool("again", again, where="enqueue"))

    def retry(self, numbers: int | Iterable[int] | None = None) -> list[int]:
        """Puts the samples of FAILED trials in the queue again, once each; the next `run` evaluates them first.

        What is tried again takes the place of what failed: among the `max_trials` of a run it counts once.

        Args:
            numbers: of the trials; None for all that are FAILED.

        Returns:
            The numbers of the trials whose samples were put there.

        Raises:
            NasValueError: a trial that is not there, or not FAILED.
        """
        return self._session.retry([numbers] if isinstance(numbers, int) else None if numbers is None else [*numbers])
