"""Rules that stop a trial early by what it reports; each is a few words around one of Optuna's pruners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from nas.calls import explained
from nas.checks import check_bool, check_int, check_number

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


class EarlyStopping(ABC):
    """A rule for `Experiment(early_stopping=...)`.

    A resource is what a trial has used by a report: the number of the step, counted from 1. A trial that reports steps
    0, 1, 2 has used 1, 2, 3.
    """

    @abstractmethod
    def pruner(self) -> BasePruner:
        """The Optuna pruner that is asked at each report."""


@explained()
@final
@dataclass(frozen=True)
class MedianStop(EarlyStopping):
    """Stops a trial whose best report is worse than the median of the others' at that step (Golovin et al. 2017).

    Raises:
        NasValueError, NasTypeError: a number that makes no sense.

    Example:
        >>> MedianStop(warmup_trials=10).pruner().__class__.__name__
        'MedianPruner'
    """

    warmup_trials: int = 5
    """No trial is stopped before so many have finished."""
    warmup_steps: int = 0
    """No trial is stopped in its first so many steps."""
    interval: int = 1
    """Steps from one judgement to the next."""

    def __post_init__(self) -> None:
        _check_ints(self, warmup_trials=0, warmup_steps=0, interval=1)

    def pruner(self) -> BasePruner:
        """Optuna's MedianPruner."""
        from optuna.pruners import MedianPruner

        return MedianPruner(
            n_startup_trials=self.warmup_trials, n_warmup_steps=self.warmup_steps, interval_steps=self.interval
        )


