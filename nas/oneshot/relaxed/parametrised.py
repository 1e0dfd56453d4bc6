"""Layers whose weights are computed from other tensors, and which of these a mask may reach."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nas._compat.torch_internals import (
    Convolution,
    TransposedConvolution,
    WeightNormalised,
    children_of,
    forward_pre_hooks,
    own_buffers,
    own_parameters,
)

_ROWS = 0
"""The dimension along which weight normalisation computes a norm for each part of the weight."""


def computed_weights(layer: nn.Module) -> dict[str, str]:
    """What the weights of a layer are computed from: the name of each such tensor in the layer -> the weight's name.

    Of a parametrization of torch or the user's, and of the old `weight_norm` and `spectral_norm`.

    Example:
        >>> computed_weights(nn.utils.parametrizations.weight_norm(nn.Linear(1, 1)))
        {'parametrizations.weight.original0': 'weight', 'parametrizations.weight.original1': 'weight'}
    """
    found: dict[str, str] = {}
    if is_parametrized(layer):
        for weight, steps in _parametrizations(layer).items():
            for name, _ in [*steps.named_parameters(), *steps.named_buffers()]:
                found[f"parametrizations.{weight}.{name}"] = weight
    for hook in forward_pre_hooks(layer):
        if isinstance(hook, WeightNorm | SpectralNorm):
            ours = [*own_parameters(layer), *own_buffers(layer)]
            found |= {name: hook.name for name in ours if name.startswith(f"{hook.name}_")}
    return found


def normalised_rows(layer: nn.Module) -> set[str]:
    """Those of `computed_weights` each of whose rows is divided by its norm, so that no row of it may be masked away.

    The lengths of the rows, by which they are multiplied then, are masked in their place.
    """
    if isinstance(layer, TransposedConvolution):  # its rows are what it reads
        return set()
    found = set()
    if is_parametrized(layer):
        for weight, steps in _parametrizations(layer).items():
            only = children_of(steps)
            if len(only) == 1 and isinstance(step := only["0"], WeightNormalised) and step.dim == _ROWS:
                found.add(f"parametrizations.{weight}.original1")
    for hook in forward_pre_hooks(layer):
        if isinstance(hook, WeightNorm) and hook.dim == _ROWS:
            found.add(f"{hook.name}_v")
    return found


def difference_of_computed(layer: nn.Module, twin: nn.Module) -> str | None:
    """Why masks cannot turn the computed weights of one layer into those of another; None where they can."""
    ours, theirs = computed_weights(layer), computed_weights(twin)
    if ours != theirs:
        return "has another parametrization"
    rows = {weight for name, weight in ours.items() if name in normalised_rows(layer)}
    for name, weight in ours.items():
        first, second = _tensor(layer, name), _tensor(twin, name)
        if first.shape == second.shape:
            continue
        if weight not in rows:
            return (
                f"computes its {weight} from {name}, and a part of that does not yield a part of the {weight} (only "
                "weight_norm of rows does)"
            )
        kernels = isinstance(layer, Convolution) and first.shape[2:] != second.shape[2:]
        if kernels or getattr(layer, "groups", 1) != 1:
            return f"computes its {weight} by weight_norm, of which masks leave channels, but no kernels and groups"
    return None


def _parametrizations(layer: nn.Module) -> dict[str, nn.Module]:
    steps: Any = children_of(layer)["parametrizations"]
    return dict(steps.items())


def _tensor(layer: nn.Module, name: str) -> Tensor:
    owner, _, own = name.rpartition(".")
    found: Tensor = getattr(layer.get_submodule(owner), own)
    return found
