"""The module tree of all architectures: what stands where, and which tensors are computed with before they are used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import final

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nas._compat.torch_internals import hook_dicts
from nas.oneshot.paths.naming import ModuleSite, TensorSite, joined


@final
@dataclass(frozen=True, slots=True)
class ModuleTree:
    """What has been seen at each place of any architecture.

    Attributes:
        modules: the first module that was seen of each name.
        children: the keys of the children of each name, in the order of the architectures.
        tensors: the parameters and buffers of each name, likewise.
        shared: for tensors that are tied to others, the names that they are shared by.
    """

    modules: dict[str, nn.Module] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    tensors: dict[str, list[str]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)

    def note(self, sites: Iterable[ModuleSite], places: Iterable[tuple[str, TensorSite]]) -> None:
        """Takes an architecture in.

        Args:
            sites: its modules.
            places: its tensors, with the names that they are shared by.
        """
        children: dict[str, list[str]] = {}
        for site in sites:
            self.modules.setdefault(site.name, site.module)
            name = site.name
            while name:
                name, _, key = name.rpartition(".")
                keys = children.setdefault(name, [])
                if key in keys:
                    break
                keys.append(key)
        tensors: dict[str, list[str]] = {}
        for shared, place in places:
            holder = place.name.rpartition(".")[0]
            tensors.setdefault(holder, []).append(place.local)
            if shared != place.name:
                self.shared.setdefault(place.name, shared)
        for known, found in ((self.children, children), (self.tensors, tensors)):
            for name, keys in found.items():
                _merge(known.setdefault(name, []), keys)

    def computed(self, name: str, owner: nn.Module) -> bool:
        """Whether a parametrisation makes a tensor of this one, so that no layer reads it as it is.

        Args:
            name: of the tensor.
            owner: the module that holds it.
        """
        path, _, local = name.rpartition(".")
        for hook in chain.from_iterable(hooks.values() for hooks in hook_dicts(owner)):
            if isinstance(hook, WeightNorm | SpectralNorm) and local.rpartition("_")[0] == hook.name:
                return True
        while path:
            if isinstance(self.modules.get(path), ParametrizationList):
                return True
            path = path.rpartition(".")[0]
        return False


def _merge(known: list[str], found: list[str]) -> None:
    """Puts what is new behind what stands before it."""
    after = 0
    for key in found:
        if key in known:
            after = known.index(key) + 1
        else:
            known.insert(after, key)
            after += 1


def children_in_order(tree: ModuleTree, name: str) -> list[tuple[str, str]]:
    """The children of a place: (key, name); the candidates of a LayerChoice in the order of their numbers."""
    keys = tree.children.get(name, [])
    numbers = sorted((key for key in keys if _is_number(key)), key=lambda key: int(key[1:-1]))
    return [(key, joined(name, key)) for key in [*(key for key in keys if not _is_number(key)), *numbers]]


def _is_number(key: str) -> bool:
    return key.startswith("[") and key.endswith("]") and key[1:-1].isdecimal()
