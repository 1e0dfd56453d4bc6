"""A subnet: an architecture built without weights, which runs on slices of the shared store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from nas.domains import Sample
from nas.oneshot.paths.slicing import Region, indexed
from nas.oneshot.paths.store import Store

Slot: TypeAlias = tuple[dict[str, Any], str]
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


@final
@dataclass(slots=True)
class Subnet:
    """An architecture and where its tensors lie.

    Args:
        sample: of the architecture.
        module: without numbers.
        parts: of all its tensors.
    """

    sample: Sample
    module: nn.Module
    parts: list[Part]
    _views: list[tuple[Slot, Tensor, tuple[Any, ...]]] = field(default_factory=list)
    _gathered: list[tuple[Slot, Tensor, Any]] = field(default_factory=list)
    _buffers: list[tuple[Slot, Tensor]] = field(default_factory=list)
    _copied: list[tuple[Slot, Tensor, Any]] = field(default_factory=list)
    _generation: int = -1

    def active(self) -> list[str]:
        """The names of the parameters that it uses."""
        return list(dict.fromkeys(part.name for part in self.parts if part.parameter))

    def bind(self, store: Store, generation: int) -> None:
        """Puts the tensors of the store in place, where that has not been done since they were last replaced."""
        if self._generation == generation:
            return
        self._views, self._gathered, self._buffers, self._copied = [], [], [], []
        for part in self.parts:
            tensors, key = part.slot
            whole = store.tensor(part.name)
            if not part.sliced:
                place = tuple(i if isinstance(i, slice) else i.to(whole.device) for i in part.region or ())
                (self._gathered if part.parameter else self._copied).append((part.slot, whole, place))
            elif not part.parameter:
                tensors[key] = whole if part.region is None else indexed(whole, part.region)
                self._buffers.append((part.slot, tensors[key]))
            elif part.region is None:
                tensors[key] = whole
            else:
                view = indexed(whole.detach(), part.region)
                self._views.append((part.slot, whole, (view.size(), view.stride(), view.storage_offset())))
        self._generation = generation

    def run(self, inputs: tuple[Any, ...], named_inputs: dict[str, Any]) -> Any:
        """The output of the architecture with the weights of the store."""
        # One node of the graph for each slice; its gradient is that of the whole, zero elsewhere.
        for (tensors, key), whole, geometry in self._views:
            tensors[key] = whole.as_strided(*geometry)
        for (tensors, key), whole, place in self._gathered:
            tensors[key] = whole[place]
        for (tensors, key), whole, place in self._copied:
            tensors[key] = whole[place]
        output = self.module(*inputs, **named_inputs)
        with torch.no_grad():
            for (tensors, key), view in self._buffers:
                if tensors[key] is not view:  # assigned, not changed in place
                    view.copy_(tensors[key])
                    tensors[key] = view
            for (tensors, key), whole, place in self._copied:
                whole[place] = tensors[key]
        return output
