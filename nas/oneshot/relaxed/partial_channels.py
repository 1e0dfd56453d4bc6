"""Partial channels (PC-DARTS): a mixture through which only a part of the channels passes, which takes less memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.torch_internals import own_buffers, own_parameters
from nas.domains import Answer
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed.architecture import Mixing
from nas.oneshot.relaxed.mixtures import MixedLayer
from nas.oneshot.relaxed.parametrised import computed_weights


@final
class PartialChannels(nn.Module):
    """A LayerChoice on an edge, after Xu et al. 2020 (PC-DARTS, arXiv 1907.05737, section 3.2).

    The first 1/K of the channels pass the mixture, whose candidates are built anew for so many; the others go by, max
    pooled where the candidates halve the resolution. At last the channels are shuffled.

    Args:
        mixing: where the weights are read.
        label: of the choice.
        candidates: answer -> its module, for all channels.
        share: K.

    Raises:
        NasValueError: channels that K does not divide, or a layer that is not known to be as wide as its input.
    """

    def __init__(self, mixing: Mixing, label: str, candidates: Mapping[Answer, nn.Module], share: int) -> None:
        super().__init__()
        self.share = share
        for answer, candidate in candidates.items():
            _make_thin(candidate, share, f"candidate {answer!r} of LayerChoice {label!r}")
        self.mixed = MixedLayer(mixing, label, candidates)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to the same, or to half the height and width.

        Raises:
            NasValueError: channels that K does not divide.
        """
        channels = x.shape[1]
        if channels % self.share:
            raise NasValueError(
                explain(
                    f"partial_channels={self.share} must divide the channels of every edge",
                    got=channels,
                    where=f"LayerChoice {self.mixed.label!r}",
                )
            )
        width = channels // self.share
        y, rest = self.mixed(x[:, :width]), x[:, width:]
        if y.shape[2:] != x.shape[2:]:
            rest = functional.max_pool2d(rest, 2, 2, ceil_mode=True)
        # (batch, share, width, ...) to (batch, width, share, ...): what went by mixes with what is computed.
        joined = torch.cat([y, rest], dim=1).unflatten(1, (self.share, width))
        shuffled: Tensor = joined.transpose(1, 2).flatten(1, 2)
        return shuffled

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"1/{self.share} of the channels"


def _make_thin(candidate: nn.Module, share: int, where: str) -> None:
    """Makes every layer 1/share as wide, with fresh weights of its own initialisation."""
    for module in candidate.modules():
        if computed := computed_weights(module):
            raise NasValueError(
                explain(
                    "partial channels make no layer thinner whose weights are computed from other tensors",
                    got=f"{type(module).__name__} with {', '.join(computed)}",
                    where=where,
                    mend="partial_channels=1",
                )
            )
        if not list(module.parameters(recurse=False)) and not list(module.buffers(recurse=False)):
            continue
        if isinstance(module, nn.Conv2d):
            _check_divides(share, (module.in_channels, module.out_channels), where)
            depthwise = module.groups == module.in_channels
            module.in_channels //= share
            module.out_channels //= share
            module.groups = module.in_channels if depthwise else module.groups
            shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
            module.weight = _fresh(module.weight, shape)
            if module.bias is not None:
                module.bias = _fresh(module.bias, (module.out_channels,))
        elif isinstance(module, nn.BatchNorm2d):
            _check_divides(share, (module.num_features,), where)
            module.num_features //= share
            for name, tensor in [*own_parameters(module).items(), *own_buffers(module).items()]:
                if tensor is not None and tensor.dim():
                    thin = tensor.detach()[: module.num_features].clone()
                    is_weight = isinstance(tensor, nn.Parameter)
                    setattr(module, name, nn.Parameter(thin, tensor.requires_grad) if is_weight else thin)
        else:
            raise NasValueError(
                explain(
                    "partial channels make convolutions and batch norms thinner, no other layer",
                    got=type(module).__name__,
                    where=where,
                    mend="partial_channels=1, or candidates of nn.Conv2d and nn.BatchNorm2d",
                )
            )
        module.reset_parameters()


def _check_divides(share: int, channels: tuple[int, ...], where: str) -> None:
    if any(number % share for number in channels):
        raise NasValueError(
            explain(f"partial_channels={share} must divide the channels of every edge", got=channels, where=where)
        )


def _fresh(weight: Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(weight.new_empty(shape), weight.requires_grad)
