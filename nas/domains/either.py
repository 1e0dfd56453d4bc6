"""The domain of a label that may be answered otherwise in one part of a program than in another."""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Iterator, Sequence
from typing import final

from nas.domains.domain import Answer, Domain, as_key
from nas.errors import NasValueError


@final
class Either(Domain):
    """What any of several domains allows: which of them it is, other choices decide.

    Args:
        domains: two or more, all different.

    Example:
        >>> from nas import Categorical, Integer
        >>> width = Either([Categorical([8, 16]), Integer(32, 34)])
        >>> width, width.size, width.contains(16), width.contains(17)
        (one of 8, 16, or a whole number from 32 to 34, 5, True, False)
    """

    __slots__ = ("domains",)

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.domains = tuple(domains)

    @property
    def size(self) -> int | float:
        """The number of different answers; where they cannot be listed, what several allow counts several times."""
        if all(domain.listable for domain in self.domains):
            return sum(1 for _ in self.values())
        return sum(domain.size for domain in self.domains)

    @property
    def first(self) -> Answer:
        """The first answer of the first domain."""
        return self.domains[0].first

    def canonical(self, answer: object) -> Answer:
        """As the first domain that allows it writes it."""
        for domain in self.domains:
            try:
                return domain.canonical(answer)
            except NasValueError:
                continue
        raise self.outside(answer)

    def sample(self, rng: random.Random) -> Answer:
        """Drawn from one of the domains, each as often as any other; where they can be listed, from all answers."""
        if self.listable:
            return self.at(rng.randrange(int(self.size)))
        return rng.choice(self.domains).sample(rng)

    @property
    def uniform(self) -> bool:
        """Where the answers can be listed."""
        return self.listable

    def values(self) -> Iterator[Answer]:
        """Those of one domain after the other, none twice."""
        seen: set[Answer] = set()
        each = [domain.values() for domain in self.domains]  # so that one which cannot be listed says so at once
        for answer in itertools.chain(*each):
            if as_key(answer) not in seen:
                seen.add(as_key(answer))
                yield answer

    @property
    def feature_width(self) -> int:
        """The features of all domains one after the other; 0 where one of them knows none."""
        widths = [domain.feature_width for domain in self.domains]
        return sum(widths) if all(widths) else 0

    def features(self, answer: Answer) -> list[float]:
        """Those of each domain that allows the answer, and zeros for the others."""
        return [
            feature
            for domain in self.domains
            for feature in (domain.features(answer) if domain.contains(answer) else [0.0] * domain.feature_width)
        ]

    def identity(self) -> tuple[Hashable, ...]:
        """The domains."""
        return ("either", *(domain.identity() for domain in self.domains))

    def __repr__(self) -> str:
        return ", or ".join(map(repr, self.domains))
