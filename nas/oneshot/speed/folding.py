"""Linear folding: several linear candidates of one mixture as one convolution, or one linear layer, of mixed kernel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import TypeAlias, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.torch_internals import has_hooks
from nas.oneshot.speed.depthwise import depthwise

Pair: TypeAlias = tuple[int, int]

_PASS = 8
"""What reading and writing an output once more costs, in multiply-adds for each number."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """A convolution of an image, or a linear layer, written as one kernel.

    Before and after: how far it reads to the left of (above) the place it writes, and to the right (below).
    """

    steps: tuple[nn.Module, ...]
    stride: Pair
    before: Pair
    after: Pair
    channels: Pair
    groups: int
    cost: float
    """Multiply-adds for each place that is written."""

    def kernel(self) -> tuple[Tensor | None, Tensor | None]:
        """(out, in / groups, height, width) without dilation, and (out,); None for what is not there.

        Of the identity and of pooling there is no parameter: see `constant`.
        """
        if not self.steps or isinstance(self.steps[0], nn.AvgPool2d):
            return None, None
        first = self.steps[0]
        assert isinstance(first, nn.Conv2d)
        weight, bias = _without_holes(first.weight, cast(Pair, first.dilation)), first.bias
        if len(self.steps) == 1:
            return weight, bias
        second = self.steps[1]
        assert isinstance(second, nn.Conv2d)
        groups, inner = second.groups, second.in_channels // second.groups
        point = second.weight.view(groups, -1, inner, 1, 1)
        whole = (point * weight.view(groups, 1, inner, *weight.shape[2:])).flatten(0, 1)
        if bias is not None:
            moved = functional.conv2d(bias.view(1, -1, 1, 1), second.weight, None, groups=groups).flatten()
            bias = moved if second.bias is None else moved + second.bias
        else:
            bias = second.bias
        return whole, bias

    def constant(self, like: Tensor) -> Tensor:
        """The kernel of the identity or of pooling, (channels, 1, height, width)."""
        size = [b + a + 1 for b, a in zip(self.before, self.after, strict=True)]
        return torch.full((self.channels[1], 1, *size), 1 / (size[0] * size[1]), dtype=like.dtype, device=like.device)


@final
class Folded:
    """Candidates of one mixture that are one convolution.

    Args:
        maps: position of the candidate -> its map; all of one stride and of outputs of one size.
    """

    def __init__(self, maps: Mapping[int, LinearMap]) -> None:
        self.maps = dict(maps)
        self._stride = next(iter(maps.values())).stride
        before, after, groups = _common(maps.values())
        size = "x".join(str(b + a + 1) for b, a in zip(before, after, strict=True))
        self.name = f"{size} convolution" + (f" of {groups} groups" if groups > 1 else "")
        self._constants: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}

    def run(self, x: Tensor, weights: Tensor, live: Sequence[int]) -> Tensor:
        """The weighted sum of what the live candidates yield.

        Args:
            x: (batch, channels, height, width).
            weights: (candidates,), of the whole mixture.
            live: positions of at least two candidates of these.
        """
        maps = {position: self.maps[position] for position in live}
        before, after, groups = _common(maps.values())
        kernels = {position: mapping.kernel() for position, mapping in maps.items()}
        like = next((kernel for kernel, _ in kernels.values() if kernel is not None), x)
        shares = weights.unbind()
        kernel: Tensor | None = None
        bias: Tensor | None = None
        for position, mapping in maps.items():
            made, shift = kernels[position]
            if made is None:
                made = self._constant(position, like)
            term = _placed(_grouped(made, mapping.groups, groups), mapping, before, after) * shares[position]
            kernel = term if kernel is None else kernel + term
            if shift is not None:
                shift = shift * shares[position]
                bias = shift if bias is None else bias + shift
        assert kernel is not None
        return _convolve(x, kernel, bias, self._stride, before, after, groups)

    def _constant(self, position: int, like: Tensor) -> Tensor:
        key = (position, like.device, like.dtype)
        if key not in self._constants:
            self._constants[key] = self.maps[position].constant(like)
        return self._constants[key]


@final
class FoldedLinear:
    """Linear layers and identities of one mixture that are one linear layer.

    Args:
        layers: position of the candidate -> its layer; None for an identity.
    """

    def __init__(self, layers: Mapping[int, nn.Linear | None]) -> None:
        self.maps = dict(layers)
        self.name = "linear layer"

    def run(self, x: Tensor, weights: Tensor, live: Sequence[int]) -> Tensor:
        """The weighted sum of what the live candidates yield: (..., in) to (..., out)."""
        shares = weights.unbind()
        kernel: Tensor | None = None
        bias: Tensor | None = None
        for position in live:
            layer = self.maps[position]
            matrix = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) if layer is None else layer.weight
            term = matrix * shares[position]
            kernel = term if kernel is None else kernel + term
            if layer is not None and layer.bias is not None:
                shift = layer.bias * shares[position]
                bias = shift if bias is None else bias + shift
        assert kernel is not None
        return functional.linear(x, kernel, bias)


def linear_map(steps: tuple[nn.Module, ...], channels: int) -> LinearMap | None:
    """The map of some steps on an image of so many channels; None where they are not linear, or not known to be."""
    if any(has_hooks(step) for step in steps):
        return None
    if not steps:
        return _map(steps, (1, 1), (0, 0), (0, 0), (channels, channels), channels)
    first = steps[0]
    if type(first) is nn.AvgPool2d and len(steps) == 1:
        size, padding = _pair(first.kernel_size), _pair(first.padding)
        if first.ceil_mode or first.divisor_override is not None or (any(padding) and not first.count_include_pad):
            return None
        after = (size[0] - 1 - padding[0], size[1] - 1 - padding[1])
        return _map(steps, _pair(first.stride), padding, after, (channels, channels), channels)
    if not _is_convolution(first) or len(steps) > 2:
        return None
    assert isinstance(first, nn.Conv2d)
    out, groups = first.out_channels, first.groups
    if len(steps) == 2:
        second = steps[1]
        if not _is_convolution(second) or not first.in_channels == first.out_channels == first.groups:
            return None
        assert isinstance(second, nn.Conv2d)
        if second.kernel_size != (1, 1) or second.stride != (1, 1) or _padding(second) != (0, 0):
            return None
        out, groups = second.out_channels, second.groups
    padding = _padding(first)
    reach = [d * (k - 1) for d, k in zip(first.dilation, first.kernel_size, strict=True)]
    after = (reach[0] - padding[0], reach[1] - padding[1])
    if min(after) < 0:
        return None
    return _map(steps, cast(Pair, first.stride), padding, after, (first.in_channels, out), groups)


def foldable(maps: Mapping[int, LinearMap]) -> dict[int, LinearMap]:
    """Those of the maps that cost less as one convolution than apart: at least two, or none."""
    kinds: dict[object, dict[int, LinearMap]] = {}
    for position, mapping in maps.items():
        margin = tuple(b - a for b, a in zip(mapping.before, mapping.after, strict=True))
        kinds.setdefault((mapping.stride, mapping.channels, margin), {})[position] = mapping
    best: dict[int, LinearMap] = {}
    for group in kinds.values():
        while len(group) > 1 and _cost(group.values()) > _apart(group.values()):
            # Without the one that makes the others dearest.
            rest = {p: {q: m for q, m in group.items() if q != p} for p in group}
            worst = min(group, key=lambda p: _cost(rest[p].values()) - _apart(rest[p].values()))
            group = rest[worst]
        if len(group) > max(1, len(best)):
            best = group
    return best


def _map(
    steps: tuple[nn.Module, ...], stride: Pair, before: Pair, after: Pair, channels: Pair, groups: int
) -> LinearMap:
    own = 0.0
    for step in steps:
        size = _pair(step.kernel_size) if isinstance(step, nn.Conv2d | nn.AvgPool2d) else (1, 1)
        wide = step.in_channels // step.groups if isinstance(step, nn.Conv2d) else 1
        own += size[0] * size[1] * wide * (step.out_channels if isinstance(step, nn.Conv2d) else channels[1])
    return LinearMap(steps=steps, stride=stride, before=before, after=after, channels=channels, groups=groups, cost=own)


def _common(maps: Collection[LinearMap]) -> tuple[Pair, Pair, int]:
    found = list(maps)
    before = (max(m.before[0] for m in found), max(m.before[1] for m in found))
    after = (max(m.after[0] for m in found), max(m.after[1] for m in found))
    return before, after, gcd(*(m.groups for m in found))


def _cost(maps: Collection[LinearMap]) -> float:
    before, after, groups = _common(maps)
    inside, out = next(iter(maps)).channels
    size = [b + a + 1 for b, a in zip(before, after, strict=True)]
    return size[0] * size[1] * inside / groups * out + _PASS * out


def _apart(maps: Collection[LinearMap]) -> float:
    return sum(mapping.cost + _PASS * mapping.channels[1] for mapping in maps)


def _placed(kernel: Tensor, mapping: LinearMap, before: Pair, after: Pair) -> Tensor:
    """A kernel in the middle of a larger one."""
    sides = [
        large - own
        for large, own in (
            (before[1], mapping.before[1]),
            (after[1], mapping.after[1]),
            (before[0], mapping.before[0]),
            (after[0], mapping.after[0]),
        )
    ]
    return functional.pad(kernel, sides) if any(sides) else kernel


def _grouped(kernel: Tensor, groups: int, wanted: int) -> Tensor:
    """A kernel of groups as one of fewer groups, zeros between those that are joined."""
    if groups == wanted:
        return kernel
    joined, size = groups // wanted, kernel.shape[2:]
    apart = kernel.view(wanted, joined, kernel.shape[0] // groups, 1, kernel.shape[1], *size)
    eye = torch.eye(joined, dtype=kernel.dtype, device=kernel.device).view(1, joined, 1, joined, 1, 1, 1)
    return (apart * eye).reshape(kernel.shape[0], joined * kernel.shape[1], *size)


def _without_holes(kernel: Tensor, dilation: Pair) -> Tensor:
    if dilation == (1, 1):
        return kernel
    size = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[2:], strict=True)]
    filled = kernel.new_zeros(*kernel.shape[:2], *size)
    filled[:, :, :: dilation[0], :: dilation[1]] = kernel
    return filled


def _convolve(
    x: Tensor, kernel: Tensor, bias: Tensor | None, stride: Pair, before: Pair, after: Pair, groups: int
) -> Tensor:
    if groups == x.shape[1] == kernel.shape[0] > 1 and stride == (1, 1) and _fast(x):
        y = depthwise(x, kernel, stride, before)
        return y if bias is None else y + bias.view(1, -1, 1, 1)
    return functional.conv2d(x, kernel, bias, stride, before, 1, groups)


def _fast(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def _is_convolution(step: nn.Module) -> bool:
    if type(step) is not nn.Conv2d or step.padding_mode != "zeros":
        return False
    # What reaches further to one side than to the other is left alone.
    uneven = any(d * (k - 1) % 2 for d, k in zip(step.dilation, step.kernel_size, strict=True))
    return not (step.padding == "same" and uneven)


def _padding(step: nn.Conv2d) -> Pair:
    if step.padding == "valid":
        return 0, 0
    if step.padding == "same":
        reach = [d * (k - 1) for d, k in zip(step.dilation, step.kernel_size, strict=True)]
        return reach[0] // 2, reach[1] // 2
    return cast(Pair, step.padding)


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else cast(Pair, tuple(value))
