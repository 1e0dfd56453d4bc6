"""A subnet: an architecture built without weights, which runs on slices of the shared store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nas._compat.torch_internals import copy_each, own_buffers
from nas.domains import Sample
from nas.oneshot.paths.slicing import Region, indexed
from nas.oneshot.paths.store import Slots, Store
from nas.oneshot.paths.watched import Standing, Twin

Slot: TypeAlias = tuple[Slots, str]
"""The dict of a module that holds a tensor, and the tensor's key in it."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Where a tensor of an architecture lies in the store."""

    path: str
    """Of its module, as in `named_modules()`."""
    local: str
    """Its name in the module."""
    slot: Slot
    name: str
    """In the store."""
    region: Region | None
    """None where it is the whole tensor."""
    parameter: bool

    @property
    def sliced(self) -> bool:
        """Whether it can be a view of the tensor in the store."""
        return self.region is None or all(isinstance(index, slice) for index in self.region)


class _Gathered(torch.autograd.Function):
    """Indexing with tensors, each place at the most once, whose backward pass keeps nothing that can be freed.

    A checkpoint of activations that is reentrant passes here once for itself, and once more for each other one.
    """

    @staticmethod
    def forward(ctx: Any, whole: Tensor, place: Any) -> Tensor:
        """The part."""
        ctx.place, ctx.shape = place, whole.shape
        part: Tensor = whole[place]
        return part

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of the whole, zero elsewhere."""
        whole = gradient.new_zeros(ctx.shape)
        whole[ctx.place] = gradient
        return whole, None


@final
@dataclass(frozen=True, slots=True)
class _Geometry:
    """Where a slice lies in the memory of the whole."""

    region: Region
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    whole_size: torch.Size
    whole_stride: tuple[int, ...]
    whole_offset: int
    dense: bool
    """Whether the whole fills its memory."""

    @classmethod
    def of(cls, whole: Tensor, region: Region) -> _Geometry:
        """That of a region."""
        view = indexed(whole.detach(), region)
        layouts = (torch.contiguous_format, *_LAYOUTS.get(whole.dim(), ()))
        return cls(
            region,
            view.size(),
            view.stride(),
            int(view.storage_offset()),
            whole.size(),
            whole.stride(),
            int(whole.storage_offset()),
            any(whole.is_contiguous(memory_format=layout) for layout in layouts),
        )

    def cut(self, whole: Tensor) -> Tensor:
        """The slice."""
        return whole.as_strided(self.size, self.stride, self.offset)


_LAYOUTS = {4: (torch.channels_last,), 5: (torch.channels_last_3d,)}


@final
class _Slices(torch.autograd.Function):
    """Slices of several tensors as one node of the graph, whose backward pass keeps nothing that can be freed.

    The gradients of the wholes, zero elsewhere, lie in one tensor: it is zeroed at once, and slices that lie as their
    gradients do are written at once. One node for each slice took two kernels each.
    """

    @staticmethod
    def forward(geometries: Sequence[_Geometry], *wholes: Tensor) -> tuple[Tensor, ...]:
        """The slices."""
        return tuple(geometry.cut(whole.detach()) for geometry, whole in zip(geometries, wholes, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keeps where they lie."""
        ctx.set_materialize_grads(False)
        ctx.geometries = inputs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients of the wholes."""
        pairs = list(zip(ctx.geometries, gradients, strict=True))
        if torch.is_grad_enabled():  # to be differentiated once more
            return None, *(None if gradient is None else _spread(geometry, gradient) for geometry, gradient in pairs)
        offsets, length = [], 0
        for geometry, gradient in pairs:
            offsets.append(length)
            if gradient is not None:
                length += -(-geometry.whole_size.numel() // _ALIGNED) * _ALIGNED
        first = next((gradient for gradient in gradients if gradient is not None), None)
        if first is None:
            return None, *gradients
        joint = first.new_zeros(length)
        places: tuple[list[Tensor], list[Tensor]] = ([], [])
        given: tuple[list[Tensor], list[Tensor]] = ([], [])
        found: list[Tensor | None] = []
        for (geometry, gradient), start in zip(pairs, offsets, strict=True):
            if gradient is None:
                found.append(None)
                continue
            found.append(joint.as_strided(geometry.whole_size, geometry.whole_stride, start))
            place = joint.as_strided(geometry.size, geometry.stride, start + geometry.offset - geometry.whole_offset)
            alike = place.is_contiguous() and gradient.is_contiguous()
            places[alike].append(place)
            given[alike].append(gradient)
        for some, theirs in zip(places, given, strict=True):
            if some:
                copy_each(some, theirs)
        return None, *found


_ALIGNED = 128
"""Numbers from one gradient to the next, in multiples: kernels read several at a time."""


def _spread(geometry: _Geometry, gradient: Tensor) -> Tensor:
    """The gradient of a whole, as a function of that of its slice."""
    margins: list[int] = []
    for index, length in zip(reversed(geometry.region), reversed(geometry.whole_size), strict=True):
        assert isinstance(index, slice)
        start, stop, _ = index.indices(length)
        margins += [start, length - stop]
    return pad(gradient, margins)


@final
class _View:
    """The slice of a tensor of the store, measured again where that was replaced or laid out anew."""

    __slots__ = ("geometry", "key", "known", "local", "region", "slots", "tensor", "tensors")

    def __init__(self, part: Part, store: Store) -> None:
        self.tensors, self.key = part.slot
        self.slots, self.local = store.slot(part.name)
        assert part.region is not None
        self.region = part.region
        self.known: tuple[Any, ...] | None = None
        self.geometry: _Geometry | None = None
        self.tensor: Tensor | None = None

    def measured(self, whole: Tensor) -> _Geometry:
        """Where the slice lies in the whole."""
        if self.geometry is None or (whole.shape, whole.stride(), whole.storage_offset()) != self.known:
            self.known = whole.shape, whole.stride(), whole.storage_offset()
            self.geometry = _Geometry.of(whole, self.region)
        return self.geometry

    def put_buffer(self) -> None:
        """The same, made again where the numbers of the whole are elsewhere."""
        whole = self.slots[self.local]
        known = None if whole is None else (whole, whole.data_ptr(), whole.stride())
        if self.known is None or known is None or known[0] is not self.known[0] or known[1:] != self.known[1:]:
            self.known = known
            self.tensor = None if whole is None else indexed(whole, self.region)
        self.tensors[self.key] = self.tensor

    def take_back(self) -> None:
        """A buffer that was assigned, not changed in place, is written where it belongs."""
        found, mine = self.tensors[self.key], self.tensor
        if found is not mine and isinstance(found, Tensor) and mine is not None:
            mine.copy_(found)
            self.tensors[self.key] = mine


def _put_slices(views: Iterable[_View]) -> None:
    """Puts slices of parameters in place; those that want gradients as one node of the graph, for each dtype.

    The gradient of each whole is zero elsewhere.
    """
    joint: dict[tuple[torch.dtype, torch.device], list[tuple[_View, _Geometry, Tensor]]] = {}
    grows = torch.is_grad_enabled()
    for view in views:
        whole = view.slots[view.local]
        if whole is None:
            view.tensors[view.key] = None
            continue
        geometry = view.measured(whole)
        if grows and whole.requires_grad and whole.is_leaf and geometry.dense:  # no tensor of a transformation
            joint.setdefault((whole.dtype, whole.device), []).append((view, geometry, whole))
        else:
            view.tensors[view.key] = geometry.cut(whole)
    for several in joint.values():
        wholes = [whole for *_, whole in several]
        slices = _Slices.apply([geometry for _, geometry, _ in several], *wholes)
        for (view, *_), found in zip(several, slices, strict=True):
            view.tensors[view.key] = found


@final
@dataclass(slots=True)
class Subnet:
    """An architecture and where its tensors lie.

    Args:
        sample: of the architecture.
        module: without numbers.
        parts: of all its tensors.
        twins: its modules by path, with what stands for them in the store.
    """

    sample: Sample
    module: nn.Module
    parts: list[Part]
    twins: dict[str, Twin]
    _whole: list[tuple[Slots, str, Slots, str]] = field(default_factory=list)
    _views: list[_View] = field(default_factory=list)
    _buffers: list[_View] = field(default_factory=list)
    _whole_buffers: list[tuple[Slots, str, Slots, str]] = field(default_factory=list)
    _gathered: list[tuple[Slot, Slot, Any]] = field(default_factory=list)
    _copied: dict[int, list[tuple[Slot, Slot, Any]]] = field(default_factory=dict)
    _modes: list[tuple[Slots, Slots]] = field(default_factory=list)
    _merging: list[Twin] = field(default_factory=list)
    _hooks: list[Any] = field(default_factory=list)
    _hooked: bool = False
    _standing: Standing | None = None
    _generation: int = -1

    def __post_init__(self) -> None:
        # A checkpoint of activations calls modules again in the backward pass, after the run.
        modules = dict(self.module.named_modules(remove_duplicate=False))
        for path in {part.path for part in self.parts if not part.sliced and not part.parameter}:
            modules[path].register_forward_hook(lambda module, _, __: self._write_back(id(own_buffers(module))))

    def active(self) -> list[str]:
        """The names of the parameters that it uses."""
        return list(dict.fromkeys(part.name for part in self.parts if part.parameter))

    def bind(self, store: Store) -> None:
        """Prepares what each run puts in place, where that has not been done since the store was last changed."""
        if self._standing is None or not self._standing.holds():
            stored = [watched for twin in self.twins.values() for watched in twin.stored]
            store.generation += sum(watched.changed() for watched in stored)
            self._standing = Standing(stored)
        if self._generation == store.generation:
            return
        self._whole, self._views, self._gathered = [], [], []
        self._whole_buffers, self._buffers, self._copied = [], [], {}
        for part in self.parts:
            slot = store.slot(part.name)
            if not part.sliced:
                device = store.tensor(part.name).device
                place = tuple(i if isinstance(i, slice) else i.to(device) for i in part.region or ())
                found = self._gathered if part.parameter else self._copied.setdefault(id(part.slot[0]), [])
                found.append((part.slot, slot, place))
            elif part.region is None:
                (self._whole if part.parameter else self._whole_buffers).append((*part.slot, *slot))
            else:
                (self._views if part.parameter else self._buffers).append(_View(part, store))
        for twin in self.twins.values():
            twin.set_up()
        self._modes = [(twin.attributes, twin.mode.attributes) for twin in self.twins.values()]
        self._merging = [twin for twin in self.twins.values() if twin.merges]
        self._hooks = [hooks for twin in self._merging for hooks in twin.hooks]
        self._hooked = True
        self._generation = store.generation

    def run(self, inputs: tuple[Any, ...], named_inputs: dict[str, Any]) -> Any:
        """The output of the architecture with the weights of the store."""
        for tensors, key, slots, local in self._whole:
            tensors[key] = slots[local]
        for tensors, key, slots, local in self._whole_buffers:
            tensors[key] = slots[local]
        _put_slices(self._views)
        for view in self._buffers:
            view.put_buffer()
        for (tensors, key), (slots, local), place in self._gathered:
            tensors[key] = None if slots[local] is None else _Gathered.apply(slots[local], place)
        for (tensors, key), (slots, local), place in chain(*self._copied.values()):
            tensors[key] = slots[local][place]
        for mine, stored in self._modes:
            mine["training"] = stored["training"]
        if self._hooked or any(self._hooks):
            self._hooked = any(self._hooks)
            for twin in self._merging:
                twin.merge()
        output = self.module(*inputs, **named_inputs)
        with torch.no_grad():
            for tensors, key, slots, local in self._whole_buffers:
                if tensors[key] is not slots[local]:  # assigned, not changed in place
                    slots[local].copy_(tensors[key])
            for view in self._buffers:
                view.take_back()
        for buffers in self._copied:
            self._write_back(buffers)
        return output

    def _write_back(self, buffers: int) -> None:
        """The copies of buffers that cannot be views, of one module."""
        with torch.no_grad():
            for (tensors, key), (slots, local), place in self._copied.get(buffers, ()):
                slots[local][place] = tensors[key]
