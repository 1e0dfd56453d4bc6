"""Runs one trial where it is called: seeds, repeats, time limit, and an outcome whatever happens."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, final

from nas.calls import explained
from nas.domains import Sample
from nas.errors import TrialPruned
from nas.protocols import (
    Evaluator,
    Job,
    Objectives,
    Trial,
    TrialState,
    TrialTimeout,
    as_metrics,
    evaluating,
    forget_weights,
)
from nas.random_state import derive_seed, seeded


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one trial."""

    state: TrialState
    sample: Sample
    """Complete, as it was built."""
    values: tuple[float, ...] | None
    metrics: dict[str, float]
    repeats: tuple[dict[str, float], ...]
    intermediate: dict[int, float]
    duration: float
    error: str | None
    inputs: list[dict[str, Any]]
    """Shape and dtype of each tensor the model was called with."""
    same_as: int | None = None
    """The trial that this was taken over from, without an evaluation."""


def answer_again(trial: Trial) -> Outcome:
    """The outcome of a COMPLETE trial once more, for another one of the same sample: nothing is evaluated."""
    return Outcome(
        state=trial.state,
        sample=trial.sample,
        values=trial.values,
        metrics=dict(trial.metrics),
        repeats=tuple(dict(metrics) for metrics in trial.repeats),
        intermediate={},
        duration=0.0,
        error=None,
        inputs=[],
        same_as=trial.number,
    )


def give_up(trial: Trial, error: str) -> Outcome:
    """The outcome of a trial that nobody evaluates any more: FAILED, for a reason."""
    return Outcome(
        state=TrialState.FAILED,
        sample=trial.sample,
        values=None,
        metrics={},
        repeats=(),
        intermediate={},
        duration=0.0,
        error=error,
        inputs=[],
    )


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all trials of a run share: it travels to a worker once."""

    evaluator: Evaluator
    objectives: Objectives
    build: Callable[[Sample, int], Any]
    hyperparameters: frozenset[str]
    repeats: int = 1
    max_trial_time: float | None = None
    """Seconds."""
    pauses: bool = False
    """Whether a trial that stops at a report may go on later, from a checkpoint."""


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One trial to run."""

    number: int
    sample: Sample
    seed: int
    on_report: Callable[[int, float], bool] | None = None
    """Is told (step, value) of each report, and says whether the trial should stop."""
    directory: Path | None = None
    """The trial's folder, not made yet."""

    def failed(self, error: str, *, duration: float = 0.0, curve: Mapping[int, float] | None = None) -> Outcome:
        """The outcome of a trial that could not end by itself."""
        return Outcome(
            state=TrialState.FAILED,
            sample=self.sample,
            values=None,
            metrics={},
            repeats=(),
            intermediate=dict(curve or {}),
            duration=duration,
            error=error if error.endswith("\n") else error + "\n",
            inputs=[],
        )


def _job(plan: Plan, assignment: Assignment, repeat: int, deadline: float | None) -> Job:
    """The job of one repeat; the curve and early stopping belong to the first."""
    folder = assignment.directory
    folder = folder if folder is None or plan.repeats == 1 else folder / f"repeat-{repeat}"
    if folder is not None:
        forget_weights(folder)  # those of a run that was killed
    return Job(
        number=assignment.number,
        sample=assignment.sample,
        seed=assignment.seed if repeat == 0 else derive_seed(assignment.seed, repeat),
        build=plan.build,
        hyperparameters=plan.hyperparameters,
        on_report=assignment.on_report if repeat == 0 else None,
        deadline=deadline,
        directory=folder,
        objective=plan.objectives.names[0] if len(plan.objectives.names) == 1 else None,
        pauses=plan.pauses,
    )


@explained()
def execute(plan: Plan, assignment: Assignment) -> Outcome:
    """Evaluates a sample; only an interrupt leaves this function as an exception."""
    begin = time.monotonic()
    deadline = None if plan.max_trial_time is None else begin + plan.max_trial_time
    found: list[dict[str, float]] = []
    job = _job(plan, assignment, 0, deadline)
    state, error, values, metrics = TrialState.FAILED, None, None, {}
    curve = job.reports
    try:
        with _time_limit(plan.max_trial_time):
            for repeat in range(plan.repeats):
                # The first build completes the sample; the others build the same architecture.
                sample, job = job.sample, job if repeat == 0 else _job(plan, assignment, repeat, deadline)
                job.sample = sample
                found.append(_evaluate_once(plan.evaluator, job))
        common = [name for name in found[0] if all(name in m for m in found)]
        metrics = as_metrics({name: sum(m[name] for m in found) / len(found) for name in common})
        values = plan.objectives.values(metrics)
        state = TrialState.COMPLETE
    except TrialPruned:
        state = TrialState.STOPPED
        last = curve[max(curve)] if curve else None
        values = (last,) if last is not None and len(plan.objectives.names) == 1 else None
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit, asyncio.CancelledError and their like are the trial's: no search ends by them.
        error = traceback.format_exc()
    return Outcome(
        state=state,
        sample=job.sample,
        values=values,
        metrics=metrics,
        repeats=tuple(found) if plan.repeats > 1 else (),
        intermediate=dict(curve),
        duration=time.monotonic() - begin,
        error=error,
        inputs=job.input_shapes,
    )


def _evaluate_once(evaluator: Evaluator, job: Job) -> dict[str, float]:
    try:
        with seeded(job.seed), evaluating(job):
            metrics = as_metrics(evaluator.evaluate(job))
        job.check_time()
        return metrics
    finally:
        job.release()


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupts the evaluation where signals can; elsewhere `report` and the end of it look at the clock."""
    usable = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if seconds is None or seconds > threading.TIMEOUT_MAX or not usable:
        yield
        return

    over = TrialTimeout(f"the trial ran longer than max_trial_time, {seconds:g} s")

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise over

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception as error:
        # It may have come up inside a library that makes another error of whatever error it meets.
        if error is over or not _came_from(error, over):
            raise
        raise TrialTimeout(*over.args) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _came_from(error: BaseException | None, origin: BaseException) -> bool:
    """Whether an error was raised because of another one, or while that one was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if error is origin:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
