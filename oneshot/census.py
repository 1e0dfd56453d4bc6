"""Which tensors the architectures of a space have, by name, and the largest shape of each: found without weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, final

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas.choices import Question
from nas.domains import Answer
from nas.errors import NasError, NasValueError, explain
from nas.numeric_domains import Integer, Real
from nas.oneshot.naming import AllPaths, OnePath, Place, answers_from
from nas.oneshot.slicing import Shape
from nas.random_state import derive_seed, seeded
from nas.samples import Sample
from nas.space import ModelSpace
from nas.tree import Choice

H = TypeVar("H", AllPaths, OnePath)
Answers: TypeAlias = Callable[[Question], Answer]

_ROUNDS = 8
"""Answers of each value that are tried one after the other; of longer domains as many in equal distances."""
_QUIET, _MOST = 16, 300
"""Random architectures in a row that bring nothing new before the search ends; the most that are tried."""


@final
@dataclass(slots=True)
class Entry:
    """What is known of the tensors of one name."""

    owner: nn.Module
    """The layer that has the largest of them."""
    local: str
    """Their name in the layer."""
    shape: Shape
    """The largest length along each dimension."""
    size: int
    """Of the largest of them."""
    probe: int
    """The number of the construction that has the owner."""
    sample: Sample
    """Of that construction."""
    varying: frozenset[int] = frozenset()
    """The dimensions whose length differs from architecture to architecture."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A construction that has brought something new."""

    sample: Sample
    everything: bool
    """Whether what the architecture leaves out was built beside it."""

    def handler(self) -> AllPaths | OnePath:
        """One that constructs the same."""
        return (AllPaths if self.everything else OnePath)(answers_from(self.sample))


@final
class Census:
    """The names of all architectures of a space.

    The space is not enumerated. All candidates, inputs and depths are built beside one architecture: once with the
    largest values, once with the smallest, and once with each place of their domains. Random architectures follow until
    many in a row have brought nothing new.

    Attributes:
        entries: name -> what is known of it.
        probes: the constructions that have brought something new.
        calm: whether constructing on the meta device was seen to leave the global random states alone.
    """

    def __init__(self, space: ModelSpace, seed: int) -> None:
        self.space = space
        self.entries: dict[str, Entry] = {}
        self.probes: list[Probe] = []
        self.calm = True
        sizes = [
            min(c.domain.size, _ROUNDS) for c in _nodes(space.search_space.choices) if c.kind in ("value", "repeat")
        ]
        rounds = int(max(sizes, default=0))
        for answer in (_largest, *([_smallest] if rounds else []), *(_place(i, rounds) for i in range(rounds))):
            self._try(answer)
        rng, quiet = random.Random(derive_seed(seed, 1)), 0
        for _ in range(_MOST):
            sample = space.sample(rng)
            quiet = 0 if self.note(*self.build(lambda: OnePath(answers_from(sample)))) else quiet + 1  # noqa: B023
            if quiet == _QUIET:
                break

    def _try(self, answer: Answers) -> None:
        try:
            built = self.build(lambda: AllPaths(answer))
        except Exception:
            return  # answers that do not go together are no architecture; the random ones are
        self.note(*built)

    def build(self, make: Callable[[], H]) -> tuple[nn.Module, H]:
        """Constructs without weights, and leaves the global random states as they were."""
        with seeded(0):
            before = _random_states()
            built = construct(self.space, make)
            self.calm = self.calm and _random_states() == before
        return built

    def note(self, model: nn.Module, handler: AllPaths | OnePath) -> bool:
        """Whether a construction has brought something new.

        Raises:
            NasValueError: the tensors of one name cannot be parts of one.
        """
        new, sample = False, dict(handler.answers)
        for name, place in named(handler.names.places(model)):
            if is_lazy(place.tensor):
                if isinstance(handler, OnePath):
                    raise _lazy(name)
                continue  # beside the architecture no forward pass has sized it
            shape, known = tuple(place.tensor.shape), self.entries.get(name)
            if known is None:
                size = place.tensor.numel()
                self.entries[name] = Entry(place.module, place.local, shape, size, len(self.probes), sample)
                new = True
            elif type(known.owner) is not type(place.module) or len(known.shape) != len(shape):
                raise self._conflict(name, known, place, sample)
            elif shape != known.shape:
                new |= self._widen(known, place, shape, sample)
        if new:
            self.probes.append(Probe(sample=sample, everything=isinstance(handler, AllPaths)))
        return new

    def _widen(self, known: Entry, place: Place, shape: Shape, sample: Sample) -> bool:
        differing = {dim for dim, (n, most) in enumerate(zip(shape, known.shape, strict=True)) if n != most}
        joint = tuple(map(max, shape, known.shape))
        new = joint != known.shape or not differing <= known.varying
        known.varying |= differing
        known.shape = joint
        if place.tensor.numel() > known.size:
            known.owner, known.size = place.module, place.tensor.numel()
            known.probe, known.sample = len(self.probes), sample
            new = True
        return new

    def _conflict(self, name: str, known: Entry, place: Place, sample: Sample) -> NasValueError:
        def differs(other: Sample) -> bool:
            model, handler = self.build(lambda: OnePath(answers_from(other)))
            found = dict(named(handler.names.places(model))).get(name)
            return found is not None and type(found.module) is not type(known.owner)

        labels = changing_labels(known.sample, sample, differs)
        return NasValueError(
            explain(
                f"the parameter {name!r} belongs to {known.owner} in one architecture and to {place.module} in "
                "another, so they cannot share it",
                where=f"labels {', '.join(map(repr, labels))}",
                mend="choose between the two layers with a LayerChoice, whose candidates have weights of their own, or "
                "keep the layers that every architecture has at one place",
            )
        )


