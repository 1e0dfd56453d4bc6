"""What is searched for: one number or several, each to be made large or small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias, final

from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.trial import Trial, TrialState

Direction: TypeAlias = Literal["maximize", "minimize"]


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
            if direction not in ("maximize", "minimize"):
                raise NasValueError(
                    explain(
                        'a direction is "maximize" or "minimize"',
                        got=direction,
                        where=f"objective {name or ''}".strip(),
                    )
                )
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

    def key(self, trial: Trial) -> tuple[float, ...]:
        """The values with every sign such that smaller is better."""
        assert trial.values is not None
        return tuple(-v if d == "maximize" else v for v, d in zip(trial.values, self.directions, strict=True))

    def rank(self, trials: Iterable[Trial]) -> list[Trial]:
        """COMPLETE trials, best first: by value, or front after front of those that no other one beats everywhere."""
        left = sorted((t for t in trials if t.state is TrialState.COMPLETE), key=lambda t: (self.key(t), t.number))
        if len(self.names) == 1:
            return left
        ranked: list[Trial] = []
        while left:
            front = self._front(left)
            ranked += front
            chosen = {trial.number for trial in front}
            left = [trial for trial in left if trial.number not in chosen]
        return ranked

    def pareto_front(self, trials: Iterable[Trial]) -> list[Trial]:
        """The COMPLETE trials that no other one beats: at least as good in every objective and better in one."""
        done = (t for t in trials if t.state is TrialState.COMPLETE)
        return self._front(sorted(done, key=lambda t: (self.key(t), t.number)))

    def _front(self, ordered: list[Trial]) -> list[Trial]:
        # In lexicographic order, only an earlier trial can dominate a later one.
        front: list[Trial] = []
        for trial in ordered:
            key = self.key(trial)
            if not any(_dominates(self.key(other), key) for other in front):
                front.append(trial)
        return front

    def describe(self) -> dict[str, str]:
        """Name -> direction, for the ledger; the unnamed objective is called "value"."""
        return {name or "value": direction for name, direction in zip(self.names, self.directions, strict=True)}


def _dominates(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(left, right, strict=True)) and left != right
