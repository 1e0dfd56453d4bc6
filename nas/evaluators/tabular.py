"""Evaluators that train nothing: they look trainings up in a table, or predict them, and count the time saved."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, final

from nas.calls import explained
from nas.checks import check_number, check_word
from nas.domains import Sample, sample_key
from nas.durations import check_seconds
from nas.errors import NasTypeError, NasValueError, SearchSpaceExhausted, explain
from nas.protocols import Evaluator, Job, Strategy, Task, Trial, TrialState, as_metrics

Key = TypeVar("Key")


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of one architecture, as a benchmark remembers it.

    Raises:
        NasValueError, NasTypeError: metrics that are no finite numbers, or a clock that does not fit the curve.

    Example:
        >>> Run(metrics={"accuracy": 0.9}, seconds=60.0, curve={0: 0.5, 1: 0.8, 2: 0.9}).seconds_at(1)
        40.0
    """

    metrics: Mapping[str, float]
    """What it ended with; an experiment whose objective has no name searches for the first."""
    seconds: float = 0.0
    """How long it took."""
    curve: Mapping[int, float] = field(default_factory=dict)
    """step -> the objective after it; the first step is 0, as for `nas.report`."""
    clock: Mapping[int, float] = field(default_factory=dict)
    """step -> the seconds until it was reported; omitted, each step takes equally long."""

    def __post_init__(self) -> None:
        as_metrics(self.metrics)
        check_number("seconds", self.seconds, least=0, where="Run")
        if self.clock and not set(self.curve) <= set(self.clock):
            raise NasValueError(
                explain("the clock has the time of each step of the curve", got=dict(self.clock), where="Run.clock")
            )

    def seconds_at(self, step: int) -> float:
        """The seconds until a step was reported."""
        if self.clock:
            return self.clock[step]
        return self.seconds * (step + 1) / (max(self.curve) + 1) if self.curve else self.seconds


Runs: TypeAlias = "Run | Mapping[str, float] | float | Sequence[Run]"
"""What is known of an architecture: a training or several, or only the metrics or the number it ended with."""


class SimulatedEvaluator(Evaluator):
    """Evaluates without training, and counts the seconds that the training would have taken.

    The metric `simulated_seconds` of a trial has them; `simulated_seconds(trial)` has them for trials that were stopped
    early too. The model is never built.
    """

    @abstractmethod
    def run(self, sample: Sample, seed: int) -> Run:
        """The training of a sample.

        Args:
            sample: the architecture.
            seed: of the trial, to choose among several trainings.

        Raises:
            NasValueError: nothing is known of it.
        """

    @property
    @abstractmethod
    def curves(self) -> bool:
        """Whether the steps of a curve are reported, for early stopping to judge by."""

    def evaluate(self, job: Job) -> Mapping[str, float]:
        """The metrics of the sample's training, after its curve has been reported."""
        run = self.run(job.sample, job.seed)
        if self.curves:
            for step in sorted(run.curve):
                job.report(run.curve[step], step)
        return {**run.metrics, "simulated_seconds": run.seconds}

    def simulated_seconds(self, trial: Trial) -> float:
        """What a trial would have cost: all its repeats, or the part until it was stopped.

        Nothing for one that runs, failed, was answered by an earlier one or was judged by another evaluator.
        """
        if trial.same_as is not None:
            return 0.0
        if trial.state is TrialState.STOPPED and trial.intermediate:
            return self.run(trial.sample, trial.seed).seconds_at(max(trial.intermediate))
        return sum(metrics.get("simulated_seconds", 0.0) for metrics in trial.repeats or (trial.metrics,))


