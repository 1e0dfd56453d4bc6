"""Search problems whose every answer is known at once, made from a seed or read from a file: to judge strategies by."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, final

import numpy
from torch import nn

from nas.domains import Categorical, Integer, Sample, sample_key
from nas.errors import NasValueError, SearchSpaceExhausted, close_names, explain
from nas.protocols import Strategy, Task, Trial, TrialState
from nas.space import LayerChoice, ModelSpace, Repeat, SearchSpace, ValueChoice

TableName: TypeAlias = Literal["flat", "conditional", "deceptive"]


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """A search space and the value of each of its samples; larger is better."""

    name: str
    space: SearchSpace
    value: Callable[[Sample], float]
    best: float
    """The largest value of all samples."""
    mean: float
    """The mean of all samples: what one random sample is worth."""

    def regret(self, value: float) -> float:
        """How far a value is from the best: 0 there, and 1 for what a random sample is worth on average."""
        return (self.best - value) / (self.best - self.mean)


def synthetic_table(name: TableName, seed: int = 0) -> Table:
    """A table of random effects: one for each answer, and one for each pair of answers.

    Those of single answers are normal, those of pairs normal with 0.4 of their deviation.

    Args:
        name: "flat" (6 choices of 5 operations and 2 of 5 widths: 390,625 samples); "conditional" (a kind of layer
            with choices of its own, and up to five blocks: 8,712 samples); "deceptive" (flat, 8 choices of 3, where
            nearly everywhere a better neighbour leads away from the best sample).
        seed: of the effects.

    Raises:
        NasValueError: an unknown name.

    Example:
        >>> table = synthetic_table("flat", seed=1)
        >>> table.regret(table.best)
        0.0
    """
    spaces = {"flat": _flat, "conditional": _conditional, "deceptive": _three_each}
    if name not in spaces:
        raise NasValueError(explain(f"unknown table; {close_names(name, spaces)}", got=name))
    space, labels, index = _enumerated(spaces[name])
    rng = random.Random(f"{name}/{seed}")
    answers = [{_key(a): i for i, a in enumerate(space.domains[label].values())} for label in labels]
    # The last entry is that of a choice that is not active.
    single = [
        numpy.array([*_effects(rng, len(a), space.domains[label].numeric), 0.0])
        for label, a in zip(labels, answers, strict=True)
    ]
    pairs = {(i, j): _paired(rng, len(answers[i]), len(answers[j])) for j in range(len(labels)) for i in range(j)}

    def effects(rows: numpy.ndarray) -> numpy.ndarray:
        alone = sum(effect[rows[:, i]] for i, effect in enumerate(single))
        return numpy.asarray(alone + sum(effect[rows[:, i], rows[:, j]] for (i, j), effect in pairs.items()))

    total = _with_trap(effects, index, rng) if name == "deceptive" else effects
    values = total(index)

    def value(sample: Sample) -> float:
        row = [a[_key(sample[n])] if n in sample else -1 for n, a in zip(labels, answers, strict=True)]
        return float(total(numpy.array([row]))[0])

    return Table(name=name, space=space, value=value, best=float(values.max()), mean=float(values.mean()))


def table_of(name: str, space: SearchSpace, rows: Iterable[tuple[Sample, float]]) -> Table:
    """A table of known results, all of a space.

    Args:
        name: of the table.
        space: of the samples.
        rows: (sample, value) for each of them; larger is better.

    Example:
        >>> space = SearchSpace.of({"width": Categorical([16, 32])})
        >>> table_of("two", space, [({"width": 16}, 0.5), ({"width": 32}, 0.7)]).value({"width": 32})
        0.7
    """
    known = {sample_key(sample): value for sample, value in rows}
    return Table(
        name=name,
        space=space,
        value=lambda sample: known[sample_key(sample)],
        best=max(known.values()),
        mean=sum(known.values()) / len(known),
    )


def play(strategy: Strategy, table: Table, trials: int, *, seed: int = 0) -> list[Trial]:
    """Lets a strategy search a table, one trial after the other, without an experiment around it.

    Returns:
        The finished trials; fewer where the strategy has nothing left to propose.

    Example:
        >>> from nas.strategies import Random
        >>> len(play(Random(), synthetic_table("conditional"), 10))
        10
    """
    strategy.start(Task(space=table.space, seed=seed))
    found: list[Trial] = []
    for number in range(trials):
        try:
            sample = strategy.ask(number)
        except SearchSpaceExhausted:
            break
        strategy.tell(Trial(number=number, sample=sample))
        value = table.value(sample)
        state = TrialState.COMPLETE
        found.append(Trial(number=number, sample=sample, state=state, values=(value,), metrics={"value": value}))
        strategy.tell(found[-1])
    return found


def _flat() -> SearchSpace:
    choices = {f"operation {i}": Categorical(["none", "skip", "pool", "conv 3", "conv 5"]) for i in range(6)}
    return SearchSpace.of({**choices, **{f"width {i}": Integer(16, 80, step=16) for i in range(2)}})


def _three_each() -> SearchSpace:
    return SearchSpace.of({f"choice {i}": Categorical(["a", "b", "c"]) for i in range(8)})


def _conditional() -> SearchSpace:
    def convolution() -> nn.Module:
        ValueChoice([1, 3, 5, 7], label="kernel")
        ValueChoice([1, 2, 4], label="groups")
        return nn.Identity()

    def attention() -> nn.Module:
        ValueChoice([1, 2, 4, 8], label="heads")
        LayerChoice({"learned": nn.Identity, "rotary": nn.Identity, "none": nn.Identity}, label="positions")
        return nn.Identity()

    def block(i: int) -> nn.Module:
        return LayerChoice(dict.fromkeys(("plain", "gated", "wide"), nn.Identity), label=f"block {i}")

    def network() -> nn.Module:
        layer = LayerChoice({"convolution": convolution, "attention": attention}, label="layer")
        return nn.Sequential(layer, Repeat(block, (1, 5), label="depth"))

    return ModelSpace(network).search_space


@lru_cache
def _enumerated(make: Callable[[], SearchSpace]) -> tuple[SearchSpace, list[str], numpy.ndarray]:
    """A space, its labels, and each sample as a row of positions of its answers, -1 where a choice is not active."""
    space = make()
    labels = list(space.domains)
    places = [{_key(a): i for i, a in enumerate(domain.values())} for domain in space.domains.values()]
    rows = [
        [place[_key(sample[label])] if label in sample else -1 for label, place in zip(labels, places, strict=True)]
        for sample in space.grid()
    ]
    return space, labels, numpy.array(rows)


def _key(answer: object) -> object:
    return tuple(answer) if isinstance(answer, list) else answer


def _effects(rng: random.Random, number: int, smooth: bool) -> list[float]:
    if not smooth:
        return [rng.gauss(0, 1) for _ in range(number)]
    peak, height = rng.uniform(0, number - 1), rng.uniform(1, 3)
    return [height * (1 - ((i - peak) / (number - 1)) ** 2) for i in range(number)]


def _paired(rng: random.Random, rows: int, columns: int) -> numpy.ndarray:
    effects = [[rng.gauss(0, 0.4) for _ in range(columns)] for _ in range(rows)]
    return numpy.pad(numpy.array(effects), ((0, 1), (0, 1)))


def _with_trap(
    total: Callable[[numpy.ndarray], numpy.ndarray], index: numpy.ndarray, rng: random.Random
) -> Callable[[numpy.ndarray], numpy.ndarray]:
    """Adds a peak at a sample far from the best one; it is felt only where at most two choices differ from it."""
    values = total(index)
    peak = numpy.array([(place + rng.choice([1, 2])) % 3 for place in index[values.argmax()]])
    rise = float(values.max() - total(peak[None])[0] + values.std())

    def trapped(rows: numpy.ndarray) -> numpy.ndarray:
        distance = (rows != peak).sum(axis=1)
        return numpy.asarray(total(rows) + rise * numpy.clip(1 - distance / 3, 0, 1))

    return trapped
