"""Which tensors the architectures of a space have, by name, and the largest shape of each: found without weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nas.copying import same_kind
from nas.domains import Sample
from nas.errors import NasTypeError, NasValueError, explain
from nas.example_inputs import Inputs
from nas.oneshot.paths.alignment import Alignment, Found, plain
from nas.oneshot.paths.extremes import Answers, extremes, look_through
from nas.oneshot.paths.layouts import trace_layouts
from nas.oneshot.paths.module_tree import ModuleTree
from nas.oneshot.paths.naming import (
    AllPaths,
    ModuleSite,
    Numbering,
    OnePath,
    TensorSite,
    answers_from,
    construct_without_weights,
    named,
    places_of,
)
from nas.oneshot.paths.slicing import Index, Region, Shape, is_whole, region
from nas.random_state import derive_seed, seeded
from nas.space import ModelSpace

_QUIET, _QUIET_RUNS = 32, 8
"""Random architectures in a row that bring nothing new before the search ends, where they are built, and where they are
run too."""


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
    other: Sample | None = None
    """Of an architecture that has it in another shape."""
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
@dataclass(frozen=True, slots=True)
class Built:
    """An architecture without weights."""

    model: nn.Module
    sample: Sample
    sites: list[ModuleSite]
    """Its modules."""
    places: list[tuple[str, TensorSite]]
    """Its tensors, with the names that they are shared by."""
    layouts: Mapping[tuple[int, int], Found]
    """How channels lie in a dimension of a tensor, by the tensor's id; empty where that was not looked at."""
    everything: bool


