"""What a choice may answer: Categorical, Integer, Real and Subset domains."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from types import NoneType
from typing import Any, Generic, TypeAlias, TypeVar, final

from nas.errors import NasTypeError, NasValueError, explain

T = TypeVar("T")

Answer: TypeAlias = Any
"""One answer: None, bool, int, float, str, a tuple of these, or (for a Subset) a list of ints."""


class Domain(ABC):
    """The set of answers that one choice allows. Domains are immutable values: equal when they allow the same."""

    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> int | float:
        """How many answers there are: an int, or `math.inf` for an interval of reals."""

    @property
    @abstractmethod
    def first(self) -> Answer:
        """The first answer, the default where none is given."""

    @abstractmethod
    def canonical(self, answer: object) -> Answer:
        """The answer as this domain writes it (a list becomes the tuple it stands for, a subset is sorted).

        Raises:
            NasValueError: the answer is not in the domain.
        """

    @abstractmethod
    def sample(self, rng: random.Random) -> Answer:
        """An answer drawn uniformly (log-uniformly where the domain says so)."""

    @abstractmethod
    def values(self) -> Iterator[Answer]:
        """All answers in order, lazily; raises NasValueError for an interval of reals."""

    @abstractmethod
    def identity(self) -> tuple[Hashable, ...]:
        """What two equal domains have in common."""

    @final
    def contains(self, answer: object) -> bool:
        """Whether `canonical` accepts the answer."""
        try:
            self.canonical(answer)
        except NasValueError:
            return False
        return True

    @final
    def mutate(self, answer: Answer, rng: random.Random) -> Answer:
        """Another answer than this one, drawn as `sample` draws; the same where there is only one."""
        if self.size == 1:
            return answer
        while True:
            other = self.sample(rng)
            if other != answer:
                return other

    @final
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and self.identity() == other.identity()

    @final
    def __hash__(self) -> int:
        return hash(self.identity())

    @final
    def _outside(self, answer: object) -> NasValueError:
        return NasValueError(explain(f"the answer must be {self!r}", got=answer))


_SIMPLE = frozenset({str, int, bool, NoneType})


def _is_plain(value: object) -> bool:
    if type(value) in _SIMPLE:
        return True
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)


def _with_tuples(value: object) -> object:
    """JSON knows no tuples: a list stands for the tuple of its items."""
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _same_kind(left: object, right: object) -> bool:
    """Python holds True == 1; a sample that says True has not answered 1."""
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(_same_kind, left, right))
    return isinstance(left, bool) == isinstance(right, bool)


@final
class Categorical(Domain, Generic[T]):
    """One of the given candidates.

    Args:
        candidates: at least one value, all different; None, bool, int, finite float, str, or tuples of these.

    Raises:
        NasValueError: no candidates, duplicates, or a candidate that JSON cannot hold.

    Example:
        >>> Categorical([16, 32, 64]).size
        3
    """

    __slots__ = ("_index", "candidates")

    def __init__(self, candidates: Sequence[T]) -> None:
        self.candidates = _check_candidates(candidates)
        self._index = {candidate: position for position, candidate in enumerate(self.candidates)}

    @property
    def size(self) -> int:
        """The number of candidates."""
        return len(self.candidates)

    @property
    def first(self) -> T:
        """The first candidate."""
        return self.candidates[0]

    def canonical(self, answer: object) -> T:
        """The candidate that equals the answer."""
        value = _with_tuples(answer)
        if _is_plain(value) and value in self._index:
            candidate = self.candidates[self._index[value]]
            if _same_kind(candidate, value):
                return candidate
        raise self._outside(answer)

    def sample(self, rng: random.Random) -> T:
        """A candidate, uniformly."""
        return self.candidates[int(rng.random() * len(self.candidates))]

    def values(self) -> Iterator[T]:
        """The candidates in the given order."""
        return iter(self.candidates)

    def identity(self) -> tuple[Hashable, ...]:
        """The candidates and their types."""
        return ("categorical", self.candidates, tuple(map(type, self.candidates)))

    def __repr__(self) -> str:
        return "one of " + ", ".join(repr(c) for c in self.candidates)


def _check_candidates(candidates: Sequence[T]) -> tuple[T, ...]:
    if isinstance(candidates, str | bytes) or not isinstance(candidates, Sequence | range):
        raise NasTypeError(
            explain("candidates must be a list or tuple of values", got=candidates, mend="write [16, 32, 64]")
        )
    found = tuple(candidates)
    if not found:
        raise NasValueError(explain("a choice needs at least one candidate", got=candidates, mend="name the answers"))
    if not _SIMPLE.issuperset(map(type, found)) and not all(map(_is_plain, found)):
        odd = [c for c in found if not _is_plain(c)]
        raise NasValueError(
            explain(
                "every candidate must be a value that JSON can hold: None, bool, int, finite float, str or a tuple of "
                f"these; {', '.join(repr(c) for c in odd)} is not",
                got=candidates,
                mend="choose among names or numbers, and look the object up by them; for layers use LayerChoice",
            )
        )
    if len(set(found)) < len(found):
        twice = sorted({repr(c) for i, c in enumerate(found) if c in found[:i]})
        raise NasValueError(
            explain(
                f"candidates must differ, but {', '.join(twice)} stands there twice (Python holds True == 1 == 1.0)",
                got=candidates,
                mend="drop the repeated ones",
            )
        )
    return found


def _check_bounds(name: str, low: float, high: float, step: float | None, log: bool) -> None:
    where = f"{name}(low={low!r}, high={high!r}, step={step!r}, log={log!r})"
    for bound in (low, high, step):
        if isinstance(bound, bool) or (bound is not None and not isinstance(bound, int | float)):
            raise NasTypeError(explain("bounds and step must be numbers", got=bound, where=where))
        if bound is not None and not math.isfinite(bound):
            raise NasValueError(explain("bounds and step must be finite", got=bound, where=where))
        if bound is not None and name == "Integer" and not isinstance(bound, int):
            raise NasTypeError(explain("bounds and step must be ints", got=bound, where=where, mend="use Real"))
    if low > high:
        raise NasValueError(explain("low must not exceed high", got=(low, high), where=where, mend="swap the two"))
    if step is not None and step <= 0:
        raise NasValueError(explain("step must be positive", got=step, where=where))
    if log and low <= 0:
        raise NasValueError(explain("a log scale needs low above 0", got=low, where=where, mend="raise low"))
    if log and step is not None and not (name == "Integer" and step == 1):
        raise NasValueError(
            explain("a log scale takes no step", got=step, where=where, mend="drop one, or list the candidates")
        )


@final
class Integer(Domain):
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

    __slots__ = ("high", "log", "low", "step")

    def __init__(self, low: int, high: int, *, step: int = 1, log: bool = False) -> None:
        _check_bounds("Integer", low, high, step, log)
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
        if isinstance(answer, float) and answer.is_integer():
            answer = int(answer)
        if (
            isinstance(answer, bool)
            or not isinstance(answer, int)
            or not self.low <= answer <= self.high
            or (answer - self.low) % self.step
        ):
            raise self._outside(answer)
        return int(answer)

    def sample(self, rng: random.Random) -> int:
        """Uniform over the steps, or log-uniform over the whole numbers."""
        if not self.log:
            return rng.randrange(self.low, self.high + 1, self.step)
        value = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
        return min(self.high, max(self.low, round(value)))

    def values(self) -> Iterator[int]:
        """From low to high by step."""
        return iter(range(self.low, self.high + 1, self.step))

    def identity(self) -> tuple[Hashable, ...]:
        """Bounds, step and scale."""
        return ("integer", self.low, self.high, self.step, self.log)

    def __repr__(self) -> str:
        extra = f" by {self.step}" if self.step != 1 else ""
        return f"a whole number from {self.low} to {self.high}{extra}{' (log)' if self.log else ''}"


@final
class Real(Domain):
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

    __slots__ = ("high", "log", "low", "step")

    def __init__(self, low: float, high: float, *, step: float | None = None, log: bool = False) -> None:
        _check_bounds("Real", low, high, step, log)
        self.low, self.high, self.step, self.log = float(low), float(high), step, log
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
        if isinstance(answer, bool) or not isinstance(answer, int | float) or not self.low <= answer <= self.high:
            raise self._outside(answer)
        if self.step is None:
            return float(answer)
        nearest = self._at(round((answer - self.low) / self.step))
        if not math.isclose(nearest, answer, rel_tol=1e-9, abs_tol=self.step * 1e-6):
            raise self._outside(answer)
        return nearest

    def sample(self, rng: random.Random) -> float:
        """Uniform, or log-uniform, or uniform over the steps."""
        if self.step is not None:
            return self._at(rng.randrange(int(self.size)))
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(self.high, max(self.low, value))
        return rng.uniform(self.low, self.high)

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


@final
class Subset(Domain):
    """Several of `n` items by their positions; the answers of an InputChoice, as lists of ints.

    Args:
        n: how many items there are.
        k: how many are taken; None for any number of them, none included.
        replace: whether one item may be taken several times (only with a fixed `k`).
        ordered: whether [0, 1] and [1, 0] are different answers (only with a fixed `k`).

    Example:
        >>> Subset(3, 2, replace=True).size, list(Subset(3, None).values())[:4]
        (6, [[], [0], [1], [0, 1]])
    """

    __slots__ = ("k", "n", "ordered", "replace")

    def __init__(self, n: int, k: int | None, *, replace: bool = False, ordered: bool = False) -> None:
        for number in (n, k):
            if isinstance(number, bool) or not isinstance(number, int | None):
                raise NasTypeError(explain("the number of items must be an int", got=number))
        if n < 1:
            raise NasValueError(explain("a choice needs at least one candidate", got=n))
        if k is not None and (k < 0 or (k > n and not replace)):
            raise NasValueError(
                explain(f"between 0 and {n} of {n} can be chosen without repeating one", got=k, mend="replace=True")
            )
        fixed = k is not None
        self.n, self.k, self.replace, self.ordered = n, k, replace and fixed, ordered and fixed

    @property
    def size(self) -> int:
        """Exact, in closed form."""
        if self.k is None:
            return int(2**self.n)
        if self.ordered:
            return int(self.n**self.k) if self.replace else math.perm(self.n, self.k)
        return math.comb(self.n + self.k - 1, self.k) if self.replace else math.comb(self.n, self.k)

    @property
    def first(self) -> list[int]:
        """The first k items: all of them different while there are enough; for any subset, the first item."""
        if self.k is None:
            return [0]
        return [i % self.n for i in range(self.k)] if self.ordered else sorted(i % self.n for i in range(self.k))

    def canonical(self, answer: object) -> list[int]:
        """A list of ints, sorted where order does not count."""
        if not isinstance(answer, list | tuple) or any(isinstance(i, bool) or not isinstance(i, int) for i in answer):
            raise self._outside(answer)
        chosen = list(answer) if self.ordered else sorted(answer)
        fits = all(0 <= i < self.n for i in chosen) and (self.k is None or len(chosen) == self.k)
        if not fits or (not self.replace and len(set(chosen)) != len(chosen)):
            raise self._outside(answer)
        return chosen

    def sample(self, rng: random.Random) -> list[int]:
        """Uniform over the answers."""
        if self.k is None:
            return [i for i in range(self.n) if rng.random() < 0.5]
        if self.ordered:
            return [rng.randrange(self.n) for _ in range(self.k)] if self.replace else rng.sample(range(self.n), self.k)
        if not self.replace:
            return sorted(rng.sample(range(self.n), self.k))
        bars = sorted(rng.sample(range(self.n + self.k - 1), self.k))  # stars and bars: uniform over multisets
        return [bar - i for i, bar in enumerate(bars)]

    def values(self) -> Iterator[list[int]]:
        """All answers; any subset counts in binary, the first item the lowest digit."""
        items = range(self.n)
        if self.k is None:
            return ([i for i in items if number >> i & 1] for number in range(self.size))
        if self.ordered:
            found: Iterator[tuple[int, ...]] = (
                itertools.product(items, repeat=self.k) if self.replace else itertools.permutations(items, self.k)
            )
        elif self.replace:
            found = itertools.combinations_with_replacement(items, self.k)
        else:
            found = itertools.combinations(items, self.k)
        return map(list, found)

    def identity(self) -> tuple[Hashable, ...]:
        """The four parameters."""
        return ("subset", self.n, self.k, self.replace, self.ordered)

    def __repr__(self) -> str:
        if self.k is None:
            return f"any of the positions 0 to {self.n - 1}"
        notes = [note for note, on in (("repeats allowed", self.replace), ("order counts", self.ordered)) if on]
        return f"{self.k} of the positions 0 to {self.n - 1}" + (f" ({', '.join(notes)})" if notes else "")
