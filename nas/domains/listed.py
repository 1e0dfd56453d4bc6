"""Domains of what is listed: Categorical, one of the candidates, and Subset, several of n items."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Generic, TypeVar, final

from nas.calls import explained
from nas.checks import as_plain, check_int, plain_int
from nas.domains.domain import Answer, Choose, Domain
from nas.errors import NasTypeError, NasValueError, explain, shown

T = TypeVar("T")

_SIMPLE = frozenset({str, int, bool, NoneType})


def _is_plain(value: object) -> bool:
    if type(value) in _SIMPLE:
        return True
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)


def _with_tuples(value: object) -> object:
    """JSON knows no tuples: a list stands for the tuple of its items."""
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list | tuple) else as_plain(value)


def _same_kind(left: object, right: object) -> bool:
    """Python holds True == 1; a sample that says True has not answered 1."""
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(_same_kind, left, right))
    return isinstance(left, bool) == isinstance(right, bool)


@explained(too_many="put the candidates into one list, as in Categorical([16, 32])")
@final
class Categorical(Domain, Generic[T]):
    """One of the given candidates.

    Args:
        candidates: at least one value, all different; None, bool, int, finite float, str, or tuples of these. Numbers
            of numpy and tensors without dimensions stand for the numbers that they hold.
        by_position: whether an int that is no candidate stands for the candidate at that position.

    Raises:
        NasValueError: no candidates, duplicates, or a candidate that JSON cannot hold.

    Example:
        >>> Categorical([16, 32, 64]).size
        3
    """

    __slots__ = ("_by_position", "_index", "candidates")

    def __init__(self, candidates: Sequence[T], *, by_position: bool = False) -> None:
        self.candidates = _check_candidates(candidates)
        self._by_position = by_position
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
        position = plain_int(value) if self._by_position else None
        if position is not None and 0 <= position < len(self.candidates):
            return self.candidates[position]
        raise self.outside(answer)

    def sample(self, rng: random.Random) -> T:
        """A candidate, uniformly."""
        return self.candidates[int(rng.random() * len(self.candidates))]

    def values(self) -> Iterator[T]:
        """The candidates in the given order."""
        return iter(self.candidates)

    @property
    def listable(self) -> bool:
        """It was given as a list."""
        return True

    def index(self, answer: Answer) -> int:
        """Which of the candidates it is."""
        return self._index[answer]

    def at(self, index: int) -> T:
        """The candidate of this index."""
        return self.candidates[index]

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
    found: tuple[Any, ...] = tuple(map(as_plain, candidates))
    if not found:
        raise NasValueError(explain("a choice needs at least one candidate", got=candidates, mend="name the answers"))
    if not _SIMPLE.issuperset(map(type, found)) and not all(map(_is_plain, found)):
        odd = [c for c in found if not _is_plain(c)]
        raise NasValueError(
            explain(
                "every candidate must be a value that JSON can hold: None, bool, int, finite float, str or a tuple of "
                f"these; {', '.join(map(shown, odd[:3]))} is not",
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


@explained()
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
        items = [plain_int(as_plain(item)) for item in answer] if isinstance(answer, list | tuple) else [None]
        taken = [item for item in items if item is not None]
        if len(taken) < len(items):
            raise self.outside(answer)
        chosen = taken if self.ordered else sorted(taken)
        fits = all(0 <= i < self.n for i in chosen) and (self.k is None or len(chosen) == self.k)
        if not fits or (not self.replace and len(set(chosen)) != len(chosen)):
            raise self.outside(answer)
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

    @property
    def feature_width(self) -> int:
        """One for each item; where order counts, for each item in each place."""
        return self.n * (self.k or 1) if self.ordered else self.n

    def features(self, answer: Answer) -> list[float]:
        """How often each item is taken, or whether it is taken in each place."""
        found = [0.0] * self.feature_width
        for place, item in enumerate(answer):
            found[item + (self.n * place if self.ordered else 0)] += 1.0
        return found

    @property
    def decisions(self) -> tuple[int, ...]:
        """One for each place; for each item, taken or not, where their number is open."""
        return (2,) * self.n if self.k is None else (self.n,) * self.k

    def decide(self, choose: Choose, rng: random.Random) -> list[int]:
        """What is decided; what cannot be taken any more is not among the options."""
        if self.k is None:
            return [item for item in range(self.n) if choose(item, (0, 1))]
        taken: list[int] = []
        for place in range(self.k):
            if self.ordered:
                options = [i for i in range(self.n) if self.replace or i not in taken]
            else:
                # In ascending order, so that each subset is reached in one way; enough must remain for those to come.
                low = 0 if not taken else taken[-1] + (not self.replace)
                high = self.n if self.replace else self.n - (self.k - place - 1)
                options = list(range(low, high))
            taken.append(choose(place, tuple(options)))
        return taken

    def decided(self, answer: Answer) -> list[int]:
        """The items, or for each item whether it is taken."""
        return [int(i in answer) for i in range(self.n)] if self.k is None else list(answer)

    def parameters(self) -> Mapping[str, Domain]:
        """One for each item (taken or not), or for each place (which item)."""
        if self.k is None:
            return {f"[{item}]": Categorical((False, True)) for item in range(self.n)}
        return {f"[{place}]": Categorical(range(self.n)) for place in range(self.k)}

    def to_parameters(self, answer: Answer) -> dict[str, Answer]:
        """Whether each item is taken, or the item in each place."""
        if self.k is None:
            return {f"[{item}]": item in answer for item in range(self.n)}
        return {f"[{place}]": item for place, item in enumerate(answer)}

    def from_parameters(self, values: Mapping[str, Answer]) -> list[int]:
        """The items taken; where one is taken twice and may not be, the next one that is free."""
        if self.k is None:
            return [item for item in range(self.n) if values[f"[{item}]"]]
        taken: list[int] = []
        for place in range(self.k):
            item = values[f"[{place}]"]
            while not self.replace and item in taken:
                item = (item + 1) % self.n
            taken.append(item)
        return self.canonical(taken)

    def identity(self) -> tuple[Hashable, ...]:
        """The four parameters."""
        return ("subset", self.n, self.k, self.replace, self.ordered)

    def __repr__(self) -> str:
        if self.k is None:
            return f"any of the positions 0 to {self.n - 1}"
        notes = [note for note, on in (("repeats allowed", self.replace), ("order counts", self.ordered)) if on]
        return f"{self.k} of the positions 0 to {self.n - 1}" + (f" ({', '.join(notes)})" if notes else "")
