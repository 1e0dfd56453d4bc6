"""ValueChoices on shapes in a relaxed supernet: the largest parameters, times the weighted sums of masks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import NormBase, own_buffers, own_parameters
from nas.domains import Answer, Sample
from nas.errors import NasValueError, explain
from nas.oneshot.paths import region
from nas.oneshot.relaxed.architecture import Mixing, RelaxedChoice
from nas.oneshot.relaxed.extraction import Pair
from nas.oneshot.relaxed.parametrised import normalised_rows
from nas.oneshot.relaxed.shape_choices import Network, ShapeChoices


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPart:
    """Dimensions of a parameter whose sizes depend on the same labels.

    Its mask is the expectation over the joint answers: the sum of their weights times the box that each leaves.
    """

    labels: tuple[str, ...]
    dims: tuple[int, ...]
    sizes: dict[tuple[Answer, ...], tuple[int, ...]]
    """Joint answer -> size of each dimension."""
    indicators: tuple[Tensor, ...]
    """For each dimension (joint answers, size): 1 inside of what the answer leaves."""


@final
@dataclass(frozen=True, kw_only=True)
class TensorMask:
    """Where in a parameter or buffer of the supernet those of the architectures lie."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[MaskPart, ...]
    whole_rows: bool = False
    """Whether dimension 0 is not masked: each row is divided by its norm, and something else masks the rows."""

    def shape_of(self, sample: Mapping[str, Answer]) -> tuple[int, ...]:
        """The shape under a sample."""
        shape = list(self.shape)
        for part in self.parts:
            sizes = part.sizes[tuple(sample[label] for label in part.labels)]
            for dim, size in zip(part.dims, sizes, strict=True):
                shape[dim] = size
        return tuple(shape)


@final
@dataclass(frozen=True, kw_only=True)
class Masks:
    """All masks of a supernet."""

    largest: Sample = field(default_factory=dict)
    """The answers under which every parameter has its greatest shape."""
    choices: tuple[RelaxedChoice, ...] = ()
    tensors: Mapping[str, TensorMask] = field(default_factory=dict)

    def check(self, pairs: Iterable[Pair], sample: Mapping[str, Answer]) -> None:
        """Compares the shapes of an architecture with those that the masks leave.

        Raises:
            NasValueError: a shape that depends on choices in another way.
        """
        for pair in pairs:
            for tensor_name, large, small in pair.tensors():
                name = f"{pair.name}.{tensor_name}" if pair.name else tensor_name
                mask = self.tensors.get(name)
                expected = tuple(large.shape) if mask is None else mask.shape_of(sample)
                if tuple(small.shape) != expected:
                    raise NasValueError(
                        explain(
                            f"{tensor_name} of {pair.name or 'the model'} should have the shape {expected}, as each "
                            f"choice by itself tells, but has {tuple(small.shape)}",
                            got=dict(sample),
                            where="RelaxedSupernet",
                            mend="let each size depend on few ValueChoices, and on no layer, input or depth that is "
                            "chosen; or search this space by paths",
                        )
                    )


def find_masks(shapes: ShapeChoices) -> Masks:
    """The masks of the ValueChoices of a space.

    Raises:
        NasValueError: a ValueChoice that is no shape, or whose masks are not exact.
    """
    largest = shapes.largest()
    full = shapes.network(largest)
    by_labels: dict[tuple[str, ...], list[tuple[str, tuple[int, ...]]]] = {}
    for name, by_dim in shapes.dependence.items():
        for dims, labels in _groups(by_dim, list(shapes.questions)):
            by_labels.setdefault(labels, []).append((name, dims))
    parts: dict[str, list[MaskPart]] = {name: [] for name in shapes.dependence}
    known: dict[object, MaskPart] = {}
    for labels, places in by_labels.items():
        networks = shapes.joint(labels)
        for name, dims in places:
            part = _part(networks, full, name, dims, labels)
            # Tensors that the same boxes are cut out of share the mask.
            alike = labels, dims, *((tuple(i.shape), i.numpy().tobytes()) for i in part.indicators)
            parts[name].append(known.setdefault(alike, part))
    rows = {
        f"{name}.{own}" if name else own
        for name, module in full.module.named_modules()
        for own in normalised_rows(module)
    }
    tensors = {
        name: TensorMask(name=name, shape=full.shapes[name], parts=tuple(parts[name]), whole_rows=name in rows)
        for name in parts
    }
    masked_labels = {label for labels in by_labels for label in labels}
    choices = tuple(
        RelaxedChoice(
            label=label,
            domain=question.domain,
            kind="answers",
            whole=tuple(float(answer == largest[label]) for answer in question.domain.values()),
        )
        for label, question in shapes.questions.items()
        if label in masked_labels
    )
    return Masks(largest=largest, choices=choices, tensors=tensors)


