"""What a choice may answer: the domain protocol, Categorical and Subset."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from types import NoneType
from typing import Any, Generic, TypeAlias, TypeVar, final

from nas.checks import check_int, plain, plain_int
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
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list | tuple) else plain(value)


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
    found: tuple[Any, ...] = tuple(map(plain, candidates))
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
        n = check_int("n", n, least=1, where="Subset")
        if k is not None:
            k = check_int("k", k, least=0, or_else="None", where="Subset")
        if k is not None and k > n and not replace:
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
        items = [plain_int(item) for item in answer] if isinstance(answer, list | tuple) else [None]
        taken = [item for item in items if item is not None]
        if len(taken) < len(items):
            raise self._outside(answer)
        chosen = taken if self.ordered else sorted(taken)
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
