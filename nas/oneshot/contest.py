"""How subnets compete to be ranked: each is judged whole, or all by a little and the better ones by more."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, TypeAlias, final

from nas.domains import Sample, sample_key
from nas.oneshot.relaxed import CostPenalty
from nas.oneshot.training import Judge

Thoroughness: TypeAlias = Literal["whole", "halving"]
ETA = 3
_FEW = Fraction(1, 20)
"""Of all candidates; where less than this could be judged whole, a rung is left out."""


class Contest(ABC):
    """Judges candidates in groups, as they are found.

    Args:
        judge: more is better.
        penalty: on what architectures cost, subtracted from what they are worth.

    Attributes:
        found: all that were judged, by their keys, in the order in which they came.
    """

    def __init__(self, judge: Judge, penalty: CostPenalty | None = None) -> None:
        self._judge, self._penalty = judge, penalty
        self.found: dict[str, Sample] = {}
        self._worth: dict[str, tuple[int, float]] = {}

    @abstractmethod
    def expect(self, number: int) -> None:
        """Says how many candidates there will be."""

    @abstractmethod
    def add(self, samples: Iterable[Sample]) -> None:
        """Judges these, different from all before."""

    @property
    @final
    def ranked(self) -> list[Sample]:
        """All that were judged, best first: by the batches that they were judged on, then by what they are worth.

        The order of equals does not depend on when they were found.
        """
        keys = sorted(sorted(self.found), key=lambda key: self._worth[key], reverse=True)
        return [self.found[key] for key in keys]

    @final
    def _values(self, samples: Sequence[Sample], batches: int | None = None) -> Iterator[float]:
        """What each is worth."""
        for sample, worth in zip(samples, self._judge.each(samples, batches), strict=True):
            yield worth - (0.0 if self._penalty is None else self._penalty.of_sample(sample))


@final
class Whole(Contest):
    """Each candidate on all the batches."""

    def expect(self, number: int) -> None:
        """As many whole judgements."""
        self._judge.expect(number, number)

    def add(self, samples: Iterable[Sample]) -> None:
        """Judges these."""
        new = list({key: s for s in samples if (key := sample_key(s)) not in self.found}.values())
        for sample, value in zip(new, self._values(new), strict=True):
            key = sample_key(sample)
            self.found[key], self._worth[key] = sample, (0, value)

    def value(self, sample: Sample) -> float:
        """What a candidate is worth."""
        self.add([sample])
        return self._worth[sample_key(sample)][1]


@final
class Halving(Contest):
    """Successive halving over batches (Jamieson and Talwalkar 2016, arXiv 1502.07943), by thirds.

    All candidates are judged on a ninth of the batches, the best third of them on a third, and on all batches as many
    of the best as leave the whole at a third of what it takes to judge every candidate whole; a few batches make fewer
    rungs. Where candidates come in groups, as the generations of an evolution, the best are always those of all groups
    so far (as in Li et al. 2018, arXiv 1810.05934): within each generation alone, the best of a good one were lost
    among its equals. Batches for the batch statistics of a candidate are counted in, and taken in the same shares.

    Fewer than 4 batches leave nothing to save: each candidate is judged whole.
    """

    def __init__(self, judge: Judge, penalty: CostPenalty | None = None) -> None:
        super().__init__(judge, penalty)
        self._rungs = rungs(judge.batches, judge.passes)

    def expect(self, number: int) -> None:
        """What the rungs take."""
        passes = sum(int(number * share) * self._judge.passes(batches) for batches, share in self._rungs)
        self._judge.expect(number, passes / self._judge.passes())

    def add(self, samples: Iterable[Sample]) -> None:
        """Judges these by a little, and the best of all so far by more."""
        batches, _ = self._rungs[0]
        new = list(samples)
        for sample, value in zip(new, self._values(new, batches), strict=True):
            key = sample_key(sample)
            self.found[key], self._worth[key] = sample, (0, value)
        for rung, (batches, share) in enumerate(self._rungs[1:], 1):
            there = sum(reached >= rung for reached, _ in self._worth.values())
            below = [key for key, (reached, _) in self._worth.items() if reached == rung - 1]
            below.sort(key=lambda key: self._worth[key][1], reverse=True)
            best = below[: max(max(int(len(self.found) * share), 1) - there, 0)]
            for key, value in zip(best, self._values([self.found[key] for key in best], batches), strict=True):
                self._worth[key] = rung, value


def rungs(batches: int, passes: Callable[[int], int]) -> list[tuple[int, Fraction]]:
    """How many batches the candidates are judged on, and which share of them, from few to all batches.

    Args:
        batches: of a whole judgement.
        passes: how many batches a judgement runs, by those of validation data.

    Example:
        >>> [(number, str(share)) for number, share in rungs(9, lambda batches: batches)]
        [(1, '1'), (3, '1/3'), (9, '1/9')]
        >>> [(number, str(share)) for number, share in rungs(3, lambda batches: batches)]
        [(3, '1')]
    """
    whole = passes(batches)
    first, middle = math.ceil(batches / ETA**2), math.ceil(batches / ETA)
    for between in ([(middle, Fraction(1, ETA))] if first < middle < batches else [], []):
        below = [(first, Fraction(1)), *between]
        left = Fraction(1, ETA) - sum((passes(number) * share for number, share in below), Fraction()) / whole
        if left >= _FEW:
            return [*below, (batches, left)]
    return [(batches, Fraction(1))]


def make_contest(name: Thoroughness, judge: Judge, penalty: CostPenalty | None) -> Contest:
    """The contest of this name."""
    return Halving(judge, penalty) if name == "halving" else Whole(judge, penalty)