def _groups(by_dim: Mapping[int, set[str]], order: Sequence[str]) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """Dimensions with their labels; those that share a label stand together."""
    groups: list[tuple[set[int], set[str]]] = []
    for dim, labels in by_dim.items():
        joined = ({dim}, set(labels))
        apart = []
        for group in groups:
            if group[1] & joined[1]:
                joined = (joined[0] | group[0], joined[1] | group[1])
            else:
                apart.append(group)
        groups = [*apart, joined]
    return [(tuple(sorted(dims)), tuple(sorted(labels, key=order.index))) for dims, labels in groups]


def _part(
    networks: Mapping[tuple[Answer, ...], Network],
    full: Network,
    name: str,
    dims: tuple[int, ...],
    labels: tuple[str, ...],
) -> MaskPart:
    """What some dimensions of a tensor are under all joint answers."""
    shape = full.shapes[name]
    sizes: dict[tuple[Answer, ...], tuple[int, ...]] = {}
    places: list[tuple[tuple[int, int], ...]] = []
    for joint, network in networks.items():
        small = network.shapes[name]
        if any(small[dim] > shape[dim] for dim in dims):
            raise NasValueError(
                explain(
                    f"no answers make every parameter largest at once: {name} has the shape {shape} where most are "
                    f"largest, and {small} elsewhere",
                    where=_where(labels),
                    mend="search this space by paths",
                )
            )
        owner, _, tensor = name.rpartition(".")
        modules = (found.module.get_submodule(owner) for found in (network, full))
        place = region(next(modules), tensor, shape, full_module=next(modules))
        places.append(tuple(_bounds(place[dim], shape[dim], name, labels) for dim in dims))
        sizes[joint] = tuple(small[dim] for dim in dims)
    indicators = tuple(_indicator([place[i] for place in places], shape[dim]) for i, dim in enumerate(dims))
    return MaskPart(labels=labels, dims=dims, sizes=sizes, indicators=indicators)


def _bounds(place: object, size: int, name: str, labels: Sequence[str]) -> tuple[int, int]:
    if not isinstance(place, slice):
        raise NasValueError(
            explain(
                f"what {name} leaves under smaller answers is no block of it, so that no mask serves",
                where=_where(labels),
                mend="search this space by paths",
            )
        )
    start, stop, _ = place.indices(size)
    return start, stop


def _indicator(bounds: Sequence[tuple[int, int]], size: int) -> Tensor:
    found = torch.zeros(len(bounds), size)
    for row, (start, stop) in zip(found, bounds, strict=True):
        row[start:stop] = 1
    return found


def _where(labels: Sequence[str]) -> str:
    return ", ".join(f"ValueChoice {label!r}" for label in labels)


def mask(network: nn.Module, masks: Masks, mixing: Mixing) -> Indicators | None:
    """Lets a network compute with masked parameters; its modules and the names of its parameters stay as they are.

    Returns:
        What the masks are made of, which is to go where the network goes; None where there are no masks.
    """
    if not masks.tensors:
        return None
    for choice in masks.choices:
        mixing.add(choice)
    indicators = Indicators(part for tensor in masks.tensors.values() for part in tensor.parts)
    network.__dict__["forward"] = MaskedForward(network, masks, mixing, indicators)
    return indicators