@final
class Inventory:
    """The names of all architectures of a space.

    The space is not enumerated. All candidates, inputs and depths are built beside one architecture: once with the
    largest values, once with the smallest, and once with each place of their domains. Random architectures follow, and
    what is near those of them that bring something new (`look_through`).

    Args:
        space: any model space.
        seed: of the random architectures.
        example: what the network is called with.

    Attributes:
        entries: name -> what is known of it.
        probes: the constructions that have brought something new.
        tree: the modules at their places.
        numbering: of the candidates of LayerChoices.
        calm: whether constructing on the meta device was seen to leave the global random states alone.
        follows: whether subnets must be run to see where their channels lie.
        joint: whether several answers together decide what is largest, so that something larger may be left.
    """

    def __init__(self, space: ModelSpace, *, seed: int, example: Inputs | None) -> None:
        self.space, self.example = space, example
        self.tree, self.numbering = ModuleTree(), Numbering(space.search_space)
        self._dtype = torch.get_default_dtype()
        self.entries: dict[str, Entry] = {}
        self.probes: list[Probe] = []
        self.calm, self.follows, self.joint = True, False, False
        self._alignments: dict[tuple[str, int], Alignment] = {}
        self._growth = 0
        """How often a name was found, or something larger of one."""
        for answer in extremes(space.search_space):
            self._try(answer)
        self._try(answers_from({}), OnePath)  # the default is an architecture in any case
        rng = random.Random(derive_seed(seed, 1))
        self._sample(rng)
        # Where shapes are chosen, it matters what lies where in the channels that layers read.
        self.follows = example is not None and any(entry.varying for entry in self.entries.values())
        if self.follows:
            for probe in list(self.probes):
                self._try(answers_from(probe.sample), OnePath)
            self._sample(rng)
        self._settle()

    def _sample(self, rng: random.Random) -> None:
        def note(sample: Sample, surely: bool) -> tuple[bool, bool]:
            before = self._growth
            return self._try(answers_from(sample), OnePath, surely=surely), self._growth > before

        self.joint |= look_through(self.space, rng, note, quiet=_QUIET_RUNS if self.follows else _QUIET)

    def _try(self, answer: Answers, handler: type[AllPaths | OnePath] = AllPaths, *, surely: bool = False) -> bool:
        try:
            built = self.build(lambda: handler(answer))
        except Exception:
            if surely:
                raise
            return False  # answers that do not go together are no architecture; the random ones are
        return self._note(built)

    def build(self, make: Callable[[], AllPaths | OnePath], *, alone: bool = True) -> Built:
        """Constructs without weights.

        Args:
            make: a fresh handler.
            alone: whether no other thread draws random numbers, so that the global states can be put back.
        """
        if not alone:
            return self._build(make)
        with seeded(0), self.default_dtype():
            before = _random_states() if self.calm else ()
            built = self._build(make)
            self.calm = self.calm and _random_states() == before
        return built

    @contextmanager
    def default_dtype(self) -> Iterator[None]:
        """That of the first construction: a training in another precision sets its own."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    @property
    def threads(self) -> bool:
        """Whether another thread may construct: nothing of the whole program's state stands in the way."""
        return self.calm and torch.get_default_dtype() == self._dtype

    def _build(self, make: Callable[[], AllPaths | OnePath]) -> Built:
        model, handler, device = construct_without_weights(self.space, make)
        layouts: dict[tuple[int, int], Found] = {}
        if self.follows and self.example is not None:
            try:
                layouts = trace_layouts(model, self.example.on(device))
            except Exception:
                if device == "cpu":
                    raise
                handler = make()  # its forward pass needs numbers
                model = self.space.construct(handler, "cpu")
                layouts = trace_layouts(model, self.example.on("cpu"))
        sites = list(handler.names.sites(model, self.numbering))
        places = list(named(places_of(sites)))
        return Built(model, dict(handler.answers), sites, places, layouts, isinstance(handler, AllPaths))

    def _note(self, built: Built) -> bool:
        """Whether a construction has brought something new.

        Raises:
            NasValueError: the tensors of one name cannot be parts of one.
        """
        if scripted := [site.name for site in built.sites if isinstance(site.module, torch.jit.ScriptModule)]:
            raise NasTypeError(
                explain(
                    "a scripted module keeps its parameters for itself, so that paths cannot share them",
                    got=scripted[0],
                    where="PathSupernet",
                    mend="script what the search has found, not its parts before it",
                )
            )
        new, seen = False, dict[str, TensorSite]()
        self.tree.note(built.sites, built.places)
        for name, place in built.places:
            if is_lazy(place.tensor):
                if not built.everything:
                    raise _lazy(name)
                continue  # beside the architecture no forward pass has sized it
            shape, known = tuple(place.tensor.shape), self.entries.get(name)
            if seen.setdefault(name, place) is not place:
                continue  # tied to a place that was noted
            if known is None:
                size, number = place.tensor.numel(), len(self.probes)
                self.entries[name] = Entry(place.module, place.local, shape, size, number, built.sample)
                self._growth, new = self._growth + 1, True
            elif not same_kind(type(known.owner), type(place.module)) or len(known.shape) != len(shape):
                raise self._conflict(name, known, place, built.sample)
            elif shape != known.shape:
                new |= self._widen(known, place, shape, built.sample)
        if new:
            self.probes.append(Probe(sample=built.sample, everything=built.everything))
        for name, place in seen.items():
            for dim in self.entries[name].varying:
                layout = built.layouts.get((id(place.tensor), dim))
                if layout is not None:
                    alignment = self._alignments.setdefault((name, dim), Alignment())
                    before = alignment.length
                    new |= alignment.add(layout)
                    self._growth += alignment.length > before
        return new

    def _widen(self, known: Entry, place: TensorSite, shape: Shape, sample: Sample) -> bool:
        differing = {dim for dim, (n, most) in enumerate(zip(shape, known.shape, strict=True)) if n != most}
        joint = tuple(map(max, shape, known.shape))
        new = joint != known.shape or not differing <= known.varying
        self._growth += joint != known.shape
        known.varying |= differing
        known.shape, known.other = joint, sample
        if place.tensor.numel() > known.size:
            known.owner, known.size = place.module, place.tensor.numel()
            known.probe, known.sample, known.other = len(self.probes), sample, known.sample
            new = True
        return new

    def _settle(self) -> None:
        """What has been found is all: the shapes of the store follow.

        Raises:
            NasValueError: the channels of different architectures cannot be aligned.
        """
        self.follows = False
        for name, entry in self.entries.items():
            if entry.varying and self.tree.computed(name, entry.owner):
                raise NasValueError(
                    explain(
                        f"the shape of {name!r} is chosen, and a parametrisation computes with it: what it makes of a "
                        "part is no part of what it makes of the whole",
                        where=f"labels {', '.join(map(repr, self.labels(name)))}",
                        mend="choose between whole layers with a LayerChoice, whose candidates have weights of their "
                        "own, or keep the shape of a parametrised layer fixed",
                    )
                )
            if entry.varying and self.example is None:
                raise NasValueError(
                    explain(
                        f"the shape of {name!r} is chosen, so an example of the network's input is needed to see what "
                        "lies where in the channels that layers read",
                        where=f"labels {', '.join(map(repr, self.labels(name)))}",
                        mend="give example_input",
                    )
                )
            for dim in entry.varying:
                alignment = self._alignments.get((name, dim))
                if alignment is None:
                    continue
                if alignment.problem is not None:
                    raise NasValueError(
                        explain(
                            f"the parameter {name!r} cannot be shared in different shapes: along dimension {dim}, "
                            f"{alignment.problem}",
                            where=f"labels {', '.join(map(repr, self.labels(name)))}",
                            mend="keep that dimension fixed, choose between whole layers with a LayerChoice, or let a "
                            "layer of its own read (make) each of the parts",
                        )
                    )
                self.follows |= not alignment.is_plain
                entry.shape = (*entry.shape[:dim], max(entry.shape[dim], alignment.length), *entry.shape[dim + 1 :])

    def __deepcopy__(self, memo: Any) -> Inventory:
        """What was found out about a space is no state."""
        return self

    def region(self, name: str, place: TensorSite, layouts: Mapping[tuple[int, int], Found]) -> Region | None:
        """Where the tensor of an architecture lies in that of the store; None where it is all of it.

        Raises:
            Unforeseen: it is larger than any that was found.
        """
        entry, shape = self.entries.get(name), tuple(place.tensor.shape)
        if entry is None or any(n > most for n, most in zip(shape, entry.shape, strict=True)):
            raise _unforeseen(name, f"as large as {shape}", None if entry is None else entry.shape)
        parts: dict[int, Index] = {}
        for dim in entry.varying if self.follows else ():
            layout, alignment = layouts.get((id(place.tensor), dim)), self._alignments.get((name, dim))
            if layout is not None and not (alignment is None and layout == plain(shape[dim])):
                index = None if alignment is None else alignment.index(layout)
                if index is None:
                    raise _unforeseen(name, f"with the channels {layout}", alignment)
                parts[dim] = index
        found = region(place.module, place.local, entry.shape, full_module=entry.owner, parts=parts)
        return None if is_whole(found, entry.shape) else found

    def labels(self, name: str) -> list[str]:
        """Those that change the shape of a tensor."""
        entry = self.entries[name]

        def shape(sample: Sample) -> Shape | None:
            built = self.build(lambda: OnePath(answers_from(sample)))
            return next((tuple(place.tensor.shape) for n, place in built.places if n == name), None)

        first = shape(entry.sample)
        other = entry.sample if entry.other is None else entry.other
        return changing_labels(entry.sample, other, lambda sample: shape(sample) not in (None, first))

    def _conflict(self, name: str, known: Entry, place: TensorSite, sample: Sample) -> NasValueError:
        def differs(other: Sample) -> bool:
            found = dict(self.build(lambda: OnePath(answers_from(other))).places).get(name)
            return found is not None and not same_kind(type(found.module), type(known.owner))

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


def _random_states() -> tuple[Any, ...]:
    kind, keys, *place = numpy.random.get_state()
    return random.getstate(), kind, numpy.array(keys).tobytes(), place, torch.get_rng_state().numpy().tobytes()


class Unforeseen(NasValueError):  # noqa: N818 - names what is met
    """An architecture needs more than was found when the space was looked through."""


def _unforeseen(name: str, what: str, got: object) -> Unforeseen:
    return Unforeseen(
        explain(
            f"the shared parameter {name!r} was not found {what} when the space was looked through; the program makes "
            "something of its answers that was not foreseen",
            got=got,
            where="PathSupernet",
            mend="report this, with the space",
        )
    )


def _lazy(name: str) -> NasValueError:
    return NasValueError(
        explain(
            f"the parameter {name!r} has no shape yet, so it cannot be shared",
            mend="size lazy layers in the constructor, by a forward pass with zeros",
        )
    )
