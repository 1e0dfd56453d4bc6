"""Samples as vectors of numbers, for predictors."""

from __future__ import annotations

from typing import final

from nas.calls import explained
from nas.domains import Answer, Sample, as_key
from nas.space import SearchSpace


@explained()
@final
class PathEncoding:
    """One feature for each path of the search tree from its root to an answer (White et al. 2021, arXiv 1910.11858).

    The feature is 1 where a sample takes the path. Choices of numbers have one more, where the answer lies between the
    bounds; with many answers that and the fact that it is active are all. A subset has one for each item, how often it
    is taken, and in an ordered one for each item in each place. Other domains have what their `features` say.

    Args:
        space: of the samples.

    Raises:
        NasValueError: a domain that knows no features; its label is named.

    Example:
        >>> from nas import Categorical, Integer
        >>> encoding = PathEncoding(SearchSpace.of({"act": Categorical(["relu", "gelu"]), "depth": Integer(1, 3)}))
        >>> encoding({"act": "gelu", "depth": 2})
        [0.0, 1.0, 0.0, 1.0, 0.0, 0.5]
    """

    def __init__(self, space: SearchSpace) -> None:
        space.require(
            lambda domain: domain.feature_width > 0,
            "a model needs an answer as a few numbers, and this domain knows none",
            "list the candidates, or give the domain the methods `feature_width` and `features`",
        )
        self._domains = space.domains
        self._first: dict[str, int] = {}
        self._known: dict[str, dict[Answer, tuple[tuple[int, float], ...]]] = {}
        self.width = 0
        for label, domain in space.domains.items():
            self._first[label] = self.width
            self.width += domain.feature_width
            if domain.listable:
                self._known[label] = {}

    def __call__(self, sample: Sample) -> list[float]:
        """A vector of `width` numbers; labels that the space does not know have no say in it."""
        vector = [0.0] * self.width
        for label, answer in sample.items():
            known = self._known.get(label)
            if known is not None:
                try:
                    features = known[answer]
                except (KeyError, TypeError):  # It is new, or a list.
                    features = known.get(as_key(answer)) or self._note(label, answer)
                for i, value in features:
                    vector[i] = value
            elif label in self._domains:
                for i, value in enumerate(self._domains[label].features(answer), self._first[label]):
                    vector[i] = value
        return vector

    def _note(self, label: str, answer: Answer) -> tuple[tuple[int, float], ...]:
        """The features of an answer that are not 0, kept for the next time."""
        features = enumerate(self._domains[label].features(answer), self._first[label])
        found = self._known[label][as_key(answer)] = tuple((i, value) for i, value in features if value)
        return found