@final
class Indicators(nn.Module):
    """Those of the parts of masks, as buffers: they go where the module goes, and are in no checkpoint.

    Args:
        parts: of the masks.
    """

    def __init__(self, parts: Iterable[MaskPart]) -> None:
        super().__init__()
        self._names: dict[MaskPart, list[str]] = {}
        for part in parts:
            if part not in self._names:
                self._names[part] = [f"{len(self._names)}_{i}" for i in range(len(part.indicators))]
                for name, indicator in zip(self._names[part], part.indicators, strict=True):
                    self.register_buffer(name, indicator.clone(), persistent=False)

    def of(self, part: MaskPart) -> list[Tensor]:
        """For each dimension of a part (joint answers, size)."""
        return [self.get_buffer(name) for name in self._names[part]]


@final
class MaskedForward:
    """The forward of a network, during which masked parameters stand in the place of its own.

    Args:
        network: with the largest parameters.
        masks: of these.
        mixing: where the weights are read.
        indicators: of the masks.
    """

    def __init__(self, network: nn.Module, masks: Masks, mixing: Mixing, indicators: Indicators) -> None:
        self._forward = vars(network).get("forward") or MethodType(type(network).forward, network)
        self.__signature__ = inspect.signature(self._forward)
        self._mixing = mixing
        # The statistics of a batch norm are not masked, as they are written to; its weight and bias are.
        statistics = {
            f"{name}.{buffer}" if name else buffer
            for name, module in network.named_modules()
            if isinstance(module, NormBase)
            for buffer in own_buffers(module)
        }
        first = {**dict(network.named_parameters()), **dict(network.named_buffers())}  # tied ones once
        places = _places(network)
        self._tensors = [
            (mask, places[id(first[name])])
            for name, mask in masks.tensors.items()
            if name in first and name not in statistics
        ]
        self._indicators = indicators

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the network takes and yields."""
        masked = self._masked()
        kept = [(place, name, place[name]) for _, places in self._tensors for place, name in places]
        try:
            for (_, places), tensor in zip(self._tensors, masked, strict=True):
                for place, name in places:
                    place[name] = tensor
            return self._forward(*args, **kwargs)
        finally:
            for place, name, own in kept:
                place[name] = own

    def _masked(self) -> list[Tensor]:
        """The tensors that are masked, times their masks."""
        made: dict[tuple[MaskPart, tuple[int, ...]], Tensor] = {}
        found = []
        for mask, places in self._tensors:
            (place, name), *_ = places
            tensor: Tensor = place[name]
            with torch.autocast(tensor.device.type, enabled=False):
                for part in mask.parts:
                    dims = part.dims[1:] if mask.whole_rows and part.dims[0] == 0 else part.dims
                    if not dims:
                        continue
                    if (part, dims) not in made:
                        made[part, dims] = self._mask(part, dims)
                    shape = [size if dim in dims else 1 for dim, size in enumerate(mask.shape)]
                    tensor = tensor * made[part, dims].to(tensor.dtype).view(shape)
            found.append(tensor)
        return found

    def _mask(self, part: MaskPart, dims: tuple[int, ...]) -> Tensor:
        """The mask of some dimensions of a part, of their sizes."""
        weights = self._mixing.weights[part.labels[0]]
        for label in part.labels[1:]:
            weights = (weights[:, None] * self._mixing.weights[label]).flatten()
        letters = "abcdefg"[: len(dims)]
        found = self._indicators.of(part)
        indicators = [indicator.to(weights) for dim, indicator in zip(part.dims, found, strict=True) if dim in dims]
        return torch.einsum(f"z,{','.join('z' + letter for letter in letters)}->{letters}", weights, *indicators)


def _places(network: nn.Module) -> dict[int, list[tuple[dict[str, Any], str]]]:
    """Where each parameter and buffer stands, by its id; tied ones in several places."""
    found: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for module in network.modules():
        for place in (own_parameters(module), own_buffers(module)):
            for name, tensor in place.items():
                found.setdefault(id(tensor), []).append((place, name))
    return found
