"""Subnets that were taken out of a supernet: each is built once, however often it is judged."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, final

from torch import Tensor, nn

from nas.domains import Sample, sample_key

_BYTES = 2**28


@final
class Extracted:
    """The latest subnets, with the weights that they were taken out with.

    Args:
        extract: takes a subnet out.
        limit: of the bytes of their weights together; at least one is kept.
    """

    def __init__(self, extract: Callable[[Sample], nn.Module], limit: int = _BYTES) -> None:
        self._extract, self._limit = extract, limit
        self._known: OrderedDict[str, tuple[nn.Module, dict[str, Any]]] = OrderedDict()

    def __call__(self, sample: Sample) -> nn.Module:
        """The subnet of a sample, as it was taken out, whatever a judgement has changed in it; no copy."""
        key = sample_key(sample)
        found = self._known.pop(key, None)
        if found is None:
            model = self._extract(sample)
            found = model, {name: _copied(value) for name, value in model.state_dict().items()}
        else:
            model, state = found
            model.load_state_dict(state)
        self._known[key] = found
        while len(self._known) > 1 and sum(map(_bytes, self._known.values())) > self._limit:
            self._known.popitem(last=False)
        return model


def _copied(value: Any) -> Any:
    """Of plain tensors, which are hundreds, as quickly as it goes."""
    return value.clone() if type(value) is Tensor else copy.deepcopy(value)


def _bytes(kept: tuple[nn.Module, dict[str, Any]]) -> int:
    return 2 * sum(value.nbytes for value in kept[1].values() if isinstance(value, Tensor))
