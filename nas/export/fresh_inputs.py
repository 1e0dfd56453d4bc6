"""Tensors like an example: of the same kind and other values, of the same or another size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

_MANY = 64
"""Which integers are tried where the example has nothing but zeros, as token ids often are: those below this one."""


Recipe: TypeAlias = Callable[[Tensor, list[int], torch.Generator], Tensor]
"""Makes a tensor like that of an example, of some shape."""


def resized(tensor: Tensor, shape: Iterable[int]) -> Tensor:
    """The first part of a tensor, or the tensor again and again, as each dimension asks."""
    for dim, size in enumerate(shape):
        if size != tensor.shape[dim]:
            tensor = tensor.index_select(dim, torch.arange(size, device="cpu") % tensor.shape[dim])
    return tensor.clone()


def _drawn(tensor: Tensor, shape: list[int], rng: torch.Generator, *, wide: bool) -> Tensor:
    flat = tensor.flatten()
    varied = bool((flat != flat[0]).any())
    if tensor.is_floating_point() or tensor.is_complex():
        if varied:
            return _mixed(flat, shape, rng)
        unit = max(float(flat[0].abs()), 1.0)
        noise = (torch.randn if wide else torch.rand)(shape, generator=rng, device="cpu")
        return (noise * unit).to(tensor.dtype) + flat[0]
    if varied:  # token ids, the edges of a graph: only values that the example has are known to be allowed
        return flat[_positions(flat, shape, rng)]
    first = int(flat[0])
    low, high = min(first, 0), max(first + 1, _MANY if wide and first == 0 and tensor.dtype != torch.bool else 2)
    drawn = torch.randint(low, high, shape, generator=rng, device="cpu").to(tensor.dtype)
    if len(shape) > 1:  # so that no row of a mask loses all that it has
        drawn[..., 0] = flat[0]
    return drawn


def _positions(flat: Tensor, shape: list[int], rng: torch.Generator) -> Tensor:
    return torch.randint(len(flat), shape, generator=rng, device="cpu")


def _mixed(flat: Tensor, shape: list[int], rng: torch.Generator) -> Tensor:
    """Values between those of the example, so that what must be positive, or a probability, remains so."""
    one, other = (flat[_positions(flat, shape, rng)] for _ in range(2))
    if not flat.isfinite().all():  # a mask of zeros and minus infinities
        return one
    share = torch.rand(shape, generator=rng, device="cpu").to(flat.dtype)
    return one * share + other * (1 - share)


def _floats_alone(tensor: Tensor, shape: list[int], rng: torch.Generator) -> Tensor:
    if tensor.is_floating_point():
        return _drawn(tensor, shape, rng, wide=False)
    return resized(tensor, shape)


def _nudged(tensor: Tensor, shape: list[int], rng: torch.Generator) -> Tensor:
    """A hundredth off: what must be sorted, or positive definite, most often remains so."""
    made = resized(tensor, shape)
    if not tensor.is_floating_point():
        return made
    return made * (1 + torch.randn(shape, generator=rng, device="cpu").to(tensor.dtype) / 100)


def _same(tensor: Tensor, shape: list[int], rng: torch.Generator) -> Tensor:
    return resized(tensor, shape)


RECIPES: tuple[Recipe, ...] = (partial(_drawn, wide=True), partial(_drawn, wide=False), _floats_alone, _nudged, _same)
"""From the one that says most to the one that asks least of the model: the values of the example again."""