def changing_labels(first: Sample, second: Sample, differs: Callable[[Sample], bool]) -> list[str]:
    """The labels whose answer alone makes the difference between two samples; all that differ where none does."""
    changed = [label for label in second if first.get(label, ...) != second[label]]
    guilty = []
    for label in changed:
        try:
            if differs({**first, label: second[label]}):
                guilty.append(label)
        except Exception:
            continue  # no architecture
    return guilty or changed


def named(places: Iterable[Place]) -> Iterator[tuple[str, Place]]:
    """Each place with the name of its tensor: where tensors are tied, that of the first."""
    names: dict[int, str] = {}
    for place in places:
        yield names.setdefault(id(place.tensor), place.name), place


def construct(space: ModelSpace, make: Callable[[], H]) -> tuple[nn.Module, H]:
    """Runs the program on the meta device; on the CPU where it needs numbers, or keeps some that are no parameters."""
    handler = make()
    try:
        model = space.construct(handler, "meta")
    except NasError:
        raise
    except Exception:
        model = None
    if model is None or any(_has_plain_tensors(module) for module in model.modules()):
        handler = make()
        model = space.construct(handler)
    return model, handler


def _has_plain_tensors(module: nn.Module) -> bool:
    return any(
        isinstance(item, Tensor)
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers")
        for item in _items(value)
    )


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple):
        return value
    return value.values() if type(value) is dict else (value,)


def _random_states() -> tuple[Any, ...]:
    return random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().numpy().tobytes()


def _nodes(choices: Iterable[Choice]) -> Iterator[Choice]:
    for choice in choices:
        yield choice
        for branch in choice.branches:
            yield from _nodes(branch.choices)


def _largest(question: Question) -> Answer:
    return _extreme(question, max)


def _smallest(question: Question) -> Answer:
    return _extreme(question, min)


def _extreme(question: Question, choose: Callable[[Iterable[Any]], Any]) -> Answer:
    if question.kind in ("layer", "input"):
        return question.default
    values = _spread(question, _ROUNDS)
    numbers = all(isinstance(value, int | float) for value in values)
    return choose(values) if numbers else question.default


def _place(number: int, rounds: int) -> Answers:
    def answer(question: Question) -> Answer:
        if question.kind in ("layer", "input"):
            return question.default
        values = _spread(question, rounds)
        return values[number % len(values)]

    return answer


def _spread(question: Question, most: int) -> list[Answer]:
    """All answers, or as many in equal distances, the first and the last among them."""
    domain = question.domain
    if domain.size <= 1024:
        values = list(domain.values())
        if len(values) <= most:
            return values
        return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
    if isinstance(domain, Integer | Real):
        return [domain.canonical(domain.low), domain.canonical(domain.high)]
    return [question.default]


def _lazy(name: str) -> NasValueError:
    return NasValueError(
        explain(
            f"the parameter {name!r} has no shape yet, so it cannot be shared",
            mend="size lazy layers in the constructor, by a forward pass with zeros",
        )
    )
