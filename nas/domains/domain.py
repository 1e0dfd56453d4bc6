"""What a choice may answer: the protocol of domains, of whatever kind."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias, final

from nas.errors import NasTypeError, NasValueError, explain, shown

Answer: TypeAlias = Any
"""One answer: None, bool, int, float, str, a tuple of these, or (for a Subset) a list of ints."""

Choose: TypeAlias = Callable[[int, tuple[int, ...]], int]
"""Given which decision of a domain is to be taken and the options that are left there, the option that is taken."""

_LISTED = 1000
"""A domain with more answers than this is not gone through answer by answer, unless it was given as a list."""
_FEW = 16
"""In a domain of at most so many answers each is as near as any other, and each number has a feature of its own."""
_DRAWN = 4
"""So many answers stand for the neighbours in a domain that has too many."""
_STEP = 0.15
"""Standard deviation of a step to a near number, as a share of the range."""
_DECIDED = 64
"""A domain of more numbers than this is decided by intervals."""
_INTERVALS = 16


def as_key(answer: Answer) -> Answer:
    """The answer as something that can be hashed: a list as a tuple."""
    return tuple(answer) if isinstance(answer, list) else answer


class Domain(ABC):
    """The set of answers that one choice allows. Domains are immutable values: equal when they allow the same.

    A kind of domain says what its answers are by the six abstract methods. Whatever searches or models answers asks the
    rest of this class: near answers, numbers between 0 and 1, features, decisions, parameters. A domain of at most
    1,000 answers has all of that at once, by its list; a larger one, or one whose answers have more to them than their
    number, overrides a group of methods (each group says which). Where neither is so, `feature_width` is 0 and
    `decisions` and `parameters` are empty: a strategy that needs them refuses the domain when it is started.

    `nas.testing.DomainContract` checks any domain.

    Example: the orders of n things.
        >>> import itertools, math
        >>> class Order(Domain):
        ...     def __init__(self, n):
        ...         self.n = n
        ...     size = property(lambda self: math.factorial(self.n))
        ...     first = property(lambda self: tuple(range(self.n)))
        ...     def canonical(self, answer):
        ...         if isinstance(answer, list | tuple) and sorted(answer) == list(range(self.n)):
        ...             return tuple(answer)
        ...         raise self.outside(answer)
        ...     def sample(self, rng):
        ...         return tuple(rng.sample(range(self.n), self.n))
        ...     def values(self):
        ...         return itertools.permutations(range(self.n))
        ...     def identity(self):
        ...         return ("order", self.n)
        >>> Order(3), Order(3).features((1, 0, 2)), Order(3).decisions
        (order(3), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0], (6,))
    """

    __slots__ = ()

    # What the answers are.

    @property
    @abstractmethod
    def size(self) -> int | float:
        """How many answers there are: an int, or `math.inf` where they cannot be listed."""

    @property
    @abstractmethod
    def first(self) -> Answer:
        """The first answer, the default where none is given."""

    @abstractmethod
    def canonical(self, answer: object) -> Answer:
        """The answer as this domain writes it (a list becomes the tuple it stands for, a subset is sorted).

        Raises:
            NasValueError: the answer is not in the domain; `raise self.outside(answer)` says so.
        """

    @abstractmethod
    def sample(self, rng: random.Random) -> Answer:
        """An answer drawn uniformly (log-uniformly where the domain says so)."""

    @abstractmethod
    def values(self) -> Iterator[Answer]:
        """All answers in order, lazily.

        Raises:
            NasValueError: there are infinitely many.
        """

    @abstractmethod
    def identity(self) -> tuple[Hashable, ...]:
        """What two equal domains have in common: the name of their kind, and what they were made of."""

    def __repr__(self) -> str:
        """What people read, and what a resumed search compares."""
        kind, *parts = self.identity()
        return f"{kind}({', '.join(map(repr, parts))})"

    @property
    def uniform(self) -> bool:
        """Whether `sample` draws each answer as often as any other."""
        return True

    @property
    def listable(self) -> bool:
        """Whether the answers are few enough to be gone through one by one."""
        return self.size <= _LISTED

    def index(self, answer: Answer) -> int:
        """Which of `values()` an answer is; for listable domains."""
        return _listing(self)[1][as_key(answer)]

    def at(self, index: int) -> Answer:
        """The answer of this index among `values()`; for listable domains."""
        return _listing(self)[0][index]

    @final
    def contains(self, answer: object) -> bool:
        """Whether `canonical` accepts the answer."""
        try:
            self.canonical(answer)
        except NasValueError:
            return False
        return True

    # Other answers: for strategies that go from sample to sample.

    @final
    def mutate(self, answer: Answer, rng: random.Random) -> Answer:
        """Another answer than this one, drawn as `sample` draws; the same where there is only one."""
        if self.size == 1:
            return answer
        while True:
            other = self.sample(rng)
            if other != answer:
                return other

    def near(self, answer: Answer, rng: random.Random) -> Answer:
        """Another answer, a near one where that means something: a small step among many numbers.

        Override it where answers are near to each other in another way: two of an order exchanged.
        """
        if self.size <= _FEW or not self.numeric:
            return self.mutate(answer, rng)
        position = self.to_unit(answer)
        for _ in range(100):
            other = self.from_unit(min(1.0, max(0.0, rng.gauss(position, _STEP))))
            if other != answer:
                return other
        return self.mutate(answer, rng)

    @final
    def neighbours(self, answer: Answer, rng: random.Random) -> list[Answer]:
        """All other answers where they are few, else some that are near.

        Example:
            >>> from nas import Categorical
            >>> Categorical(["relu", "gelu", "silu"]).neighbours("relu", random.Random(0))
            ['gelu', 'silu']
        """
        if self.size <= _FEW:
            return [other for other in self.values() if other != answer]
        return [self.near(answer, rng) for _ in range(_DRAWN)]

    # Numbers: for what goes by the order and the distance of answers. Override all three, or none.

    @property
    def numeric(self) -> bool:
        """Whether the answers are numbers, of which one that lies between two others is like both."""
        return False

    def to_unit(self, answer: Answer) -> float:
        """Where an answer lies between the least and the greatest, from 0 to 1, on the scale on which they are drawn.

        Raises:
            NasTypeError: the answers are no numbers.
        """
        raise self._no_numbers()

    def from_unit(self, position: float) -> Answer:
        """The answer nearest to a position from 0 (the least) to 1 (the greatest).

        Raises:
            NasTypeError: the answers are no numbers.
        """
        raise self._no_numbers()

    # Features: for predictors. Override both, or none.

    @property
    def feature_width(self) -> int:
        """How many features an answer has; 0 where the domain knows none."""
        if self.numeric:
            return int(self.size) + 1 if self.size <= _FEW else 2
        return int(self.size) if self.listable else 0

    def features(self, answer: Answer) -> list[float]:
        """What a predictor knows of an answer, as `feature_width` numbers that are not all 0 for a listed one.

        One for each answer, 1 for this one. Numbers have one more, where they lie between the bounds; where they are
        many, that and a 1, for the choice is made.
        """
        position = [self.to_unit(answer)] if self.numeric else []
        if self.numeric and self.size > _FEW:
            return [1.0, *position]
        ones = [0.0] * int(self.size)
        ones[self.index(answer)] = 1.0
        return ones + position

    # Decisions: for controllers, which take one after the other. Override all three, or none.

    @property
    def decisions(self) -> tuple[int, ...]:
        """How many options there are at each of the decisions that make an answer; empty where the domain knows none.

        One among the answers; among so many numbers, one among 16 intervals, in which the answer is drawn.
        """
        if self.numeric and self.size > _DECIDED:
            return (_INTERVALS,)
        return (int(self.size),) if self.listable else ()

    def decide(self, choose: Choose, rng: random.Random) -> Answer:
        """The answer that decisions lead to.

        Args:
            choose: is asked for each decision, in order, with the options (from 0 on) that are left to it.
            rng: draws what the decisions leave open.
        """
        (number,) = self.decisions
        option = choose(0, tuple(range(number)))
        if self.numeric and self.size > _DECIDED:
            return self.from_unit((option + rng.random()) / _INTERVALS)
        return self.at(option)

    def decided(self, answer: Answer) -> list[int]:
        """The options by which `decide` comes to an answer, or to one like it."""
        if self.numeric and self.size > _DECIDED:
            return [min(_INTERVALS - 1, int(self.to_unit(answer) * _INTERVALS))]
        return [self.index(answer)]

    # Parameters: for optimisers that know names and numbers alone, and for the ledger. Override all three, or none.

    def parameters(self) -> Mapping[str, Domain]:
        """This domain as independent ones of the simplest kinds; empty where the domain knows no way.

        The keys stand behind the label: "", or something in brackets. The values are Integer, Real, or anything that
        is listable, the same each time: what is stored is read by them.
        """
        return {"": self} if self.listable else {}

    def to_parameters(self, answer: Answer) -> dict[str, Answer]:
        """An answer in these parameters: one for each."""
        return {"": answer} if self.listable else {}

    def from_parameters(self, values: Mapping[str, Answer]) -> Answer:
        """The answer that answers of the parameters stand for, whatever they are."""
        return self.canonical(values[""])

    @final
    def outside(self, answer: object) -> NasValueError:
        """The error of `canonical`."""
        return NasValueError(
            explain(f"the answer must be {self!r}", got=answer, mend=f"answer {shown(self.first)}, say")
        )

    @final
    def _no_numbers(self) -> NasTypeError:
        return NasTypeError(explain("these answers are no numbers; see `Domain.numeric`", got=self))

    @final
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and self.identity() == other.identity()

    @final
    def __hash__(self) -> int:
        return hash(self.identity())


@lru_cache(maxsize=256)
def _listing(domain: Domain) -> tuple[tuple[Answer, ...], dict[Answer, int]]:
    """All answers, and the index of each."""
    answers = tuple(domain.values())
    return answers, {as_key(answer): index for index, answer in enumerate(answers)}
