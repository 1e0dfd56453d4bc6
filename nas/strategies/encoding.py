"""Samples as vectors of numbers, for predictors."""

from __future__ import annotations

from typing import final

from nas.space import Answer, Integer, Real, Sample, SearchSpace, Subset

_ONE_HOT = 16
"""A domain of numbers with more answers than this has no feature for each of them."""


@final
class PathEncoding:
    """One feature for each path of the search tree from its root to an answer (White et al. 2021, arXiv 1910.11858).

    The feature is 1 where a sample takes the path. Choices of numbers have one more, where the answer lies between the
    bounds; with many answers that and the fact that it is active are all. A subset has one for each item, how often it
    is taken, and in an ordered one for each item in each place.

    Args:
        space: of the samples.

    Example:
        >>> from nas import Categorical
        >>> encoding = PathEncoding(SearchSpace.of({"act": Categorical(["relu", "gelu"]), "depth": Integer(1, 3)}))
        >>> encoding({"act": "gelu", "depth": 2})
        [0.0, 1.0, 0.0, 1.0, 0.0, 0.5]
    """

    def __init__(self, space: SearchSpace) -> None:
        self._first: dict[str, int] = {}
        self._listed: dict[str, dict[Answer, tuple[tuple[int, float], ...]]] = {}
        self._domains = space.domains
        self.width = 0
        for label, domain in space.domains.items():
            self._first[label] = first = self.width
            if isinstance(domain, Subset):
                self.width += domain.n * (domain.k or 1) if domain.ordered else domain.n
            elif not isinstance(domain, Integer | Real):
                self._listed[label] = {answer: ((first + i, 1.0),) for i, answer in enumerate(domain.values())}
                self.width += int(domain.size)
            elif domain.size <= _ONE_HOT:
                last = first + int(domain.size)
                self._listed[label] = {
                    answer: ((first + i, 1.0), (last, domain.to_unit(answer)))
                    for i, answer in enumerate(domain.values())
                }
                self.width += int(domain.size) + 1
            else:
                self.width += 2

    def __call__(self, sample: Sample) -> list[float]:
        """A vector of `width` numbers; labels that the space does not know have no say in it."""
        vector = [0.0] * self.width
        for label, answer in sample.items():
            listed = self._listed.get(label)
            if listed is not None:
                for i, value in listed[answer]:
                    vector[i] = value
            elif label in self._domains:
                self._write(vector, label, answer)
        return vector

    def _write(self, vector: list[float], label: str, answer: Answer) -> None:
        domain, first = self._domains[label], self._first[label]
        if isinstance(domain, Subset):
            for place, item in enumerate(answer):
                vector[first + item + (domain.n * place if domain.ordered else 0)] += 1.0
        elif isinstance(domain, Integer | Real):
            vector[first] = 1.0
            vector[first + 1] = domain.to_unit(answer)
