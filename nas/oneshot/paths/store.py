"""The shared store: the module tree of all architectures, with one parameter of the largest shape at each place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from nas._compat.torch_internals import bare_copy, children_of, hook_dicts, own_buffers, own_parameters, persists
from nas.errors import NasTypeError, explain
from nas.oneshot.paths.inventory import Entry, Inventory
from nas.oneshot.paths.module_tree import children_in_order
from nas.oneshot.paths.naming import joined, named, places_of
from nas.oneshot.paths.slicing import Shape, indexed, region
from nas.random_state import derive_seed, seeded

Slots: TypeAlias = dict[str, Any]
"""The dict of a module that holds parameters, or that which holds buffers."""


@final
class Candidates(nn.Module):
    """Where a LayerChoice stands: its candidates, by number."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            raise AttributeError(
                explain(
                    "a LayerChoice stands here, and its candidates have each an attribute of their own",
                    got=name,
                    mend="look through its children(), or through modules() and parameters()",
                )
            ) from None


@final
class _Alone:
    """In the place of the `forward` of a module in the store."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NasTypeError(
            explain(
                "a part of a supernet of paths cannot be called by itself, for the path says what it computes",
                got=self._name or "forward of the whole store",
                where="PathSupernet",
                mend="call the model, and compute in its forward what training needs",
            )
        )


@final
class Store:
    """Modules as the program's constructors make them, with the parameters and buffers that all architectures share.

    Args:
        inventory: of a space.
        seed: of the numbers that the layers' own initialisations draw.

    Attributes:
        root: the tree. Candidates of a LayerChoice are children of the module where it stands: `stem.[1].weight`.
        modules: by name.
        generation: how often tensors, settings or hooks were seen to be replaced.
    """

    def __init__(self, inventory: Inventory, seed: int) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.generation = 0
        self._holders: dict[str, tuple[nn.Module, str]] = {}
        self._found: dict[str, tuple[int, nn.Module]] = {}
        self._tensors: dict[str, Tensor] = {}
        self._wired: dict[int, nn.Module] = {}
        waiting: dict[int, set[str]] = {}
        for name, entry in inventory.entries.items():
            waiting.setdefault(entry.probe, set()).add(name)
        for number, names in waiting.items():
            with seeded(derive_seed(seed, number)):
                self._construct(inventory, number, names)
        self.root = self._grown(inventory, "")
        # What is not in the tree by now is needed no more, and may have numbers.
        del self._found, self._tensors, self._wired
        inventory.tree.modules.clear()

    def _construct(self, inventory: Inventory, number: int, names: set[str]) -> None:
        """Makes modules and numbers; tensors that no layer has so large are filled up."""
        handler = inventory.probes[number].handler()
        model = inventory.space.construct(handler, "cpu")
        sites = list(handler.names.sites(model, inventory.numbering))
        sizes: dict[str, int] = {}
        for name, place in named(places_of(sites)):
            if name in names and name not in self._tensors:
                entry = inventory.entries[name]
                self._tensors[name] = _filled(place.module, place.local, place.tensor, entry)
                holder = name.rpartition(".")[0]
                sizes[holder] = max(sizes.get(holder, 0), entry.size)
        for site in sites:  # a place has the module with the largest of its tensors
            size = sizes.get(site.name, 0)
            if site.name not in self._found or size > self._found[site.name][0]:
                self._found[site.name] = size, site.module

    def _grown(self, inventory: Inventory, name: str, *, computing: bool = False) -> nn.Module:
        """The module of a place, its children grown before it."""
        tree = inventory.tree
        module = self._found[name][1] if name in self._found else tree.modules.get(name) or Candidates()
        computing = computing or isinstance(module, ParametrizationList)
        children = {
            key: self._grown(inventory, child, computing=computing) for key, child in children_in_order(tree, name)
        }
        shared = {}
        for local in tree.tensors.get(name, []):
            own = joined(name, local)
            each = own if own in inventory.entries else tree.shared.get(own)
            if each is not None:  # else it was lazy beside the architectures, and is in none
                shared[local] = each
        entries = {local: inventory.entries[each] for local, each in shared.items()}
        module = self._wired_up(module, children, entries, shared)
        if not computing:  # a weight that a parametrisation makes can be read
            vars(module)["forward"] = _Alone(name)
        for local, each in shared.items():
            if joined(name, local) == each:
                self._holders[each] = module, local
        self.modules[name] = module
        return module

    def _wired_up(
        self,
        module: nn.Module,
        children: Mapping[str, nn.Module],
        entries: Mapping[str, Entry],
        shared: Mapping[str, str],
    ) -> nn.Module:
        """Gives a module its children and tensors in the store."""
        whole = {local: self._tensors[each] for local, each in shared.items()}
        if id(module) in self._wired:
            held = {**own_parameters(module), **own_buffers(module)}
            same = all(held.get(local) is tensor for local, tensor in whole.items())
            if same and all(children_of(module).get(key) is child for key, child in children.items()):
                return module  # one that stands in several places
            module = bare_copy(module)
        self._wired[id(module)] = module
        for hooks in hook_dicts(module):  # the constructor's: each path has its own
            hooks.clear()
        kept = {key: child for key, child in children_of(module).items() if child is None and key not in children}
        children_of(module).clear()
        children_of(module).update({**kept, **children})
        for local, tensor in whole.items():
            _hold(module, local, tensor, persistent=persists(entries[local].owner, entries[local].local))
        for key in [*children, *whole]:
            vars(module).pop(key, None)  # as None in the architecture that the module is of
        # What a hook has computed would keep copies from being made.
        computed = {key: each for key, each in vars(module).items() if isinstance(each, Tensor) and not each.is_leaf}
        vars(module).update({key: each.detach() for key, each in computed.items()})
        if isinstance(module, nn.RNNBase):
            vars(module)["flatten_parameters"] = _nothing  # it does not run
        return module

    def slot(self, name: str) -> tuple[Slots, str]:
        """Where the parameter or buffer of a name is."""
        module, local = self._holders[name]
        parameters = own_parameters(module)
        return (parameters if local in parameters else own_buffers(module)), local

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer of a name."""
        slots, local = self.slot(name)
        found: Tensor = slots[local]
        return found


def _nothing() -> None:
    """A module that does not run has nothing to prepare."""


def _hold(module: nn.Module, local: str, tensor: Tensor, *, persistent: bool) -> None:
    if isinstance(tensor, nn.Parameter):
        if isinstance(module, nn.RNNBase):
            setattr(module, local, tensor)  # it keeps a list of them too
        elif local in own_parameters(module):
            own_parameters(module)[local] = tensor
        else:
            own_buffers(module).pop(local, None)
            vars(module).pop(local, None)
            module.register_parameter(local, tensor)
    elif local in own_buffers(module):
        own_buffers(module)[local] = tensor
    else:
        own_parameters(module).pop(local, None)
        vars(module).pop(local, None)
        module.register_buffer(local, tensor, persistent=persistent)


def _filled(module: nn.Module, local: str, tensor: Tensor, entry: Entry) -> Tensor:
    shape: Shape = entry.shape
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
