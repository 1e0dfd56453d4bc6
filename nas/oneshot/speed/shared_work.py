"""Work that mixtures share which read the same tensor: steps without parameters, and layers side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.checkpoints import checkpointed_part
from nas._compat.torch_internals import BatchNorm, has_hooks, version_of
from nas.errors import NasValueError, explain
from nas.oneshot.speed.chains import Prefix, Signature
from nas.oneshot.speed.depthwise import is_average, is_depthwise, run_average, run_depthwise
from nas.oneshot.speed.joined import Slot
from nas.oneshot.speed.side_by_side import SideBySide

Live: TypeAlias = Callable[[], Sequence[Collection[int]]]
"""For each mixture that reads a tensor the positions of its candidates that are computed now."""


@final
class SharedInput:
    """A tensor that mixtures read, and what has been computed of it.

    Which mixtures read one tensor was seen in a forward pass. What they share is kept from the first of them to the
    last, and for this very tensor alone: another one starts anew.

    Args:
        readers: how many mixtures read it in a forward pass.
        share: whether steps without parameters are computed once.
        merged: what is computed side by side, if anything.
        live: yields, for each of the mixtures, the positions of what is computed now.
    """

    def __init__(self, readers: int, *, share: bool, merged: SideBySide | None, live: Live) -> None:
        self._readers, self._share, self._merged, self._live = readers, share, merged, live
        self.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedInput:
        """Without the tensor: a part that is computed again ends early, and leaves it here until the next pass."""
        merged, live = copy.deepcopy((self._merged, self._live), memo)
        return SharedInput(self._readers, share=self._share, merged=merged, live=live)

    def clear(self) -> None:
        """Forgets the tensor."""
        self._x: Tensor | None = None
        self._part: object | None = None
        self._left: set[int] = set()
        self._shared: dict[Signature, tuple[Tensor, int]] = {}
        self._norms: dict[Signature, tuple[Tensor, Tensor, Tensor]] = {}
        self._made: dict[Slot, Tensor] = {}

    def open(self, x: Tensor) -> None:
        """A mixture begins to read a tensor.

        Raises:
            NasValueError: it was computed beside others outside of the checkpoint that it stands in, or inside of one.
        """
        part = None if torch.compiler.is_compiling() else checkpointed_part()
        if self._x is x and self._part is part:
            return
        if self._x is x and self._made:
            raise NasValueError(
                explain(
                    "mixtures are computed side by side, but now one of them stands in an activation checkpoint of its "
                    "own, as it did not with the example",
                    where="the forward pass of the supernet",
                    mend="Speed(merge=False)",
                )
            )
        self.clear()
        self._x, self._part, self._left = x, part, set(range(self._readers))
        if self._merged is not None:
            positions = self._live()
            live = [place for place in self._merged.chains if place[1] in positions[place[0]]]
            for block, places in self._merged.run(live, lambda prefix: self.prefix(x, prefix), x.device):
                self._made.update(zip(places, block.chunk(len(places), dim=1), strict=True))

    def close(self, reader: int) -> None:
        """A mixture has read it."""
        self._left.discard(reader)
        if not self._left:
            self.clear()

    @property
    def unread(self) -> bool:
        """Whether something was computed for mixtures that did not come."""
        return bool(self._made)

    def take(self, place: Slot) -> Tensor | None:
        """What a candidate yields, where it was computed beside others."""
        return self._made.pop(place, None)

    def prefix(self, x: Tensor, prefix: Prefix) -> Tensor:
        """The tensor after steps without parameters; batch norms without weights may be among them."""
        for step, key in zip(prefix.steps, prefix.keys, strict=True):
            if not self._share:
                x = run_step(step, x)
            elif isinstance(step, BatchNorm):
                x = self._normalised(key, step, x)
            else:
                x = self._once(key, step, x)
        return x

    def _once(self, key: Signature, step: nn.Module, x: Tensor) -> Tensor:
        known = self._shared.get(key)
        # What a candidate has written into is no longer what the others share.
        if known is not None and (torch.compiler.is_compiling() or version_of(known[0]) == known[1]):
            return known[0]
        found = run_step(step, x)
        self._shared[key] = found, 0 if torch.compiler.is_compiling() else version_of(found)
        return found

    def _normalised(self, key: Signature, step: BatchNorm, x: Tensor) -> Tensor:
        """Normalised once; the statistics of every batch norm go on by themselves."""
        if not step.training or step.momentum is None or step.running_mean is None or step.running_var is None:
            return run_step(step, x)
        known = self._norms.get(key)
        if known is None:
            mean, variance = torch.zeros_like(step.running_mean), torch.ones_like(step.running_var)
            y = functional.batch_norm(x, mean, variance, None, None, True, 1.0, step.eps)
            known = self._norms[key] = y, mean, variance
        y, mean, variance = known
        with torch.no_grad():
            step.running_mean.lerp_(mean, step.momentum)
            step.running_var.lerp_(variance, step.momentum)
            if step.num_batches_tracked is not None:
                step.num_batches_tracked.add_(1)
        return y


def run_step(step: nn.Module, x: Tensor) -> Tensor:
    """What a module yields, by the quickest way there is; one that somebody listens to is called itself."""
    found: Tensor
    if has_hooks(step):
        found = step(x)
    elif is_depthwise(step):
        assert isinstance(step, nn.Conv2d)
        found = run_depthwise(step, x)
    elif is_average(step):
        assert isinstance(step, nn.AvgPool2d)
        found = run_average(step, x)
    else:
        found = step(x)
    return found
