"""Work that mixtures share which read the same tensor: steps without parameters, and layers side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.checkpoints import checkpointed_part
from nas._compat.torch_internals import BatchNorm, has_hooks, version_of
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed import MixedLayer, Plan, weighted_sums
from nas.oneshot.speed.chains import Prefix, Signature
from nas.oneshot.speed.depthwise import is_average, is_depthwise, run_average, run_depthwise
from nas.oneshot.speed.joined import Block, Slot, move_on
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
        sums: of what is computed here, if they are to be made at once.
    """

    def __init__(
        self, readers: int, *, share: bool, merged: SideBySide | None, live: Live, sums: SumsAtOnce | None
    ) -> None:
        self._readers, self._share, self._merged, self._live, self._sums = readers, share, merged, live, sums
        self.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedInput:
        """Without the tensor: a part that is computed again ends early, and leaves it here until the next pass."""
        merged, live, sums = copy.deepcopy((self._merged, self._live, self._sums), memo)
        return SharedInput(self._readers, share=self._share, merged=merged, live=live, sums=sums)

    def clear(self) -> None:
        """Forgets the tensor."""
        self._x: Tensor | None = None
        self._part: object | None = None
        self._left: set[int] = set()
        self._shared: dict[Signature, tuple[Tensor, int]] = {}
        self._norms: dict[Signature, tuple[Tensor, Tensor, Tensor]] = {}
        self._waiting: list[Seen] | None = None
        """Norms that are going to count what they have seen together, while that is so."""
        self._made: dict[Slot, Tensor] = {}
        self._summed: dict[int, Summed] = {}

    def open(self, x: Tensor) -> None:
        """A mixture begins to read a tensor.

        Raises:
            NasValueError: it was computed beside others outside of the checkpoint that it stands in, or inside of one.
        """
        part = None if torch.compiler.is_compiling() else checkpointed_part()
        if self._x is x and self._part is part:
            return
        if self._x is x and self.unread:
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
        if self._merged is not None and x.dim() == 4:
            self._compute(x, self._merged)

    def _compute(self, x: Tensor, merged: SideBySide) -> None:
        positions = self._live()
        live = [place for place in merged.chains if place[1] in positions[place[0]]]
        blocks = merged.run(live, lambda prefix: self.prefix(x, prefix), x.device)
        if not blocks:
            return
        if self._sums is not None and merged.gains(x.device) and not torch.compiler.is_compiling():
            self._waiting = []
            self._summed = self._sums.run(blocks, positions, lambda prefix: self.prefix(x, prefix))
            waiting, self._waiting = self._waiting, None
            each_once = len({id(norm) for norm, _, _ in waiting}) == len(waiting)
            # A norm that several candidates have counts once for each.
            for seen in [waiting] if each_once else [[one] for one in waiting]:
                _count(seen)
        if self._summed:
            # The gradients need it as it is; who else reads it may write into what it gets.
            self._shared.clear()
            return
        for block, places in blocks:
            self._made.update(zip(places, block.chunk(len(places), dim=1), strict=True))

    def close(self, reader: int) -> None:
        """A mixture has read it."""
        self._left.discard(reader)
        if not self._left:
            self.clear()

    @property
    def unread(self) -> bool:
        """Whether something was computed for mixtures that did not come."""
        return bool(self._made or self._summed)

    def made(self, place: Slot) -> Tensor | None:
        """The same, which stays here."""
        return self._made.get(place)

    def take(self, place: Slot) -> Tensor | None:
        """What a candidate yields, where it was computed beside others."""
        return self._made.pop(place, None)

    def take_sum(self, reader: int) -> Summed | None:
        """What a mixture adds up of what was computed here, where that was done at once."""
        return self._summed.pop(reader, None)

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
        if torch.compiler.is_compiling():
            self._shared[key] = found, 0
        elif not found.is_inference():  # into which nobody counts what is written: each candidate has its own
            self._shared[key] = found, version_of(found)
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
        if self._waiting is None:
            _count([(step, mean, variance)])
        else:
            self._waiting.append((step, mean, variance))
        return y


def _count(seen: Sequence[Seen]) -> None:
    """Moves the running statistics of norms on, all together, where each of them is there once."""
    moves: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
    counts: list[Tensor] = []
    for norm, mean, variance in seen:
        assert norm.momentum is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        targets, batch = moves.setdefault(norm.momentum, ([], []))
        targets += [norm.running_mean, norm.running_var]
        batch += [mean, variance]
        counts += [] if norm.num_batches_tracked is None else [norm.num_batches_tracked]
    move_on(moves, counts)


