"""Samples as vectors of numbers, for predictors."""

from __future__ import annotations

from typing import final

from nas.domains import Answer, Domain, Subset
from nas.numeric_domains import Integer, Real
from nas.samples import Sample
from nas.search_space import SearchSpace

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
        self._paths: dict[str, dict[Answer, int]] = {}
        self._domains = space.domains
        self.width = 0
        for label, domain in space.domains.items():
            self._first[label] = self.width
            if isinstance(domain, Subset):
                self.width += domain.n * (domain.k or 1) if domain.ordered else domain.n
                continue
            listed = _is_listed(domain)
            self._paths[label] = {answer: i for i, answer in enumerate(domain.values())} if listed else {}
            self.width += (len(self._paths[label]) or 1) + isinstance(domain, Integer | Real)

    def __call__(self, sample: Sample) -> list[float]:
        """A vector of `width` numbers; labels that the space does not know have no say in it."""
        vector = [0.0] * self.width
        for label, answer in sample.items():
            if label in self._domains:
                self._write(vector, label, answer)
        return vector

    def _write(self, vector: list[float], label: str, answer: Answer) -> None:
        domain, first = self._domains[label], self._first[label]
        if isinstance(domain, Subset):
            for place, item in enumerate(answer):
                vector[first + item + (domain.n * place if domain.ordered else 0)] += 1.0
            return
        paths = self._paths[label]
        vector[first + paths.get(answer, 0)] = 1.0
        if isinstance(domain, Integer | Real):
            vector[first + (len(paths) or 1)] = domain.to_unit(answer)


def _is_listed(domain: Domain) -> bool:
    return not isinstance(domain, Integer | Real) or domain.size <= _ONE_HOT
