"""Constraints: which samples of a space are wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeAlias, final

from nas.domains import Answer, Sample
from nas.errors import NasTypeError, explain

Where: TypeAlias = "Constraint | Callable[[Sample], bool]"


class Constraint(ABC):
    """Says which samples are wanted. Two of them are joined by `&`.

    Any function from a sample to a bool serves as well; a class can also refuse at once what no sample satisfies.

    Example:
        >>> class Narrow(Constraint):
        ...     def allows(self, sample):
        ...         return sample["width"] < 32
        >>> (Narrow() & (lambda sample: sample["width"] > 8)).allows({"width": 16})
        True
    """

    @abstractmethod
    def allows(self, sample: Mapping[str, Answer]) -> bool:
        """Whether the sample is wanted. Labels that the sample lacks are not active."""

    def check(self) -> None:  # noqa: B027 - most constraints cannot know
        """Refuses, where that is known, what no sample can satisfy.

        Raises:
            NasValueError: no sample satisfies it.
        """

    def __and__(self, other: Where) -> Constraint:
        return _Both(self, as_constraint(other))


@final
class _Both(Constraint):
    def __init__(self, first: Constraint, second: Constraint) -> None:
        self._parts = (first, second)

    def allows(self, sample: Mapping[str, Answer]) -> bool:
        return all(part.allows(sample) for part in self._parts)

    def check(self) -> None:
        for part in self._parts:
            part.check()

    def __repr__(self) -> str:
        return " and ".join(map(repr, self._parts))


@final
class _Predicate(Constraint):
    def __init__(self, function: Callable[[Sample], bool]) -> None:
        self._function = function

    def allows(self, sample: Mapping[str, Answer]) -> bool:
        return bool(self._function(dict(sample)))

    def __repr__(self) -> str:
        return str(getattr(self._function, "__name__", self._function))


def as_constraint(where: Where) -> Constraint:
    """A constraint of a constraint, or of a function.

    Raises:
        NasTypeError: neither.
    """
    if isinstance(where, Constraint):
        return where
    if not callable(where):
        raise NasTypeError(
            explain(
                "a constraint is a nas.Constraint or a function sample -> bool",
                got=where,
                mend='lambda sample: sample["width"] > 16',
            )
        )
    return _Predicate(where)
