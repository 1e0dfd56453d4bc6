"""A walk of the search tree as a sequence of decisions among few: what a controller network decides."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

from nas.errors import NasTypeError, explain
from nas.space import Answer, Choice, Domain, Integer, Real, Sample, SearchSpace, Subset

_LISTED = 64
"""A domain of numbers with more answers than this is decided by intervals."""
_INTERVALS = 16


@final
@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision that was taken."""

    place: int
    """Which of the space's decisions it was."""
    options: tuple[int, ...]
    """What was possible."""
    option: int
    """What was taken."""


Decide: TypeAlias = Callable[[int, tuple[int, ...]], int]
"""Given a place and what is possible there, what is taken."""


@final
class Decisions:
    """The decisions of a space.

    A choice is one decision among its answers. An interval, or a large domain of whole numbers, is one among 16 parts
    of it, in which the answer is drawn. A subset is one decision for each place (or for each item, taken or not, where
    their number is open); what cannot be taken any more is not among the options.

    Args:
        space: of the samples.

    Raises:
        NasTypeError: a domain of a kind that is not known here.

    Example:
        >>> from nas import Categorical
        >>> decisions = Decisions(SearchSpace.of({"act": Categorical(["relu", "gelu"]), "inputs": Subset(3, 2)}))
        >>> decisions.arity
        [2, 3, 3]
        >>> decisions.walk(lambda place, options: options[-1], random.Random(0))
        {'act': 'gelu', 'inputs': [1, 2]}
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.arity: list[int] = []
        """The number of options of each decision."""
        self._first: dict[str, int] = {}
        self._answers: dict[str, tuple[Answer, ...]] = {}
        for label, domain in space.domains.items():
            self._first[label] = len(self.arity)
            if isinstance(domain, Subset):
                self.arity += [2] * domain.n if domain.k is None else [domain.n] * domain.k
            elif isinstance(domain, Integer | Real) and domain.size > _LISTED:
                self.arity.append(_INTERVALS)
            elif domain.size != math.inf:
                self._answers[label] = tuple(domain.values())
                self.arity.append(len(self._answers[label]))
            else:
                raise NasTypeError(explain("a controller knows no such domain", got=domain, where=f"label {label!r}"))

    def walk(self, decide: Decide, rng: random.Random) -> Sample:
        """The sample that `decide` leads to; active choices alone are decided.

        Args:
            decide: is asked in the order of the tree.
            rng: draws inside the parts of an interval.
        """
        return self._space.walk(lambda choice: self._answer(choice, decide, rng))

    def of(self, sample: Sample) -> list[Decision]:
        """The decisions that lead to a sample."""
        found: list[Decision] = []

        def recall(choice: Choice) -> Answer:
            wanted = iter(self._options_of(choice, sample[choice.label]))

            def decide(place: int, options: tuple[int, ...]) -> int:
                option = next(wanted)
                found.append(Decision(place=place, options=options, option=option))
                return option

            self._answer(choice, decide, random.Random(0))
            return sample[choice.label]

        self._space.walk(recall)
        return found

    def _answer(self, choice: Choice, decide: Decide, rng: random.Random) -> Answer:
        domain, first = choice.domain, self._first[choice.label]
        if isinstance(domain, Subset):
            return _decide_subset(domain, first, decide)
        option = decide(first, tuple(range(self.arity[first])))
        answers = self._answers.get(choice.label)
        if answers is not None:
            return answers[option]
        assert isinstance(domain, Integer | Real)
        return domain.from_unit((option + rng.random()) / _INTERVALS)

    def _options_of(self, choice: Choice, answer: Answer) -> list[int]:
        domain: Domain = choice.domain
        if isinstance(domain, Subset):
            return [int(i in answer) for i in range(domain.n)] if domain.k is None else list(answer)
        answers = self._answers.get(choice.label)
        if answers is not None:
            return [answers.index(answer)]
        assert isinstance(domain, Integer | Real)
        return [min(_INTERVALS - 1, int(domain.to_unit(answer) * _INTERVALS))]


def _decide_subset(domain: Subset, first: int, decide: Decide) -> list[int]:
    if domain.k is None:
        return [item for item in range(domain.n) if decide(first + item, (0, 1))]
    taken: list[int] = []
    for place in range(domain.k):
        if domain.ordered:
            options = [i for i in range(domain.n) if domain.replace or i not in taken]
        else:
            # In ascending order, so that each subset is reached in one way; enough must remain for those to come.
            low = 0 if not taken else taken[-1] + (not domain.replace)
            high = domain.n if domain.replace else domain.n - (domain.k - place - 1)
            options = list(range(low, high))
        taken.append(decide(first + place, tuple(options)))
    return taken