Seen: TypeAlias = tuple[BatchNorm, Tensor, Tensor]
"""A norm, and the mean and the variance that it has seen."""
Summed: TypeAlias = tuple[Tensor, frozenset[int]]
"""A sum, and the positions of the candidates that are in it."""
_MOST_TERMS = 96
"""Of one launch: kernels of many more take long to compile."""
_MOST_PLANS = 64
"""That are kept: others are drawn in each step by some algorithms."""


@final
class SumsAtOnce:
    """What mixtures add up that read one tensor, in one pass over what was computed of it.

    Args:
        layers: the mixtures.
        plain: candidates without parameters of their own.
    """

    def __init__(self, layers: Sequence[MixedLayer], plain: Mapping[Slot, Prefix]) -> None:
        self._layers, self._plain = tuple(layers), dict(plain)
        self._plans: dict[Hashable, _Sums] = {}

    def run(
        self, blocks: Sequence[Block], positions: Sequence[Collection[int]], after: Callable[[Prefix], Tensor]
    ) -> dict[int, Summed]:
        """The sums by the number of the mixture; none where they cannot be made at once.

        Args:
            blocks: what was computed side by side.
            positions: for each mixture those of its candidates that are computed now.
            after: yields the input after steps without parameters.
        """
        key = (tuple(map(tuple, positions)), tuple(places for _, places in blocks))
        if key not in self._plans:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[key] = self._planned([places for _, places in blocks], positions)
        sums = self._plans[key]
        block, places = blocks[0]
        channels = block.shape[1] // len(places)
        shape = (block.shape[0], channels, *block.shape[2:])
        alike = all(
            (tensor.shape[0], tensor.shape[1] // len(own), *tensor.shape[2:]) == shape for tensor, own in blocks
        )
        if not alike or len(sums.plan.terms) > _MOST_TERMS:
            return {}
        sources = [tensor for tensor, _ in blocks]
        for prefix, again in sums.plain:
            sources.append(after(prefix))
            for prefix in again:  # statistics of norms go on, each by itself
                after(prefix)
        if any(tensor.shape != shape for tensor in sources[len(blocks) :]):
            return {}
        weights = [self._layers[number].mixing.weights[self._layers[number].label] for number in sums.readers]
        made = weighted_sums(sources, torch.cat(weights) if len(weights) > 1 else weights[0], sums.plan, channels)
        return {number: (tensor, taken) for number, tensor, taken in zip(sums.readers, made, sums.taken, strict=True)}

    def _planned(self, blocks: Sequence[Sequence[Slot]], positions: Sequence[Collection[int]]) -> _Sums:
        sources: list[list[tuple[int, Slot]]] = [list(enumerate(places)) for places in blocks]
        plain: dict[tuple[Signature, ...], tuple[int, Prefix, list[Prefix]]] = {}
        for place, prefix in self._plain.items():
            if place[1] not in positions[place[0]]:
                continue
            if prefix.keys not in plain:
                plain[prefix.keys] = len(sources), prefix, []
                sources.append([])
            elif any(isinstance(step, BatchNorm) for step in prefix.steps):
                plain[prefix.keys][2].append(prefix)
            sources[plain[prefix.keys][0]].append((0, place))
        readers = sorted({place[0] for found in sources for _, place in found})
        starts, start = {}, 0
        for number in readers:
            starts[number] = start
            start += len(self._layers[number].answers)
        terms = tuple(
            (i, block, readers.index(number), starts[number] + position)
            for i, found in enumerate(sources)
            for block, (number, position) in found
        )
        taken = [frozenset(p for found in sources for _, (n, p) in found if n == number) for number in readers]
        return _Sums(
            plan=Plan(sums=len(readers), terms=terms),
            plain=tuple((prefix, tuple(again)) for _, prefix, again in plain.values()),
            readers=tuple(readers),
            taken=tuple(taken),
        )


@final
@dataclass(frozen=True, kw_only=True)
class _Sums:
    """How sums are made of blocks, and of the input after steps without parameters."""

    plan: Plan
    plain: tuple[tuple[Prefix, tuple[Prefix, ...]], ...]
    """What is read beside the blocks, and what yields the same, but counts by itself."""
    readers: tuple[int, ...]
    taken: tuple[frozenset[int], ...]


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
