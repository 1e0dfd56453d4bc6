"""Runs one trial where it is called: seeds, repeats, time limit, and an outcome whatever happens."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from nas.calls import explained
from nas.domains import Sample
from nas.errors import DiskFull, TrialPruned, is_full
from nas.execution.interruption import Interruption
from nas.files import drafted
from nas.protocols import (
    Evaluator,
    Job,
    Objectives,
    Trial,
    TrialState,
    as_metrics,
    bounded,
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
    no_room: bool = False
    """Whether it failed because the disk of the experiment is full, which is no fault of its own."""


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
    """Seconds for a trial whose assignment does not say."""
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
    max_trial_time: float | None = None
    """Seconds, where they are not those of the plan; infinite for as long as it takes."""

    def time_limit(self, plan: Plan) -> float | None:
        """Seconds for this trial; None for as long as it takes."""
        limit = plan.max_trial_time if self.max_trial_time is None else self.max_trial_time
        return None if limit == math.inf else limit

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
            error=bounded(error if error.endswith("\n") else error + "\n"),
            inputs=[],
        )


def _job(plan: Plan, assignment: Assignment, repeat: int, interruption: Interruption) -> Job:
    """The job of one repeat; the curve and early stopping belong to the first."""
    folder = assignment.directory
    folder = folder if folder is None or plan.repeats == 1 else folder / f"repeat-{repeat}"
    if folder is not None:
        forget_weights(folder)  # those of a run that was killed
    on_report = assignment.on_report if repeat == 0 else None

    def report(step: int, value: float) -> bool:
        assert on_report is not None
        with interruption.shielded():
            return on_report(step, value)

    return Job(
        number=assignment.number,
        sample=assignment.sample,
        seed=assignment.seed if repeat == 0 else derive_seed(assignment.seed, repeat),
        build=plan.build,
        hyperparameters=plan.hyperparameters,
        on_report=None if on_report is None else report,
        check=interruption.check,
        directory=folder,
        objective=plan.objectives.names[0] if len(plan.objectives.names) == 1 else None,
        pauses=plan.pauses,
    )


@explained()
def execute(plan: Plan, assignment: Assignment, *, interruption: Interruption | None = None) -> Outcome:
    """Evaluates a sample; only an interrupt leaves this function as an exception.

    Args:
        plan: what the trials of the run share.
        assignment: the trial.
        interruption: by which others may end it; where omitted, only its time limit does.
    """
    begin = time.monotonic()
    interruption = Interruption(assignment.time_limit(plan)) if interruption is None else interruption
    found: list[dict[str, float]] = []
    job = _job(plan, assignment, 0, interruption)
    state, error, values, metrics, no_room = TrialState.FAILED, None, None, {}, False
    curve = job.reports
    try:
        with interruption.around():
            for repeat in range(plan.repeats):
                # The first build completes the sample; the others build the same architecture.
                sample, job = job.sample, job if repeat == 0 else _job(plan, assignment, repeat, interruption)
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
    except BaseException as raised:  # SystemExit and its like too are the trial's: no search ends by them.
        error = bounded(traceback.format_exc())
        no_room = _has_no_room(raised, assignment.directory)
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
        no_room=no_room,
    )


def _has_no_room(error: BaseException, folder: Path | None) -> bool:
    """Whether a trial failed by the disk of the experiment; another one that is full, a scratch disk, is its own."""
    return is_full(error) and (isinstance(error, DiskFull) or (folder is not None and not _has_room(folder)))


def _has_room(folder: Path) -> bool:
    """Whether a small file can be written in a folder."""
    try:
        with drafted(folder / "room") as file:
            file.write(b"0" * (1 << 16))
        (folder / "room").unlink()
    except OSError as error:
        return not is_full(error)
    return True


def _evaluate_once(evaluator: Evaluator, job: Job) -> dict[str, float]:
    try:
        with seeded(job.seed), evaluating(job):
            metrics = as_metrics(evaluator.evaluate(job))
        job.check_time()
        return metrics
    finally:
        job.release()
