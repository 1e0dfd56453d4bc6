"""What should make one doubt a supernet, from a few architectures by the shared weights, alone, and untrained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

from nas.domains import Sample
from nas.protocols import Direction

_DOMINATES = 0.5
_DOUBTFUL = 0.05
"""What happens by chance as often as this tells nothing."""
_GAP = 1 / 3
"""Of the way from untrained weights to the better of the shared ones and those alone: less is far behind."""
_SHOWN = 120


@final
@dataclass(frozen=True, kw_only=True)
class Compared:
    """One architecture, by the shared weights and alone."""

    sample: Sample
    shared: float
    """The metric with the shared weights."""
    alone: float
    """The metric after it was trained from scratch."""
    untrained: tuple[float, ...] = ()
    """The metric with fresh weights, several times, each judged as the shared ones were."""


@final
@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What alarms are raised by."""

    metric: str
    direction: Direction
    compared: Sequence[Compared]
    """The best sample first."""
    choose: Literal["spread", "best"]
    """What the others are: random ones, or the next best."""
    kendall: float
    interval: tuple[float, float]
    chance: float | None
    """How often an order as good comes about by chance."""
    is_whole_space: bool
    """Whether there are no others to compare."""
    skips: float | None
    expected_skips: float | None

    def alarms(self) -> list[str]:
        """All of them, in words, each with what to do next."""
        near_chance = list(self._near_chance())
        return [
            *near_chance,
            *self._order(),
            *self._beaten(),
            *([] if near_chance else self._gap()),
            *self._collapsed(),
        ]

    def _worth(self, value: float) -> float:
        return value if self.direction == "maximize" else -value

    def _best(self, values: Sequence[float]) -> float:
        return max(values, key=self._worth)

    def _near_chance(self) -> Iterator[str]:
        """Shared weights that are no better than fresh ones: the same architectures, judged the same way."""
        rows = [row for row in self.compared if row.untrained]
        if not rows:
            return
        untrained = self._best([value for row in rows for value in row.untrained])
        shared, alone = self._best([row.shared for row in rows]), self._best([row.alone for row in rows])
        # What has no weights is worth the same whatever is trained.
        able = [row for row in rows if {row.shared} != set(row.untrained)]
        wins = sum(self._worth(row.shared) > self._worth(self._best(row.untrained)) for row in able)
        draws = min((len(row.untrained) for row in able), default=1)
        lucky = len(able) > 1 and _at_least(wins, len(able), 1 / (draws + 1)) > _DOUBTFUL
        if self._worth(shared) > self._worth(untrained) and not lucky:
            return
        said = (
            f"the supernet is near chance: {self.metric} {shared:.4g} at best, and {untrained:.4g} with weights that "
            f"nobody has trained; it beats these in {wins} of {len(rows)} architectures"
        )
        if self._worth(alone) > self._worth(untrained):
            yield f"{said}. Train it for more epochs, or at another learning rate"
        else:
            yield f"{said}. Trained alone they are no better ({alone:.4g}): look at the learning rate and the data"

    def _order(self) -> Iterator[str]:
        """An order that means nothing, or of which nothing can be told."""
        number = len(self.compared)
        shared, alone = ({row.shared for row in self.compared}, {row.alone for row in self.compared})
        more = f"Compare more of them, one_shot_report(k={max(10, 2 * number)}); "
        more = "" if self.is_whole_space else more
        if number > 1 and len(shared) == 1:
            yield (
                f"by the shared weights all {number} architectures have {self.metric} {max(shared):.4g}: the supernet "
                "tells none from another. Train it for more epochs, or judge by a finer metric or more validation data"
            )
        if number > 1 and len(alone) == 1:
            yield (
                f"alone all {number} architectures have {self.metric} {max(alone):.4g}: there is no order to compare "
                f"with. {more}train them for longer (evaluator=), or judge by a finer metric"
            )
        if number > 1 and 1 in (len(shared), len(alone)):
            return
        low, high = self.interval
        if high < 0 or self.kendall <= 0:
            yield (
                f"the supernet's order says nothing about the architectures alone (Kendall {self.kendall:.2f}): take "
                "several of its best, and retrain them. Train the supernet for more epochs, and look again"
            )
        elif low <= 0 or (self.chance is not None and self.chance > _DOUBTFUL):
            often = "" if self.chance is None else f"; by chance {self.chance:.0%} of all orders agree as well"
            yield (
                f"it cannot be told from {number} architectures whether the supernet's order means anything (Kendall "
                f"{self.kendall:.2f}, with 95 % confidence from {low:.2f} to {high:.2f}{often}). {more}train each with "
                "several seeds (evaluator= with executions=3); if it stays so, train the supernet for more epochs"
            )

    def _beaten(self) -> Iterator[str]:
        """A winner that is no winner."""
        if self.choose != "spread" or len(self.compared) < 2:
            return
        winner, *others = self.compared
        better = [row for row in others if self._worth(row.alone) > self._worth(winner.alone)]
        if better:
            row = max(better, key=lambda row: self._worth(row.alone))
            yield (
                f"{len(better)} of {len(others)} random architectures are better alone than the winner of the search "
                f"({self.metric} {row.alone:.4g} against {winner.alone:.4g}; the best of them {in_short(row.sample)}). "
                "Retrain several of the best, with several seeds, and train the supernet for more epochs"
            )

    def _gap(self) -> Iterator[str]:
        """Shared weights that are far from what the architecture can do, or the other way round."""
        best = self.compared[0] if self.compared else None
        if best is None or not best.untrained:
            return
        nothing = self._worth(statistics.median(best.untrained))
        shared, alone = self._worth(best.shared) - nothing, self._worth(best.alone) - nothing
        said = (
            f"the best sample has {self.metric} {best.shared:.4g} by the shared weights and {best.alone:.4g} alone "
            f"({statistics.median(best.untrained):.4g} untrained)"
        )
        if shared < _GAP * alone:
            yield f"{said}: the supernet is far from trained. Give it more epochs"
        elif alone < _GAP * shared:
            yield f"{said}: alone it is far from trained. Train it for longer, one_shot_report(evaluator=...)"

    def _collapsed(self) -> Iterator[str]:
        if self.skips is not None and self.skips > _DOMINATES:
            yield (
                f"{self.skips:.0%} of the operations of the best sample are skip connections (a random sample has "
                f"{self.expected_skips or 0:.0%}): it has collapsed; try fewer epochs, stop=CurvatureStop(), or paths"
            )


def in_short(sample: Sample) -> str:
    """A sample on one line, cut where it is long."""
    text = ", ".join(f"{label}={answer}" for label, answer in sample.items())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _at_least(wins: int, number: int, share: float) -> float:
    """How probable so many wins of a number are, or more, each by itself with this probability."""
    return sum(math.comb(number, i) * share**i * (1 - share) ** (number - i) for i in range(wins, number + 1))
