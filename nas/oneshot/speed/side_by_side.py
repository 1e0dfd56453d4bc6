"""Candidates of equal layers on the same input, computed side by side: one convolution, one batch norm for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias, cast, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import has_hooks
from nas.oneshot.speed.chains import Prefix, shared_length, signature
from nas.oneshot.speed.joined import Block, Call, Cat, Convolve, Depthwise, Normalise, Program, Slot, Split


def layer_key(step: nn.Module) -> Hashable | None:
    """What makes steps equal but for their parameters; None for those that are not merged."""
    if has_hooks(step):
        return None
    if type(step) is nn.Conv2d and step.padding_mode == "zeros":
        shape = (step.in_channels, step.out_channels, step.kernel_size, step.groups, step.bias is None)
        return ("conv", *shape, step.stride, step.padding, step.dilation)
    if type(step) is nn.BatchNorm2d and step.momentum is not None:
        flags = (step.affine, step.track_running_stats)
        return ("norm", step.num_features, step.eps, step.momentum, *flags)
    return signature(step)


def chain_key(steps: Sequence[nn.Module]) -> Hashable | None:
    """What chains have in common that are computed side by side: none where one of the steps is not merged."""
    keys = tuple(layer_key(step) for step in steps)
    known = None not in keys and shared_length(steps) < len(steps)
    # What is not a convolution would need its input once for each chain.
    return keys if known and type(steps[shared_length(steps)]) is nn.Conv2d else None


@final
class SideBySide:
    """Chains of equal steps on one input, each candidate's with its own parameters.

    Chains that are equal throughout are side by side from the first layer on. Those that become equal later (two
    convolutions of different kernels, each with a 1x1 convolution and a batch norm behind it) are put side by side
    there, where that takes fewer launches.

    Args:
        chains: place of the candidate -> its steps; each begins with steps without parameters and a convolution.
        everywhere: also where it gains nothing: on a CPU, where what is to lie together is copied.
    """

    def __init__(self, chains: Mapping[Slot, tuple[nn.Module, ...]], *, everywhere: bool) -> None:
        self.chains, self._everywhere = dict(chains), everywhere
        self._norms = [step for steps in chains.values() for step in steps if isinstance(step, nn.BatchNorm2d)]
        self._programs: dict[Hashable, Program] = {}

    def gains(self, device: torch.device) -> bool:
        """Whether fewer launches are worth copies on a device."""
        return self._everywhere or device.type != "cpu"

    def run(self, live: Sequence[Slot], after: Callable[[Prefix], Tensor], device: torch.device) -> list[Block]:
        """What candidates yield, by blocks; those that nothing lies beside are left out.

        Args:
            live: the candidates that are computed now.
            after: yields the input after steps without parameters.
            device: of the input.
        """
        # A norm may have been told meanwhile to keep its statistics.
        training = tuple(norm.training for norm in self._norms)
        key = tuple(live), training, not self.gains(device)
        if not self._write(*key):
            return []
        return self._programs[key].run(after)

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # it is written once, and not compiled
    def _write(self, live: tuple[Slot, ...], training: tuple[bool, ...], apart: bool) -> bool:
        """Writes a program where there is none yet; says whether there is anything to be done."""
        key = live, training, apart
        if key in self._programs:
            return True
        program = _written({place: self.chains[place] for place in live}, apart=apart)
        if program is not None:
            if len(self._programs) >= _MOST:
                self._programs.clear()
            self._programs[key] = program
        return program is not None


_MOST = 64
"""Programs that are kept: others are drawn in each step by some algorithms."""


@final
@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A layer with parameters, the steps without parameters before it, and what makes both equal to others."""

    plain: tuple[nn.Module, ...]
    layer: nn.Conv2d | nn.BatchNorm2d | None
    """None where there are steps behind the last layer."""
    key: Hashable
    family: Hashable
    """Equal for stages that are computed as one on a device; of depthwise convolutions the kernels may differ."""


