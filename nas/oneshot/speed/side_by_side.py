"""Candidates of equal layers on the same input, computed side by side: one convolution, one batch norm for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.torch_internals import add_to_each, copy_each, has_hooks
from nas.oneshot.speed.chains import Prefix, shared_length, signature

Slot: TypeAlias = tuple[int, int]
"""Of a candidate: the number of its mixture among those that read the input, and its position there."""


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
    """Chains of equal steps, each candidate's with its own parameters.

    Args:
        chains: place of the candidate -> its steps.
        live: says of a place whether its candidate is computed now.
        everywhere: also where it gains nothing: on a CPU, where what is to lie together is copied.
    """

    def __init__(
        self, chains: dict[Slot, tuple[nn.Module, ...]], live: Callable[[Slot], bool], *, everywhere: bool
    ) -> None:
        self.chains, self._live = chains, live
        chain = next(iter(chains.values()))
        self._shared = shared_length(chain)
        self._prefixes = {place: Prefix.of(steps[: self._shared]) for place, steps in chains.items()}
        first = chain[self._shared]
        assert isinstance(first, nn.Conv2d)
        # Of convolutions of all channels the outputs lie together without a copy.
        self._on_cpu = everywhere or first.groups == 1

    def run(self, after: Callable[[Prefix], Tensor]) -> dict[Slot, Tensor]:
        """What the candidates yield that are computed now, each (batch, channels, ...); nothing for less than two.

        Args:
            after: yields the input after steps without parameters.
        """
        live = [place for place in self.chains if self._live(place)]
        if len(live) < 2:
            return {}
        chains = [self.chains[place] for place in live]
        x = after(self._prefixes[live[0]])
        if x.device.type == "cpu" and not self._on_cpu:
            return {}
        apart = False  # whether every chain has channels of its own already
        for steps in zip(*(chain[self._shared :] for chain in chains), strict=True):
            x = _run(steps, x, apart)
            apart = True
        return dict(zip(live, x.chunk(len(live), dim=1), strict=True))


def _run(steps: Sequence[nn.Module], x: Tensor, apart: bool) -> Tensor:
    first = steps[0]
    if isinstance(first, nn.Conv2d):
        return _convolve([step for step in steps if isinstance(step, nn.Conv2d)], x, apart)
    if isinstance(first, nn.BatchNorm2d):
        return _normalise([step for step in steps if isinstance(step, nn.BatchNorm2d)], x)
    found: Tensor = first(x)
    return found


def _convolve(layers: Sequence[nn.Conv2d], x: Tensor, apart: bool) -> Tensor:
    first, number = layers[0], len(layers)
    groups = first.groups
    # A group that reads its channels for all layers at once does not need them once for each.
    woven = groups > 1 and not apart
    join = partial(_woven, groups=groups) if woven else torch.cat
    weight = join([layer.weight for layer in layers])
    bias = None if first.bias is None else join([_there(layer.bias) for layer in layers])
    apart_groups = groups * number if apart else groups
    y = functional.conv2d(x, weight, bias, first.stride, first.padding, first.dilation, apart_groups)
    if not woven:
        return y
    # From (group, layer, channel) to (layer, group, channel).
    last = y.is_contiguous(memory_format=torch.channels_last)
    y = y.permute(0, 2, 3, 1) if last else y
    dim = 3 if last else 1
    shape = (*y.shape[:dim], groups, number, -1, *y.shape[dim + 1 :])
    y = y.view(shape).transpose(dim, dim + 1).flatten(dim, dim + 2)
    return y.permute(0, 3, 1, 2) if last else y


def _woven(tensors: Sequence[Tensor], groups: int) -> Tensor:
    """(out, ...) of each layer -> (layers * out, ...) of all, by groups."""
    apart = [tensor.view(groups, -1, *tensor.shape[1:]) for tensor in tensors]
    return torch.cat(apart, dim=1).flatten(0, 1)


def _normalise(layers: Sequence[nn.BatchNorm2d], x: Tensor) -> Tensor:
    first = layers[0]
    weight = torch.cat([layer.weight for layer in layers]) if first.affine else None
    bias = torch.cat([layer.bias for layer in layers]) if first.affine else None
    if not first.track_running_stats:
        return functional.batch_norm(x, None, None, weight, bias, True, 0.0, first.eps)
    means = [_there(layer.running_mean) for layer in layers]
    variances = [_there(layer.running_var) for layer in layers]
    mean, variance = torch.cat(means), torch.cat(variances)
    assert first.momentum is not None
    y = functional.batch_norm(x, mean, variance, weight, bias, first.training, first.momentum, first.eps)
    if first.training:
        with torch.no_grad():
            copy_each([*means, *variances], [*mean.split(len(means[0])), *variance.split(len(means[0]))])
            add_to_each([_there(layer.num_batches_tracked) for layer in layers], 1)
    return y


def _there(tensor: Any) -> Tensor:
    assert isinstance(tensor, Tensor)
    return tensor
