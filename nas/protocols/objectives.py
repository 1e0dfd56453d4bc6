"""What is searched for: one number or several, each to be made large or small; and several in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, final, get_args

from nas.checks import check_word
from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.protocols.pareto import fronts, hypervolume
from nas.protocols.trial import Trial, TrialState

Direction: TypeAlias = Literal["maximize", "minimize"]


def losses(values: Iterable[float], directions: Iterable[Direction]) -> tuple[float, ...]:
    """The values with every sign such that smaller is better.

    Example:
        >>> losses((0.9, 2.0), ("maximize", "minimize"))
        (-0.9, 2.0)
    """
    return tuple(-v if d == "maximize" else v for v, d in zip(values, directions, strict=True))


_BETTER_SMALL = frozenset({"loss", "error", "err", "mse", "mae", "rmse", "msle", "mape", "nll", "perplexity"})
_BETTER_LARGE = frozenset({"accuracy", "acc", "precision", "recall", "f1", "auc", "auroc", "iou", "map", "r2", "psnr"})


def usual_direction(metric: str) -> Direction | None:
    """Which way a metric of this name is better, as far as the words in it tell; None where they do not.

    Example:
        >>> usual_direction("val_loss"), usual_direction("top5_accuracy"), usual_direction("reward")
        ('minimize', 'maximize', None)
    """
    words = set(re.findall(r"[a-z0-9]+", metric.lower()))
    if "std" in words:
        return None
    if words & _BETTER_SMALL:
        return "minimize"
    return "maximize" if words & _BETTER_LARGE else None


@final
class Objectives:
    """The metrics that are searched for, with their directions.

    Args:
        objective: "maximize" or "minimize", for the number that the evaluator returns (of a dict of metrics, the
            first); or a dict metric -> direction.

    Raises:
        NasValueError: an unknown direction, or an empty dict.

    Example:
        >>> Objectives({"accuracy": "maximize", "latency": "minimize"}).values({"latency": 2.0, "accuracy": 0.9})
        (0.9, 2.0)
    """

    def __init__(self, objective: Direction | Mapping[str, Direction]) -> None:
        if not isinstance(objective, str | Mapping) or (isinstance(objective, Mapping) and not objective):
            raise NasTypeError(
                explain('the objective is "maximize", "minimize" or a dict metric -> one of these', got=objective)
            )
        named: dict[str | None, Direction] = (
            {None: objective} if isinstance(objective, str) else dict(objective.items())
        )
        for name, direction in named.items():
            check_word("the direction", direction, get_args(Direction), where=f"objective {name or ''}".strip())
        self.objective = objective
        self.names: tuple[str | None, ...] = tuple(named)
        self.directions: tuple[Direction, ...] = tuple(named.values())

    def values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """The number of each objective.

        Raises:
            NasValueError: the evaluator returned no metric of that name.
        """
        missing = [name for name in self.names if name is not None and name not in metrics]
        if missing:
            raise NasValueError(
                explain(
                    f"the objective is the metric {missing[0]!r}, which the evaluator did not return; "
                    f"{close_names(missing[0], metrics)}",
                    got=dict(metrics),
                    mend="name one of these in objective=, or return it",
                )
            )
        return tuple(metrics[name] if name is not None else next(iter(metrics.values())) for name in self.names)

    def losses(self, trial: Trial) -> tuple[float, ...]:
        """The values with every sign such that smaller is better."""
        assert trial.values is not None
        return losses(trial.values, self.directions)

    def rank(self, trials: Iterable[Trial]) -> list[Trial]:
        """COMPLETE trials, best first: by value, or front after front of those that no other one beats everywhere."""
        done = self._sorted(trials)
        if len(self.names) == 1:
            return done
        numbers = fronts([self.losses(trial) for trial in done])
        return [trial for _, trial in sorted(zip(numbers, done, strict=True), key=lambda pair: pair[0])]

    def pareto_front(self, trials: Iterable[Trial]) -> list[Trial]:
        """The COMPLETE trials that no other one beats: at least as good in every objective and better in one."""
        done = self._sorted(trials)
        numbers = fronts([self.losses(trial) for trial in done])
        return [trial for number, trial in zip(numbers, done, strict=True) if number == 0]

    def hypervolume(self, trials: Iterable[Trial], reference: Sequence[float] | Mapping[str, float]) -> float:
        """The volume that the COMPLETE trials dominate, as far as a reference point.

        Args:
            trials: of several objectives.
            reference: the worst that matters: metric -> value, or the values in the order of the objectives.

        Raises:
            NasValueError: the reference does not have one number for each objective.
        """
        names = [name or "value" for name in self.names]
        if isinstance(reference, Mapping):
            fits = set(reference) == set(names)
            point = [reference[name] for name in names] if fits else []
        else:
            point = list(reference)
        if len(point) != len(names):
            raise NasValueError(
                explain(f"the reference point has one number for each objective, {', '.join(names)}", got=reference)
            )
        return hypervolume([self.losses(trial) for trial in self._sorted(trials)], losses(point, self.directions))

    def _sorted(self, trials: Iterable[Trial]) -> list[Trial]:
        done = (t for t in trials if t.state is TrialState.COMPLETE)
        return sorted(done, key=lambda t: (self.losses(t), t.number))

    def describe(self) -> dict[str, str]:
        """Name -> direction, for the ledger; the unnamed objective is called "value"."""
        return {name or "value": direction for name, direction in zip(self.names, self.directions, strict=True)}