@final
@dataclass(frozen=True, kw_only=True)
class _Lane:
    """A chain by stages, of which the first begins behind the prefix."""

    place: Slot
    prefix: Prefix
    stages: tuple[_Stage, ...]

    @property
    def key(self) -> Hashable:
        """Equal for chains that are computed side by side from the first layer on."""
        return (self.prefix.keys, *(stage.key for stage in self.stages))

    @property
    def families(self) -> tuple[Hashable, ...]:
        return (self.prefix.keys, *(stage.family for stage in self.stages))

    def family_at(self, depth: int) -> Hashable | None:
        return self.stages[depth].family if depth < len(self.stages) else None

    def meets(self, other: _Lane, depth: int) -> bool:
        """Whether two chains are worth putting side by side at a stage: for a convolution and what follows it."""
        both = [lane.stages[depth : depth + 2] for lane in (self, other)]
        return (
            [stage.family for stage in both[0]] == [stage.family for stage in both[1]]
            and len(both[0]) == 2
            and all(stage.layer is not None for stage in both[0])
            and isinstance(both[0][0].layer, nn.Conv2d)
            and self._shape(depth) == other._shape(depth)
        )

    def joins(self, other: _Lane) -> bool:
        """Whether anything of two chains that are not equal is worth computing side by side."""
        if (self.prefix.keys, self.stages[0].family) == (other.prefix.keys, other.stages[0].family):
            return True
        return any(self.meets(other, depth) for depth in range(1, len(self.stages)))

    def _shape(self, depth: int) -> Hashable:
        """What decides how high and wide an image is before a stage."""
        found: list[Hashable] = [self.prefix.keys]
        for stage in self.stages[:depth]:
            found += [signature(step) for step in stage.plain if not isinstance(step, nn.ReLU)]
            if isinstance(layer := stage.layer, nn.Conv2d) and isinstance(layer.padding, str):
                found.append((layer.padding, layer.kernel_size, layer.dilation))
            elif isinstance(layer, nn.Conv2d):
                sides = zip(cast("tuple[int, ...]", layer.padding), layer.dilation, layer.kernel_size, strict=True)
                found.append((layer.stride, *(2 * p - d * (k - 1) for p, d, k in sides)))
        return tuple(found)


def _depthwise_family(layer: nn.Conv2d) -> Hashable | None:
    """Equal for convolutions of each channel by itself whose outputs are equally high and wide; None for others."""
    if isinstance(layer.padding, str) or layer.bias is not None:
        return None
    if not layer.groups == layer.in_channels == layer.out_channels > 1:
        return None
    sides = zip(layer.padding, layer.dilation, layer.kernel_size, strict=True)
    return ("depthwise", layer.groups, layer.stride, *(2 * p - d * (k - 1) for p, d, k in sides))


def _lane(place: Slot, steps: Sequence[nn.Module], apart: bool) -> _Lane:
    length = shared_length(steps)
    stages: list[_Stage] = []
    plain: list[nn.Module] = []
    keys: list[Hashable] = []
    for step in steps[length:]:
        if isinstance(step, nn.Conv2d | nn.BatchNorm2d):
            own = (layer_key(step), isinstance(step, nn.BatchNorm2d) and step.training)
            family = _depthwise_family(step) if isinstance(step, nn.Conv2d) and not apart else None
            key = (*keys, own)
            stages.append(
                _Stage(plain=tuple(plain), layer=step, key=key, family=key if family is None else (*keys, family))
            )
            plain, keys = [], []
        else:
            plain.append(step)
            keys.append(signature(step))
    if plain:
        stages.append(_Stage(plain=tuple(plain), layer=None, key=tuple(keys), family=tuple(keys)))
    return _Lane(place=place, prefix=Prefix.of(steps[:length]), stages=tuple(stages))


_Bundle: TypeAlias = tuple[int, list[_Lane]]
"""A tensor, and the chains that it holds side by side."""


