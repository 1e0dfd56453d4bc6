"""From architecture parameters to samples: the likeliest architectures of a relaxed supernet, best first."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias, final

import torch

from nas.checks import check_int
from nas.domains import Answer, Sample, as_key
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed.architecture import Architecture
from nas.space import Choice, SearchSpace

Costs: TypeAlias = dict[Answer, float]
"""Answer (a subset as a tuple) -> how much less likely it is than the best, as a difference of logarithms."""

_MOST_STEPS = 50_000


def discretise(
    space: SearchSpace, architecture: Architecture, edge_labels: Mapping[str, tuple[Answer, ...]], k: int = 1
) -> list[Sample]:
    """The k best samples, the best first; fewer where the space has not so many.

    Each choice takes its likeliest answer, and those that follow lose the least in the product of the probabilities of
    the active labels, each relative to the likeliest answer of its label (so that choices that ask further choices are
    not at a disadvantage). On the edges of a cell whose nodes read k distinct states an operation counts with its
    probability as it is, `nas.Zero` excluded, and with the probability of the edge where edges have one: the best is
    then what DARTS derives, the k edges with the strongest operations (arXiv 1806.09055, section 2.4).

    Args:
        space: whose constraint is kept, too.
        architecture: its probabilities are read.
        edge_labels: the LayerChoices on such edges, with their answers that mean no edge.
        k: how many.

    Raises:
        NasValueError: k below 1, or no sample that satisfies the constraint was found.
    """
    k = check_int("k", k, least=1, where="discretise")
    found = []
    costs = {
        label: _costs(architecture, label, edge_labels) for label in space.domains if label in architecture.choices
    }
    for sample in itertools.islice(_best_first(space.choices, costs), _MOST_STEPS):
        if space.allows(sample):
            found.append(sample)
            if len(found) == k:
                break
    if not found:
        raise NasValueError(
            explain(
                f"none of the {_MOST_STEPS:,} likeliest samples satisfies the constraint",
                got=space.constraint,
                mend="loosen it, or add a cost penalty to the search",
            )
        )
    return found


def _costs(architecture: Architecture, label: str, edge_labels: Mapping[str, tuple[Answer, ...]]) -> Costs:
    choice = architecture.choices[label]
    if not choice.learned:
        return {as_key(answer): 0.0 for answer in choice.domain.values()}
    logarithms = architecture.log_probabilities(label, torch.float64).detach().tolist()
    if choice.kind == "answers":
        costs = {as_key(answer): -value for answer, value in zip(choice.answers, logarithms, strict=True)}
        costs = {answer: cost for answer, cost in costs.items() if answer not in edge_labels.get(label, ())}
        if label in edge_labels:
            return costs
    elif choice.kind == "edges":
        costs = {tuple(a): -math.fsum(logarithms[i] for i in a) for a in choice.domain.values()}
    else:
        costs = {
            tuple(a): -math.fsum(row[int(i in a)] for i, row in enumerate(logarithms)) for a in choice.domain.values()
        }
    best = min(costs.values())
    return {answer: cost - best for answer, cost in costs.items()}


@final
class _Bound:
    """The least that undecided choices can cost: a label is counted where it stands first in the tree."""

    def __init__(self, choices: tuple[Choice, ...], costs: Mapping[str, Costs]) -> None:
        self._costs = costs
        self._free: dict[Choice, float] = {}  # bounds where nothing below is decided
        self._first: dict[str, Choice] = {}
        pending = list(reversed(choices))
        while pending:
            choice = pending.pop()
            self._first.setdefault(choice.label, choice)
            pending.extend(c for branch in reversed(choice.branches) for c in reversed(branch.choices))

    def options(self, choice: Choice) -> Costs:
        """What each answer of a choice costs; a label that is not relaxed takes its default."""
        return self._costs.get(choice.label, {as_key(choice.default): 0.0})

    def of(self, choices: tuple[Choice, ...], sample: Mapping[str, Answer]) -> float:
        """A bound on the cost of these choices and all below them, given what is decided."""
        return math.fsum(self._of_one(choice, sample) for choice in choices)

    def _of_one(self, choice: Choice, sample: Mapping[str, Answer]) -> float:
        if not choice.labels.isdisjoint(sample):
            return self._bound(choice, sample)
        if choice not in self._free:
            self._free[choice] = self._bound(choice, sample)
        return self._free[choice]

    def _bound(self, choice: Choice, sample: Mapping[str, Answer]) -> float:
        if choice.label in sample:
            return self.of(choice.after(sample[choice.label]), sample)
        counts = self._first[choice.label] is choice
        return min(
            (cost if counts else 0.0) + (self.of(choice.after(answer), sample) if choice.branches else 0.0)
            for answer, cost in self.options(choice).items()
        )


def _best_first(choices: tuple[Choice, ...], costs: Mapping[str, Costs]) -> Iterator[Sample]:
    """All samples of the tree, those of least cost first (A*; ties in the order of the answers)."""
    bound = _Bound(choices, costs)
    ties = itertools.count()
    State: TypeAlias = tuple[float, int, float, Sample, tuple[Choice, ...]]
    waiting: list[State] = [(bound.of(choices, {}), next(ties), 0.0, {}, choices)]
    while waiting:
        _, _, spent, sample, pending = heapq.heappop(waiting)
        while pending and pending[0].label in sample:
            pending = (*pending[0].after(sample[pending[0].label]), *pending[1:])
        if not pending:
            yield sample
            continue
        choice, rest = pending[0], pending[1:]
        for answer, cost in bound.options(choice).items():
            decided = {**sample, choice.label: choice.domain.canonical(answer)}
            following = (*choice.after(answer), *rest)
            total = spent + cost
            heapq.heappush(waiting, (total + bound.of(following, decided), next(ties), total, decided, following))