@explained()
@final
@dataclass(frozen=True)
class SuccessiveHalving(EarlyStopping):
    """Lets the best share of the trials go on at each rung (asynchronous: Li et al. 2020, arXiv 1810.05934).

    The rungs are at resources `min_resource * reduction_factor**k`; of those that came as far, the best
    `1 / reduction_factor` pass.

    Raises:
        NasValueError, NasTypeError: a number that makes no sense.

    Example:
        >>> SuccessiveHalving(min_resource=1, max_resource=27).rungs
        (1, 3, 9)
    """

    min_resource: int = 1
    """The first rung."""
    max_resource: int | None = None
    """Where a trial ends of itself, so that it is not judged there; None where that is not known."""
    reduction_factor: int = 3
    """One in so many passes a rung."""

    def __post_init__(self) -> None:
        _check_ints(self, min_resource=1, reduction_factor=2)
        if self.max_resource is not None:
            _check_ints(self, max_resource=self.min_resource)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The resources at which trials are judged; the first ten where there is no largest one."""
        every = (self.min_resource * self.reduction_factor**k for k in range(10 if self.max_resource is None else 64))
        return tuple(r for r in every if self.max_resource is None or r < self.max_resource)

    def pruner(self) -> BasePruner:
        """Optuna's SuccessiveHalvingPruner, fed with resources."""
        from optuna.pruners import SuccessiveHalvingPruner

        from nas.protocols.pruners import ByResource

        return ByResource(
            SuccessiveHalvingPruner(min_resource=self.min_resource, reduction_factor=self.reduction_factor),
            max_resource=self.max_resource,
        )


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Hyperband(EarlyStopping):
    """Successive halving in brackets that begin at different rungs (Li et al. 2018, JMLR 18, algorithm 1).

    Trials fill the brackets in turn: of 143 trials with 81 resources and factor 3, the first 81 are in the bracket that
    judges from resource 1 on, the next 34 in that from 3 on, then 15, 8 and 5. Within a bracket the halving is
    asynchronous, unless trials are to pause: of those that came as far, the best third passes.

    Raises:
        NasValueError, NasTypeError: a number that makes no sense.

    Example:
        >>> for bracket in Hyperband(min_resource=1, max_resource=81).brackets:
        ...     print(bracket)
        ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81))
        ((34, 3), (11, 9), (3, 27), (1, 81))
        ((15, 9), (5, 27), (1, 81))
        ((8, 27), (2, 81))
        ((5, 81),)
        >>> Hyperband(max_resource=81).trials_per_round
        143
    """

    min_resource: int = 1
    """What the trials of the first bracket are judged by first."""
    max_resource: int
    """What a trial uses that is never stopped."""
    reduction_factor: int = 3
    """One in so many passes a rung."""
    pauses: bool = False
    """Whether a trial waits at a rung until all of its bracket have come there: then as many pass as published, and go
    on from the checkpoints of the rung."""

    def __post_init__(self) -> None:
        _check_ints(self, min_resource=1, reduction_factor=2)
        _check_ints(self, max_resource=self.min_resource)
        check_bool("pauses", self.pauses, where="Hyperband")

    @property
    def brackets(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each bracket its rungs: (how many trials come so far, resource).

        A trial is judged at these resources and no others; at the last of them it ends. They are those of the paper,
        `max_resource / reduction_factor**k`, each rounded to the nearest whole number.
        """
        factor, top = self.reduction_factor, 0
        while self.min_resource * factor ** (top + 1) <= self.max_resource:
            top += 1
        found = []
        for s in range(top, -1, -1):
            trials = -(-(top + 1) * factor**s // (s + 1))
            shares = [factor ** (s - i) for i in range(s + 1)]
            resources = [(2 * self.max_resource + share) // (2 * share) for share in shares]
            found.append(tuple((trials // factor**i, resource) for i, resource in enumerate(resources)))
        return tuple(found)

    @property
    def trials_per_round(self) -> int:
        """How many trials fill each bracket once; a search of fewer has only the first brackets."""
        return sum(bracket[0][0] for bracket in self.brackets)

    def bracket_of(self, number: int) -> int:
        """The bracket that the trial of this number is in: 0 for the one that is judged earliest."""
        sizes = [bracket[0][0] for bracket in self.brackets]
        place = number % self.trials_per_round
        return next(i for i in range(len(sizes)) if place < sum(sizes[: i + 1]))

    def rungs(self, number: int) -> tuple[int, ...]:
        """The resources at which the trial of this number is judged."""
        return tuple(resource for _, resource in self.brackets[self.bracket_of(number)][:-1])

    def members(self, number: int) -> range:
        """The numbers of the trials that are in the same bracket in the same round as the trial of this number."""
        bracket = self.bracket_of(number)
        sizes = [rungs[0][0] for rungs in self.brackets]
        first = number - number % self.trials_per_round + sum(sizes[:bracket])
        return range(first, first + sizes[bracket])

    def pruner(self) -> BasePruner:
        """A pruner of ours: Optuna's HyperbandPruner judges at more rungs than the brackets have."""
        from nas.protocols.pruners import AtRungs

        return AtRungs(
            bracket_of=self.bracket_of,
            rungs=[[resource for _, resource in bracket[:-1]] for bracket in self.brackets],
            factor=self.reduction_factor,
        )


@explained()
@final
@dataclass(frozen=True)
class Patience(EarlyStopping):
    """Stops a trial that has not become better for some reports (Prechelt 1998).

    Raises:
        NasValueError, NasTypeError: a number that makes no sense.

    Example:
        >>> Patience(patience=3, min_delta=0.001)
        Patience(patience=3, min_delta=0.001)
    """

    patience: int
    """So many reports in a row may be no better than the best before them; the trial stops at the last of them."""
    min_delta: float = 0.0
    """A report is better when it is better by more than this."""

    def __post_init__(self) -> None:
        _check_ints(self, patience=1)
        object.__setattr__(self, "min_delta", check_number("min_delta", self.min_delta, least=0, where="Patience"))

    def pruner(self) -> BasePruner:
        """A pruner of ours: Optuna's PatientPruner waits for reports that are worse, so a plateau goes on for ever."""
        from nas.protocols.pruners import WithoutProgress

        return WithoutProgress(patience=self.patience, min_delta=self.min_delta)


def _check_ints(rule: EarlyStopping, **least: int) -> None:
    """Each of these fields must be an int from so much on."""
    for name, number in least.items():
        checked = check_int(name, getattr(rule, name), least=number, where=type(rule).__name__)
        object.__setattr__(rule, name, checked)  # one of Python's own, whatever was given