def _written(chains: Mapping[Slot, Sequence[nn.Module]], *, apart: bool) -> Program | None:
    """The program of chains.

    Args:
        chains: place of the candidate -> its steps.
        apart: whether only equal chains are put side by side, and only where that copies nothing.
    """
    lanes = _sociable([_lane(place, steps, apart) for place, steps in chains.items()], apart)
    if not lanes:
        return None
    program = Program()
    bundles: list[_Bundle] = []
    for group in _alike(lanes, lambda lane: (lane.prefix.keys, lane.stages[0].family)):
        bundles.append((program.add(_convolution(group[0].prefix, group, 0)).start, group))
    for depth in range(1, max(len(lane.stages) for lane in lanes) + 1):
        parts = [part for bundle in bundles for part in _parted(program, bundle, depth)]
        bundles = []
        for number, group in parts:
            if depth == len(group[0].stages):
                program.yields(number, [lane.place for lane in group])
            else:
                bundles.append((number, group))
        bundles = bundles if apart else _met(program, bundles, depth)
        bundles = [(_further(program, bundle, depth), bundle[1]) for bundle in bundles]
    return program


def _sociable(lanes: Sequence[_Lane], apart: bool) -> list[_Lane]:
    """The chains that others lie beside, equal ones one after the other."""
    groups = _alike(lanes, lambda lane: lane.key)
    if apart:
        # Of convolutions of all channels the outputs lie together without a copy.
        groups = [group for group in groups if getattr(group[0].stages[0].layer, "groups", 0) == 1]
        return [lane for group in groups if len(group) > 1 for lane in group]
    firsts = [group[0] for group in groups]
    found: list[list[_Lane]] = []
    for group in groups:
        own = group[0]
        met = any(own.joins(other) for other in firsts if other is not own)
        if len(group) > 1 or met:
            found.append(group)
    # Those that go on together are neighbours as long as they do.
    known: dict[Hashable, int] = {}
    for group in found:
        for stage in group[0].stages:
            known.setdefault(stage.family, len(known))
    found.sort(key=lambda group: [known[stage.family] for stage in group[0].stages])
    return [lane for group in found for lane in group]


def _alike(lanes: Sequence[_Lane], key: Callable[[_Lane], Hashable]) -> list[list[_Lane]]:
    groups: dict[Hashable, list[_Lane]] = {}
    for lane in lanes:
        groups.setdefault(key(lane), []).append(lane)
    return list(groups.values())


def _parted(program: Program, bundle: _Bundle, depth: int) -> list[_Bundle]:
    """The parts of a bundle whose chains go on in the same way."""
    number, lanes = bundle
    parts = [list(group) for _, group in groupby(lanes, lambda lane: lane.family_at(depth))]
    if len(parts) == 1:
        return [bundle]
    return list(zip(program.add(Split(number, [len(part) for part in parts]), len(parts)), parts, strict=True))


def _met(program: Program, bundles: Sequence[_Bundle], depth: int) -> list[_Bundle]:
    """The bundles, those joined that are worth it."""
    found: list[list[_Bundle]] = []
    for bundle in bundles:
        for group in found:
            if all(lane.meets(group[0][1][0], depth) for lane in bundle[1]):
                group.append(bundle)
                break
        else:
            found.append([bundle])
    return [
        group[0]
        if len(group) == 1
        else (program.add(Cat([number for number, _ in group])).start, [lane for _, part in group for lane in part])
        for group in found
    ]


def _further(program: Program, bundle: _Bundle, depth: int) -> int:
    """One stage more, the same for all chains of a bundle; the number of the tensor that it yields."""
    number, lanes = bundle
    stages = [lane.stages[depth] for lane in lanes]
    if stages[0].plain:
        number = program.add(Call(number, stages[0].plain)).start
    if isinstance(stages[0].layer, nn.Conv2d):
        return program.add(_convolution(number, lanes, depth)).start
    norms = [stage.layer for stage in stages if isinstance(stage.layer, nn.BatchNorm2d)]
    return program.add(Normalise(number, norms)).start if norms else number


def _convolution(source: int | Prefix, lanes: Sequence[_Lane], depth: int) -> Convolve | Depthwise:
    """The convolutions of all chains of a bundle at a stage."""
    stages = [(lane.stages[depth], lane.stages[depth].layer) for lane in lanes]
    layers = [layer for _, layer in stages if isinstance(layer, nn.Conv2d)]
    if stages[0][0].family == stages[0][0].key:
        return Convolve(source, layers)
    return Depthwise(source, [list(group) for _, group in groupby(layers, layer_key)])
