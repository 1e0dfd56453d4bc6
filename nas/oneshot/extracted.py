"""Subnets that were taken out of a supernet: each is built once, however often it is judged."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.called_modules import plain_state
from nas._compat.torch_internals import copy_each, own_buffers, own_parameters
from nas.domains import Sample, sample_key

_BYTES = 2**28


@final
class Numbers:
    """What the state dict of a module holds, as it is now and where it is now, to be put back.

    Of plain layers, which are hundreds, that takes a fifth of the time of `load_state_dict`; and what was moved to
    another device comes back from there without a copy.

    Args:
        module: whose state.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module, places = module, plain_state(module)
        self._plain = places is not None
        self._places = {} if places is None else places
        if places is None:
            self._device = next(module.parameters(), torch.empty(0)).device
            self._kept = {name: _copied(value) for name, value in module.state_dict().items()}
            return
        self._look = self._looks()
        self._kept = {name: held[key].detach().clone() for name, (held, key) in places.items()}
        known = {(id(held), key) for held, key in places.values()}
        buffers = [own_buffers(part) for part in module.modules()]
        self._unsaved = [
            (held, key, tensor.device)
            for held in buffers
            for key, tensor in held.items()
            if tensor is not None and (id(held), key) not in known
        ]

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(value.nbytes for value in self._kept.values() if isinstance(value, Tensor))

    @torch.no_grad()
    def put_back(self) -> None:
        """The module has them again, where it was.

        Raises:
            RuntimeError: it is made of other parts now, so that they do not fit.
        """
        if not self._plain:
            self._module.to(self._device).load_state_dict(self._kept)
            return
        if self._looks() != self._look:
            self._module.load_state_dict(self._kept)
            self._module.to(next(iter(self._kept.values())).device if self._kept else "cpu")
            return
        here: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, (held, key) in self._places.items():
            now, kept = held[key], self._kept[name]
            if now.device == kept.device and not now.is_inference():
                here[0].append(now)
                here[1].append(kept)
            elif isinstance(now, nn.Parameter):
                now.grad, now.data = None, kept.to(now.dtype, copy=True)
            else:
                held[key] = kept.to(now.dtype, copy=True)
        if here[0]:
            copy_each(*here)
        for held, key, device in self._unsaved:
            if (tensor := held.get(key)) is not None:
                held[key] = tensor.to(device)

    def _looks(self) -> list[Any]:
        """What must be the same, that each number belongs where it came from."""
        parts = list(self._module.modules())
        return [
            *map(id, parts),
            *((name, None if t is None else t.shape) for part in parts for name, t in own_parameters(part).items()),
            *((name, None if t is None else t.shape) for part in parts for name, t in own_buffers(part).items()),
        ]


@final
class Extracted:
    """The latest subnets, with the weights that they were taken out with.

    Args:
        extract: takes a subnet out.
        limit: of the bytes of their weights together; at least one is kept.
    """

    def __init__(self, extract: Callable[[Sample], nn.Module], limit: int = _BYTES) -> None:
        self._extract, self._limit = extract, limit
        self._known: OrderedDict[str, tuple[nn.Module, Numbers]] = OrderedDict()

    def __call__(self, sample: Sample) -> tuple[nn.Module, Numbers]:
        """The subnet of a sample, as it was taken out, whatever a judgement has changed in it; no copy.

        Its numbers come with it, to be put back.
        """
        key = sample_key(sample)
        found = self._known.pop(key, None)
        if found is None:
            model = self._extract(sample)
            found = model, Numbers(model)
        else:
            found[1].put_back()
        self._known[key] = found
        while len(self._known) > 1 and sum(2 * numbers.nbytes for _, numbers in self._known.values()) > self._limit:
            self._known.popitem(last=False)
        return found


def _copied(value: Any) -> Any:
    """Of plain tensors, which are hundreds, as quickly as it goes."""
    return value.clone() if type(value) is Tensor else copy.deepcopy(value)
