"""Experiments: a space, an evaluator and a strategy, run trial by trial into a ledger that survives anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from nas.errors import ExperimentError, NasError, NasTypeError, NasValueError, SearchSpaceExhausted, explain
from nas.evaluation import Evaluator
from nas.execution import Assignment, Executor, InlineExecutor, Outcome
from nas.header import describe_experiment, refuse_differences
from nas.mutators import Mutator
from nas.objectives import Direction, Objectives
from nas.progress import Progress, ProgressMode, count_text, make_progress
from nas.random_state import derive_seed
from nas.results import Results
from nas.space import ModelSpace
from nas.storage import Ledger, Record, open_storage
from nas.strategy import Strategy, Task
from nas.trial import Trial, TrialState

if TYPE_CHECKING:
    import pandas
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage

ExecutorName: TypeAlias = Literal["inline"]
_HOPELESS = 10
"""So many failures before any success end a search: it is the evaluator then, not the architecture."""


@final
class Experiment:
    """A search: proposes samples, evaluates them, and keeps every result.

    Args:
        space: a ModelSpace, or anything that ModelSpace takes: a decorated instance or class, a function, a module.
        evaluator: what a sample is worth.
        strategy: what to try next.
        name: of the experiment; its folder is `directory/name`.
        directory: where experiments are kept.
        objective: "maximize", "minimize", or a dict metric -> direction.
        seed: all random numbers of the search come from it.
        mutators: changes to the space from outside.
        executor: where trials run; "inline" is this process.
        repeats: evaluations of each sample, with seeds of their own; the metrics are their means.
        early_stopping: an Optuna pruner that is asked at each `nas.report`.
        storage: an Optuna storage or its URL; None keeps a journal in the experiment's folder.
        resume: go on with the experiment of this name where there is one.

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
        objective: Direction | Mapping[str, Direction] = "maximize",
        seed: int = 0,
        mutators: Iterable[Mutator] = (),
        executor: ExecutorName | Executor = "inline",
        repeats: int = 1,
        early_stopping: BasePruner | None = None,
        storage: str | BaseStorage | None = None,
        resume: bool = False,
    ) -> None:
        _check_parts(evaluator, strategy, name, seed, repeats)
        self.name, self.seed, self.repeats, self.early_stopping = name, seed, repeats, early_stopping
        self.objectives = Objectives(objective)
        model_space = space if isinstance(space, ModelSpace) else ModelSpace(space, mutators=mutators)
        if isinstance(space, ModelSpace) and tuple(mutators):
            model_space = space.with_mutators(mutators)
        self.space = model_space.with_hyperparameters(evaluator.hyperparameters)
        self.evaluator, self.strategy = evaluator, strategy
        self.path = Path(directory) / name
        self._executor = _make_executor(executor)
        self._header = describe_experiment(self.space, strategy, self.objectives, seed=seed, repeats=repeats)
        self._pruner = _check_pruner(early_stopping, self.objectives)
        self._trials: dict[int, Trial] = {}
        self._records: list[Record] = []
        self._inputs: list[dict[str, Any]] = []
        self._told = 0
        self._leader: Trial | None = None
        self._started = False
        self._storage = _open(storage, self.path)
        self._ledger = Ledger.find(self._storage, name)
        if self._ledger is not None:
            if not resume:
                raise ExperimentError(
                    explain(
                        f"an experiment named {name!r} exists already",
                        got=str(self.path),
                        mend="go on with it by resume=True, or take another name",
                    )
                )
            refuse_differences(self._ledger.header, self._header, name)
            self._read()

    # Results.

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def results(self) -> Results:
        """The trials with what can be asked of them."""
        return Results(
            trials=self.trials, objectives=self.objectives, path=self.path, space=self.space, inputs=self._inputs
        )

    @property
    def best_trial(self) -> Trial:
        """The COMPLETE trial with the best value.

        Raises:
            ExperimentError: there is none yet, or there are several objectives.
        """
        return self.results.best_trial

    @property
    def pareto_front(self) -> list[Trial]:
        """The COMPLETE trials that no other one beats in every objective."""
        return self.objectives.pareto_front(self.trials)

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each trial: its number, state, values, metrics, duration in seconds, and its answers."""
        return self.results.to_dataframe()

    def export_top_models(
        self, k: int = 1, formatter: str = "dict", *, example_input: Any = None, directory: str | Path | None = None
    ) -> list[Any]:
        """The k best different architectures, best first; see `Results.export_top_models`."""
        return self.results.export_top_models(k, formatter, example_input=example_input, directory=directory)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        space: object = None,
        *,
        storage: str | BaseStorage | None = None,
    ) -> Results:
        """The results of an experiment, read from its folder; nothing in it is executed.

        Args:
            directory: the experiment's folder, `directory/name`.
            space: its model space, or what ModelSpace takes; needed only to export models, ONNX or code.
            storage: as it was given to the experiment.

        Raises:
            ExperimentError: there is no experiment in this folder.
        """
        return Results.load(Path(directory), space, storage)

    # The search.

    def run(
        self,
        max_trials: int | None = None,
        *,
        timeout: float | None = None,
        concurrency: int = 1,
        max_trial_time: float | None = None,
        progress: ProgressMode = "auto",
    ) -> None:
        """Searches, until there are `max_trials` trials, the time is up, or the strategy has nothing left to propose.

        Ctrl-C ends the search in good order; calling `run` again (or `resume=True` in a new process) goes on with it.

        Args:
            max_trials: of the whole experiment, those of earlier runs counted in; None for no limit.
            timeout: seconds after which no new trial starts.
            concurrency: trials at a time, as far as the executor can.
            max_trial_time: seconds after which a trial is FAILED.
            progress: "auto" (a live line on a terminal, plain lines elsewhere), "rich", "plain" or "silent".

        Raises:
            ExperimentError: the first 10 trials all failed, or another process runs this experiment.
        """
        _check_limits(max_trials, timeout, concurrency, max_trial_time, self._executor.max_concurrency)
        shown = make_progress(progress)
        begin = time.monotonic()
        with self._exclusively():
            self._start()
            size = self.space.size
            known_end = [float(n) for n in (max_trials, size) if n is not None and n != float("inf")]
            finished = sum(t.state.is_finished for t in self._trials.values())
            shown.begin(float(max_trials) if max_trials is not None else min(known_end, default=None), finished)
            try:
                ending = self._search(
                    max_trials, None if timeout is None else begin + timeout, concurrency, max_trial_time, shown
                )
            except KeyboardInterrupt:
                ending = "interrupted; run it again (with resume=True in a new process) to go on"
            finally:
                self._executor.close()
                shown.end()
            self._conclude(shown, ending, time.monotonic() - begin)

    def _search(
        self, max_trials: int | None, end: float | None, concurrency: int, max_trial_time: float | None, shown: Progress
    ) -> str:
        """The loop: keep `concurrency` trials under way, and tell the strategy each outcome.

        Returns:
            Why it ended, in words.
        """
        unfinished = [n for n, trial in sorted(self._trials.items()) if not trial.state.is_finished]
        under_way, failures, ending = 0, 0, ""
        while True:
            while under_way < concurrency and not ending:
                if end is not None and time.monotonic() >= end:
                    ending = "the time is up"
                elif unfinished:
                    self._submit(unfinished.pop(0), max_trial_time)
                    under_way += 1
                elif max_trials is not None and len(self._trials) >= max_trials:
                    ending = "all trials done"
                else:
                    try:
                        number = self._propose()
                    except SearchSpaceExhausted as error:
                        ending = f"{error}"
                    else:
                        self._submit(number, max_trial_time)
                        under_way += 1
            if not under_way:
                return ending
            number, outcome = self._executor.collect()
            under_way -= 1
            trial = self._finish(number, outcome)
            failures += trial.state is TrialState.FAILED
            shown.finished(trial, self._best())
            if failures >= _HOPELESS and all(t.state is not TrialState.COMPLETE for t in self._trials.values()):
                raise ExperimentError(
                    f"The first {failures} trials all failed, so the fault is not in the architectures; the last one "
                    f"with:\n{trial.error}All of them are in {self.path}. Mend the evaluator and run it again."
                )

    def _propose(self) -> int:
        """Asks the strategy, and writes the new trial down before it runs."""
        assert self._ledger is not None
        number = len(self._trials)
        sample = self.strategy.ask(number)
        try:
            tree = self.space.search_space
            extra = {label: sample[label] for label in sample if label not in tree.domains}
            sample = tree.validate({k: v for k, v in sample.items() if k not in extra}) | extra
        except NasError as error:
            raise ExperimentError(f"{type(self.strategy).__name__} proposed an impossible sample: {error}") from error
        seed = derive_seed(self.seed, number)
        written = self._ledger.start(sample, self.space.search_space.domains, seed=seed, told=self._told)
        assert written == number
        self._trials[number] = trial = Trial(number=number, sample=sample, seed=seed)
        self.strategy.tell(trial)
        return number

    def _submit(self, number: int, max_trial_time: float | None) -> None:
        trial = self._trials[number]
        self._executor.submit(
            Assignment(
                number=number,
                sample=trial.sample,
                seed=trial.seed,
                evaluator=self.evaluator,
                objectives=self.objectives,
                build=self.space.build_completed,
                hyperparameters=frozenset(self.evaluator.hyperparameters),
                repeats=self.repeats,
                max_trial_time=max_trial_time,
                on_report=lambda step, value: self._on_report(number, step, value),
            )
        )

    def _on_report(self, number: int, step: int, value: float) -> bool:
        assert self._ledger is not None
        self._ledger.report(number, step, value)
        return self._pruner is not None and self._ledger.should_stop(number, self._pruner)

    def _finish(self, number: int, outcome: Outcome) -> Trial:
        assert self._ledger is not None
        trial = Trial(
            number=number,
            sample=outcome.sample,
            state=outcome.state,
            values=outcome.values,
            metrics=outcome.metrics,
            repeats=outcome.repeats,
            intermediate=outcome.intermediate,
            duration=outcome.duration,
            error=outcome.error,
            seed=self._trials[number].seed,
        )
        self._ledger.finish(trial, order=self._told, inputs=[] if self._inputs else outcome.inputs)
        self._inputs = self._inputs or outcome.inputs
        self._trials[number] = trial
        self._told += 1
        self._follow(trial)
        self.strategy.tell(trial)
        return trial

    def _start(self) -> None:
        """Once per object: makes the ledger where there is none, and lets the strategy live through what it holds."""
        if self._started:
            return
        if self._ledger is None:
            self._ledger = Ledger.create(
                self._storage, name=self.name, directions=self.objectives.describe(), header=self._header
            )
        self.strategy.start(Task(space=self.space.search_space, directions=self.objectives.directions, seed=self.seed))
        outcomes = sorted((r for r in self._records if r.trial.state.is_finished), key=lambda r: r.order)
        for record in self._records:
            while outcomes and outcomes[0].order < record.told:
                self.strategy.tell(outcomes.pop(0).trial)
            self.strategy.tell(Trial(number=record.trial.number, sample=record.proposed, seed=record.trial.seed))
        for record in outcomes:
            self.strategy.tell(record.trial)
        self._started = True

    def _read(self) -> None:
        assert self._ledger is not None
        self._records = self._ledger.read()
        self._trials = {record.trial.number: record.trial for record in self._records}
        self._told = sum(record.trial.state.is_finished for record in self._records)
        for trial in self._trials.values():
            self._follow(trial)
        self._inputs = next((record.inputs for record in self._records if record.inputs), [])

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One process at a time runs an experiment that is kept in a folder."""
        import filelock

        lock = filelock.FileLock(str(self.path / "running.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise ExperimentError(
                explain(f"another process runs the experiment {self.name!r}", got=str(self.path), mend="wait for it")
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _best(self) -> Trial | None:
        return self._leader

    def _follow(self, trial: Trial) -> None:
        """Keeps the best trial at hand, so that the progress line costs nothing."""
        if len(self.objectives.names) == 1:
            rivals = [t for t in (self._leader, trial) if t is not None]
            self._leader = next(iter(self.objectives.rank(rivals)), None)

    def _conclude(self, shown: Progress, ending: str, seconds: float) -> None:
        several = len(self.objectives.names) > 1
        top = self.pareto_front if several else self.results.top(5)
        trials = self.trials
        text = f"{count_text(trials)} in {seconds:.1f} s ({ending}). Everything is in {self.path}"
        failed = [trial for trial in trials if trial.state is TrialState.FAILED]
        if failed:
            text += f"\nThe last failure, trial {failed[-1].number}: {failed[-1].error_line}"
        shown.summary(text, top, self.objectives)


def _check_parts(evaluator: object, strategy: object, name: object, seed: object, repeats: object) -> None:
    if not isinstance(evaluator, Evaluator):
        raise NasTypeError(
            explain(
                "the evaluator must be a nas.Evaluator",
                got=evaluator,
                mend="wrap a function in nas.evaluators.FunctionalEvaluator",
            )
        )
    if not isinstance(strategy, Strategy):
        raise NasTypeError(
            explain("the strategy must be a nas.Strategy", got=strategy, mend="give an instance: Random(), not Random")
        )
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise NasValueError(explain("the name of an experiment is the name of its folder", got=name))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise NasTypeError(explain("the seed must be an int", got=seed))
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise NasValueError(explain("repeats must be an int from 1 on", got=repeats))


def _check_limits(
    max_trials: object, timeout: object, concurrency: object, max_trial_time: object, possible: int
) -> None:
    if max_trials is not None and (isinstance(max_trials, bool) or not isinstance(max_trials, int) or max_trials < 1):
        raise NasValueError(explain("max_trials must be an int from 1 on, or None", got=max_trials))
    for name, seconds in (("timeout", timeout), ("max_trial_time", max_trial_time)):
        if seconds is not None and (not isinstance(seconds, int | float) or not seconds > 0):
            raise NasValueError(explain(f"{name} must be a number of seconds above 0, or None", got=seconds))
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= possible:
        raise NasValueError(
            explain(
                f"this executor runs between 1 and {possible} trials at a time", got=concurrency, where="concurrency"
            )
        )


def _make_executor(executor: object) -> Executor:
    if isinstance(executor, Executor):
        return executor
    if executor != "inline":
        raise NasValueError(
            explain(
                'the executor is "inline", or an instance of nas.execution.Executor',
                got=executor,
                mend='executor="inline"',
            )
        )
    return InlineExecutor()


def _check_pruner(early_stopping: object, objectives: Objectives) -> BasePruner | None:
    if early_stopping is None:
        return None
    from optuna.pruners import BasePruner

    if not isinstance(early_stopping, BasePruner):
        raise NasTypeError(explain("early_stopping must be an Optuna pruner", got=early_stopping))
    if len(objectives.names) > 1:
        raise NasValueError(explain("early stopping needs a single objective", got=objectives.describe()))
    return early_stopping


def _open(storage: str | BaseStorage | None, folder: Path) -> BaseStorage:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open_storage(storage, folder)
    except OSError as error:
        raise ExperimentError(
            explain(f"the experiment's folder cannot be written ({error})", got=str(folder), mend="give directory=")
        ) from error