@final
class Tabular(SimulatedEvaluator):
    """Looks the training of each sample up.

    Args:
        table: key -> a `Run`, a sequence of them (repeated trainings), a dict of metrics, or a number. Any mapping:
            `read_nasbench101` and its kin read a benchmark's files.
        key: sample -> key of the table: `sample_key`, the sample as text, where omitted.
        runs: of several trainings "draw" takes one by the trial's seed, as the published benchmarks do; "mean"
            averages the metrics, the times and the curves.
        curves: whether to report the steps of a curve.

    Raises:
        NasTypeError: no mapping, or a key that is no function.

    Example:
        >>> evaluator = Tabular({16: {"accuracy": 0.5}, 32: {"accuracy": 0.7}}, key=lambda sample: sample["width"])
        >>> evaluator.run({"width": 32}, seed=0).metrics
        {'accuracy': 0.7}
    """

    def __init__(
        self,
        table: Mapping[Any, Runs],
        *,
        key: Callable[[Sample], Hashable] | None = None,
        runs: Literal["draw", "mean"] = "draw",
        curves: bool = True,
    ) -> None:
        if not isinstance(table, Mapping):
            raise NasTypeError(
                explain(
                    "a table is a mapping", got=table, where="Tabular", mend="or use Tabular.of((sample, run), ...)"
                )
            )
        if key is not None and not callable(key):
            raise NasTypeError(
                explain(
                    "the key is a function of a sample",
                    got=key,
                    where="Tabular",
                    mend="key=nas.model_zoo.nasbench201.arch_string, say",
                )
            )
        check_word("runs", runs, ("draw", "mean"), where="Tabular")
        self._table = table
        self._key: Callable[[Sample], Hashable] = sample_key if key is None else key
        self._runs, self._curves = runs, curves

    @classmethod
    def of(
        cls, rows: Iterable[tuple[Sample, Runs]], *, runs: Literal["draw", "mean"] = "draw", curves: bool = True
    ) -> Tabular:
        """A table of rows (sample, what is known of it).

        Example:
            >>> Tabular.of([({"width": 16}, 0.5), ({"width": 32}, 0.7)]).run({"width": 32}, seed=0).metrics
            {'value': 0.7}
        """
        return cls({sample_key(sample): known for sample, known in rows}, runs=runs, curves=curves)

    @property
    def curves(self) -> bool:
        """Whether the steps of a curve are reported."""
        return self._curves

    def run(self, sample: Sample, seed: int) -> Run:
        """The training of a sample in the table.

        Raises:
            NasValueError: the table does not have it.
        """
        key = self._key(sample)
        try:
            known = self._table[key]
        except KeyError as error:
            raise NasValueError(
                explain(
                    "the table has no such entry",
                    got=key,
                    where="Tabular",
                    mend="search the space of the table, without what it lacks: space.where(...)",
                )
            ) from error
        found = _as_runs(known)
        return mean_run(found) if self._runs == "mean" else found[seed % len(found)]


@explained()
@final
class SimulatedBudget(Strategy):
    """Ends a search when its trials would have taken so long: what the strategy inside proposes, until then.

    The trial that passes the budget is the last one, and those that were under way with it.

    Args:
        strategy: proposes the samples.
        evaluator: a `Tabular` or a `Surrogate`, the experiment's.
        seconds: the budget, as a number or a text such as "12h".

    Raises:
        NasTypeError, NasValueError: another evaluator, or no positive budget.

    Example:
        >>> from nas.strategies import Random
        >>> SimulatedBudget(Random(), Tabular({}), seconds=3600).seconds
        3600.0
    """

    def __init__(self, strategy: Strategy, evaluator: SimulatedEvaluator, *, seconds: float | str) -> None:
        if not isinstance(strategy, Strategy):
            raise NasTypeError(explain("the strategy must be a nas.Strategy", got=strategy, where="SimulatedBudget"))
        if not isinstance(evaluator, SimulatedEvaluator):
            raise NasTypeError(
                explain("the evaluator must be a Tabular or a Surrogate", got=evaluator, where="SimulatedBudget")
            )
        self.strategy, self.evaluator = strategy, evaluator
        self.seconds = float(check_seconds("seconds", seconds, above=0, where="SimulatedBudget"))
        self.spent = 0.0

    def decisive(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The budget counts, not how it is written."""
        return super().decisive(arguments) | {"seconds": self.seconds}

    def start(self, task: Task) -> None:
        """Nothing is spent."""
        self.spent = 0.0
        self.strategy.start(task)

    def ask(self, number: int) -> Sample:
        """What the strategy proposes.

        Raises:
            SearchSpaceExhausted: the budget is spent, or the strategy has nothing left to propose.
        """
        if self.spent >= self.seconds:
            raise SearchSpaceExhausted(f"the simulated budget of {self.seconds:g} s is spent")
        return self.strategy.ask(number)

    def tell(self, trial: Trial) -> None:
        """Counts what the trial would have cost."""
        self.spent += self.evaluator.simulated_seconds(trial)
        self.strategy.tell(trial)


def mean_run(runs: Sequence[Run]) -> Run:
    """The mean of several trainings: of the metrics, times and steps that all of them have.

    Example:
        >>> mean_run([Run(metrics={"accuracy": 0.5}, seconds=10), Run(metrics={"accuracy": 0.75}, seconds=20)])
        Run(metrics={'accuracy': 0.625}, seconds=15.0, curve={}, clock={})
    """
    if len(runs) == 1:
        return runs[0]
    return Run(
        metrics=_mean([run.metrics for run in runs]),
        seconds=math.fsum(run.seconds for run in runs) / len(runs),
        curve=_mean([run.curve for run in runs]),
        clock=_mean([run.clock for run in runs]),
    )


def _mean(parts: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    common = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: math.fsum(part[name] for part in parts) / len(parts) for name in common}


def _as_runs(known: object) -> Sequence[Run]:
    if isinstance(known, Run):
        return (known,)
    if isinstance(known, Sequence) and not isinstance(known, str):
        if known and all(isinstance(run, Run) for run in known):
            return known
        raise NasTypeError(explain("several trainings are a sequence of at least one Run", got=known, where="Tabular"))
    return (Run(metrics=as_metrics(known)),)
