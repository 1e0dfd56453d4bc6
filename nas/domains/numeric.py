"""Domains of numbers: Integer and Real."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterator, Mapping
from typing import final

from nas.calls import explained
from nas.checks import as_plain, check_bool, check_int, check_number, plain_number
from nas.domains.domain import Answer, Domain
from nas.errors import NasValueError, explain


def _check_bounds(name: str, low: float, high: float, step: float | None, log: bool) -> None:
    where = f"{name}(low={low!r}, high={high!r}, step={step!r}, log={log!r})"
    for argument, number in (("low", low), ("high", high), ("step", step)):
        if name == "Integer":
            check_int(argument, number, where=where, mend="use Real" if isinstance(number, float) else "")
        elif argument != "step" or number is not None:
            check_number(argument, number, where=where)
    check_bool("log", log, where=where)
    if low > high:
        raise NasValueError(explain("low must not exceed high", got=(low, high), where=where, mend="swap the two"))
    if step is not None and step <= 0:
        raise NasValueError(explain("step must be positive", got=step, where=where, mend="step=1"))
    if log and low <= 0:
        raise NasValueError(explain("a log scale needs low above 0", got=low, where=where, mend="raise low"))
    if log and step is not None and not (name == "Integer" and step == 1):
        raise NasValueError(
            explain("a log scale takes no step", got=step, where=where, mend="drop one, or list the candidates")
        )


class _Interval(Domain):
    """Numbers between two bounds, evenly spread or on a log scale."""

    __slots__ = ("high", "log", "low")

    low: float
    high: float
    log: bool

    @final
    @property
    def uniform(self) -> bool:
        """Not on a log scale."""
        return not self.log

    @final
    @property
    def numeric(self) -> bool:
        """They are numbers."""
        return True

    @final
    def to_unit(self, answer: float) -> float:
        """Where an answer lies between the bounds, from 0 to 1; on a log scale where the domain says so."""
        low, high = self.low, self.high
        if low == high:
            return 0.0
        return math.log(answer / low) / math.log(high / low) if self.log else (answer - low) / (high - low)

    @final
    def _number_at(self, position: float) -> float:
        low, high = self.low, self.high
        if position == 1:
            return high
        return low * (high / low) ** position if self.log else low + (high - low) * position

    @final
    def parameters(self) -> Mapping[str, Domain]:
        """Itself, also where it cannot be listed."""
        return {"": self}

    @final
    def to_parameters(self, answer: float) -> dict[str, Answer]:
        """The number."""
        return {"": answer}


@explained()
@final
class Integer(_Interval):
    """The whole numbers from `low` to `high`, both included.

    Args:
        low, high: the bounds, included.
        step: the distance between two answers; the last one may lie below `high`.
        log: draw on a log scale (small numbers as often as large ones).

    Raises:
        NasValueError: low above high, a step below 1, a log scale from below 1.

    Example:
        >>> list(Integer(16, 64, step=16).values())
        [16, 32, 48, 64]
    """

    __slots__ = ("step",)

    low: int
    high: int

    def __init__(self, low: int, high: int, *, step: int = 1, log: bool = False) -> None:
        _check_bounds("Integer", low, high, step, log)
        low, high, step, log = int(low), int(high), int(step), bool(log)
        self.low, self.high, self.step, self.log = low, low + (high - low) // step * step, step, log

    @property
    def size(self) -> int:
        """How many whole numbers the steps reach."""
        return (self.high - self.low) // self.step + 1

    @property
    def first(self) -> int:
        """The lower bound."""
        return self.low

    def canonical(self, answer: object) -> int:
        """The answer as an int (4.0 becomes 4)."""
        number = plain_number(as_plain(answer))
        if number is None or number % 1 or not self.low <= number <= self.high or (number - self.low) % self.step:
            raise self.outside(answer)
        return int(number)

    def sample(self, rng: random.Random) -> int:
        """Uniform over the steps, or log-uniform over the whole numbers."""
        if not self.log:
            return rng.randrange(self.low, self.high + 1, self.step)
        value = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
        return min(self.high, max(self.low, round(value)))

    def from_unit(self, position: float) -> int:
        """The answer nearest to a position between 0 and 1."""
        value = self._number_at(position)
        return min(self.high, max(self.low, self.low + round((value - self.low) / self.step) * self.step))

    def values(self) -> Iterator[int]:
        """From low to high by step."""
        return iter(range(self.low, self.high + 1, self.step))

    def identity(self) -> tuple[Hashable, ...]:
        """Bounds, step and scale."""
        return ("integer", self.low, self.high, self.step, self.log)

    def __repr__(self) -> str:
        extra = f" by {self.step}" if self.step != 1 else ""
        return f"a whole number from {self.low} to {self.high}{extra}{' (log)' if self.log else ''}"


@explained()
@final
class Real(_Interval):
    """The numbers from `low` to `high`, both included; with a `step`, those that it reaches.

    Args:
        low, high: the bounds, included.
        step: the distance between two answers; None for the whole interval.
        log: draw on a log scale.

    Raises:
        NasValueError: low above high, a step not above 0, a log scale from 0 or below, or log with step.

    Example:
        >>> Real(1e-4, 1e-1, log=True).contains(0.01)
        True
    """

    __slots__ = ("step",)

    def __init__(self, low: float, high: float, *, step: float | None = None, log: bool = False) -> None:
        _check_bounds("Real", low, high, step, log)
        self.low, self.high, self.step, self.log = float(low), float(high), plain_number(step), bool(log)
        if step is not None:
            self.high = self._at(math.floor((high - low) / step + 1e-9))

    def _at(self, position: int) -> float:
        assert self.step is not None
        # Rounding keeps 0.1 + 2 * 0.1 at 0.3, so that an answer survives being written down and read back.
        return round(self.low + position * self.step, 12)

    @property
    def size(self) -> int | float:
        """The number of steps, or infinity; 1 where the bounds meet."""
        if self.step is not None:
            return round((self.high - self.low) / self.step) + 1
        return 1 if self.low == self.high else math.inf

    @property
    def first(self) -> float:
        """The lower bound."""
        return self.low

    def canonical(self, answer: object) -> float:
        """The answer as a float, on the step it is nearest to."""
        number = plain_number(as_plain(answer))
        if number is None or not self.low <= number <= self.high:
            raise self.outside(answer)
        if self.step is None:
            return float(number)
        nearest = self._at(round((number - self.low) / self.step))
        if not math.isclose(nearest, number, rel_tol=1e-9, abs_tol=self.step * 1e-6):
            raise self.outside(answer)
        return nearest

    def sample(self, rng: random.Random) -> float:
        """Uniform, or log-uniform, or uniform over the steps."""
        if self.step is not None:
            return self._at(rng.randrange(int(self.size)))
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(self.high, max(self.low, value))
        return rng.uniform(self.low, self.high)

    def from_unit(self, position: float) -> float:
        """The answer at a position between 0 and 1, or the step nearest to it."""
        value = min(self.high, max(self.low, self._number_at(position)))
        return value if self.step is None else self._at(round((value - self.low) / self.step))

    def values(self) -> Iterator[float]:
        """The steps from low to high."""
        if self.size == math.inf:
            raise NasValueError(
                explain(
                    "an interval of reals cannot be listed", got=self, mend="give it a step: Real(low, high, step=)"
                )
            )
        return (self._at(i) for i in range(int(self.size))) if self.step is not None else iter([self.low])

    def identity(self) -> tuple[Hashable, ...]:
        """Bounds, step and scale."""
        return ("real", self.low, self.high, self.step, self.log)

    def __repr__(self) -> str:
        extra = f" by {self.step}" if self.step is not None else ""
        return f"a number from {self.low:g} to {self.high:g}{extra}{' (log)' if self.log else ''}"
