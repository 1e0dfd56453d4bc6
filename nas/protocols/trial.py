"""Trials: one sample and what came of evaluating it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import final

from nas.calls import explained
from nas.domains import Sample
from nas.errors import ExperimentError, explain
from nas.protocols.failure import Failure, read_failure
from nas.protocols.weight_files import weights_file


@final
class TrialState(StrEnum):
    """What has become of a trial."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    STOPPED = "STOPPED"
    FAILED = "FAILED"

    @property
    def is_finished(self) -> bool:
        """Whether it is not running any more."""
        return self is not TrialState.RUNNING


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """One sample and what came of evaluating it."""

    number: int
    """0 for the first of the experiment."""
    sample: Sample
    """label -> answer: the architecture, and the evaluator's hyperparameters where those are searched too."""
    state: TrialState = TrialState.RUNNING
    values: tuple[float, ...] | None = None
    """One number for each objective, in their order; None unless COMPLETE (or STOPPED with a report)."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """All that the evaluator returned, by name; means over the repeats."""
    repeats: tuple[Mapping[str, float], ...] = ()
    """The metrics of each repeat, where there were several."""
    intermediate: Mapping[int, float] = field(default_factory=dict)
    """step -> value, as given to `nas.report`."""
    duration: float | None = None
    """Seconds from the start of the evaluation to its end."""
    error: str | None = None
    """The traceback, when FAILED."""
    seed: int = 0
    """What the global random generators of the evaluation were seeded with."""
    same_as: int | None = None
    """The number of the earlier trial of the same sample whose result this one took over, without an evaluation."""
    supernet_steps: int | None = None
    """Training steps of the supernet that judged it; None outside one-shot search."""
    directory: Path | None = field(default=None, compare=False, repr=False)
    """Its folder; None outside an experiment."""

    @property
    def judged_in(self) -> Path | None:
        """The folder of the evaluation: the trial's own, or that of the one whose result it took over."""
        if self.directory is None or self.same_as is None:
            return self.directory
        return self.directory.parent / str(self.same_as)

    @property
    def checkpoint(self) -> Path | None:
        """The file of the weights that the trial was judged with: a state dict of its architecture.

        `model.load_state_dict(torch.load(trial.checkpoint, weights_only=True))` gives them to `space.build(sample)`.
        None where the trial has not ended, or its evaluator kept none, or its value is a mean over several trainings.
        """
        ended = self.state in (TrialState.COMPLETE, TrialState.STOPPED)
        return None if self.judged_in is None or not ended else weights_file(self.judged_in)

    @property
    def value(self) -> float | None:
        """The number that is searched for; None where there is none.

        Raises:
            ExperimentError: there are several objectives.
        """
        if self.values is not None and len(self.values) > 1:
            raise ExperimentError(
                explain("a trial has one value for one objective", got=self.values, mend="use .values or .metrics")
            )
        return None if self.values is None else self.values[0]

    @property
    def error_line(self) -> str:
        """What went wrong, in short: the type of the error and the first line of its message."""
        return read_failure(self.error or "").reason


def comparable(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that can be compared: all of them; in one-shot search those alone that the newest supernet judged.

    A supernet that is trained on is another judge: what it said before is history.

    Example:
        >>> early = Trial(number=0, sample={}, state=TrialState.COMPLETE, values=(0.1,), supernet_steps=2)
        >>> late = Trial(number=1, sample={}, state=TrialState.COMPLETE, values=(0.9,), supernet_steps=20)
        >>> [trial.number for trial in comparable([early, late])]
        [1]
    """
    trials = list(trials)
    judged = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not judged:
        return trials
    newest = max(judged, key=lambda trial: trial.number).supernet_steps
    return [trial for trial in trials if trial.supernet_steps == newest]


@final
@dataclass(frozen=True)
class Cause:
    """Failed trials of one cause."""

    first: Failure
    """That of the first of them."""
    trials: tuple[int, ...]
    """Their numbers."""


def causes(trials: Iterable[Trial]) -> list[Cause]:
    """The causes of the FAILED ones among some trials, that of the most trials first.

    Example:
        >>> failed = TrialState.FAILED
        >>> trials = [Trial(number=i, sample={}, state=failed, error=f"ValueError: {i % 2}") for i in range(3)]
        >>> [(cause.first.reason, cause.trials) for cause in causes(trials)]
        [('ValueError: 0', (0, 2)), ('ValueError: 1', (1,))]
    """
    found: dict[tuple[str, str], tuple[Failure, list[int]]] = {}
    for trial in trials:
        if trial.state is TrialState.FAILED:
            failure = read_failure(trial.error or "")
            found.setdefault(failure.cause, (failure, []))[1].append(trial.number)
    known = [Cause(first, tuple(numbers)) for first, numbers in found.values()]
    return sorted(known, key=lambda cause: -len(cause.trials))
