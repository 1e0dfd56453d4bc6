"""The shared store: one parameter or buffer of the largest shape for each name that architectures share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import children_of, own_buffers, own_parameters, persists
from nas.oneshot.paths.inventory import Entry, Inventory, named
from nas.oneshot.paths.slicing import Shape, indexed, region
from nas.random_state import derive_seed, seeded

Holder: TypeAlias = tuple[nn.Module, str]


@final
class Store(nn.Module):
    """Parameters and buffers at the places of the modules that own them: `stem[conv3].weight`.

    Args:
        inventory: of a space.
        shapes: of each tensor, by name: the largest that an architecture asks for.
        seed: of the numbers that the layers' own initialisations draw.
    """

    def __init__(self, inventory: Inventory, shapes: dict[str, Shape], seed: int) -> None:
        super().__init__()
        self._holders: dict[str, Holder] = {}
        waiting: dict[int, dict[str, Entry]] = {}
        for name, entry in inventory.entries.items():
            waiting.setdefault(entry.probe, {})[name] = entry
        drawn: dict[str, Tensor] = {}
        for number, entries in waiting.items():
            with seeded(derive_seed(seed, number)):
                drawn |= _drawn(inventory, number, {name: shapes[name] for name in entries})
        for name, entry in inventory.entries.items():
            self._hold(name, drawn[name], persistent=persists(entry.owner, entry.local))

    def _hold(self, name: str, tensor: Tensor, *, persistent: bool) -> None:
        *path, local = name.split(".")
        module: nn.Module = self
        for key in path:
            if key not in children_of(module):
                module.add_module(key, nn.Module())
            module = module.get_submodule(key)
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(local, tensor)
        else:
            module.register_buffer(local, tensor, persistent=persistent)
        self._holders[name] = module, local

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer of a name."""
        module, local = self._holders[name]
        tensor = own_parameters(module).get(local)
        found = own_buffers(module)[local] if tensor is None else tensor
        assert found is not None
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._holders

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)


def _drawn(inventory: Inventory, number: int, shapes: dict[str, Shape]) -> dict[str, Tensor]:
    """The tensors of one construction, with numbers; those that no layer has so large are filled up."""
    probe = inventory.probes[number]
    handler = probe.handler()
    model = inventory.space.construct(handler, "cpu")
    found: dict[str, Tensor] = {}
    for name, place in named(handler.names.places(model)):
        if name in shapes and name not in found:
            found[name] = _filled(place.module, place.local, place.tensor, shapes[name], inventory.entries[name])
    return found


def _filled(module: nn.Module, local: str, tensor: Tensor, shape: Shape, entry: Entry) -> Tensor:
    if tuple(tensor.shape) == shape:
        return tensor
    # As the layer's own initialisation has drawn them, whatever that is: from its numbers.
    with torch.no_grad():
        picked = torch.randint(tensor.numel(), (torch.Size(shape).numel(),))
        large = tensor.detach().flatten()[picked].reshape(shape)
        indexed(large, region(module, local, shape, full_module=entry.owner)).copy_(tensor)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(large, tensor.requires_grad)
    return large
