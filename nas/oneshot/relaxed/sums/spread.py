"""Several weighted sums of the same tensors: what all mixtures that read one tensor add up, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from nas.errors import NasValueError, explain
from nas.oneshot.relaxed.sums.operator import accumulated_in, check_device, common_dtype, dot, kernels_for, laid_as

_KERNELS = "nas.oneshot.relaxed.sums.spread_kernels"
Term: TypeAlias = tuple[int, int, int, int]
"""The number of a source, of a block of channels in it, of the sum it is added to, and of its weight."""


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which blocks of which sources are added up to which sums.

    Example:
        >>> Plan(sums=1, terms=((0, 0, 0, 0), (1, 0, 0, 1))).encoded
        [1, 0, 0, 0, 0, 1, 0, 0, 1]
    """

    sums: int
    terms: tuple[Term, ...]
    """Each weight stands in one term at most."""

    @property
    def encoded(self) -> list[int]:
        """As an operator takes it."""
        return [self.sums, *(number for term in self.terms for number in term)]


def _plan(encoded: Sequence[int]) -> Plan:
    terms = zip(*(encoded[i::4] for i in range(1, 5)), strict=True)
    return Plan(sums=encoded[0], terms=tuple((a, b, c, d) for a, b, c, d in terms))


def weighted_sums(sources: Sequence[Tensor], weights: Tensor, plan: Plan, channels: int) -> tuple[Tensor, ...]:
    """Sums of blocks of channels, each block times its weight; one pass over the sources, and one for all gradients.

    It accumulates in float32 at least, skips what weighs 0, and differentiates any number of times.

    Args:
        sources: each (batch, blocks * channels, ...), where channels and what follows are the same for all of them.
        weights: (weights,).
        plan: what is added up; every sum has a term.
        channels: of a block, and of each sum.

    Returns:
        The sums, each (batch, channels, ...).

    Raises:
        NasValueError: weights on another device.

    Example:
        >>> two = torch.tensor([[1.0, 10.0]])
        >>> plan = Plan(sums=2, terms=((0, 0, 0, 0), (0, 1, 1, 1), (1, 0, 0, 2), (1, 0, 1, 3)))
        >>> weighted_sums([two, torch.ones(1, 1)], torch.tensor([2.0, 3.0, 5.0, 7.0]), plan, 1)
        (tensor([[7.]]), tensor([[37.]]))
    """
    check_device(weights, sources[0])
    found: tuple[Tensor, ...] = _WeightedSums.apply(plan, channels, weights, *sources)
    return found


def total(outputs: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape in one pass; nothing is kept for the gradients, and none is copied.

    Raises:
        NasValueError: tensors of different shapes.

    Example:
        >>> total([torch.ones(2), torch.ones(2), torch.ones(2)])
        tensor([3., 3.])
    """
    if any(output.shape != outputs[0].shape for output in outputs):
        raise NasValueError(explain("the outputs must have one shape", got=[tuple(output.shape) for output in outputs]))
    if torch.compiler.is_compiling() or len(outputs) < 3:
        found = outputs[0]
        for output in outputs[1:]:
            found = found + output
        return found
    summed: Tensor = _Total.apply(*outputs)
    return summed


class _Total(torch.autograd.Function):
    """Adds up; each output has the gradient of the sum."""

    @staticmethod
    def forward(ctx: Any, *outputs: Tensor) -> Tensor:
        ctx.kinds, ctx.strides = [output.dtype for output in outputs], outputs[0].stride()
        found: Tensor = torch.ops.nas.total(outputs)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = gradients
        gradient = laid_as(gradient, ctx.strides)
        return tuple(gradient.to(kind) for kind in ctx.kinds)


class _WeightedSums(torch.autograd.Function):
    """The operators below; what is differentiated twice is computed by what torch differentiates."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, channels: int, weights: Tensor, *sources: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weights, *sources)
        ctx.plan = plan
        return tuple(torch.ops.nas.weighted_sums(sources, weights, plan.encoded, channels))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        weights, *sources = ctx.saved_tensors
        plan, given = _asked(ctx.plan, gradients)
        needed = [*ctx.needs_input_grad[3:], ctx.needs_input_grad[2]]
        if not given:
            return (None, None, *[None] * len(needed))
        given = [laid_as(gradient, sources[0].stride()) for gradient in given]
        if torch.is_grad_enabled():
            *made, of_weights = _slow_gradients(given, sources, weights, plan)
        else:
            *made, of_weights = torch.ops.nas.weighted_sums_backward(given, sources, weights, plan.encoded, needed)
        found = [tensor if need else None for tensor, need in zip([*made, of_weights], needed, strict=True)]
        return None, None, found[-1], *found[:-1]


def _asked(plan: Plan, gradients: Sequence[Tensor | None]) -> tuple[Plan, list[Tensor]]:
    """Without the sums that nobody has used."""
    if all(gradient is not None for gradient in gradients):
        return plan, [gradient for gradient in gradients if gradient is not None]
    there = [i for i, gradient in enumerate(gradients) if gradient is not None]
    terms = tuple((a, b, there.index(c), d) for a, b, c, d in plan.terms if c in there)
    return Plan(sums=len(there), terms=terms), [gradient for gradient in gradients if gradient is not None]


def _blocks(source: Tensor, channels: int) -> tuple[Tensor, ...]:
    blocks: tuple[Tensor, ...] = source.split(channels, dim=1)
    return blocks


def _slow_gradients(
    gradients: Sequence[Tensor], sources: Sequence[Tensor], weights: Tensor, plan: Plan
) -> list[Tensor]:
    channels = gradients[0].shape[1]
    shares = weights.unbind()
    blocks = [_blocks(source, channels) for source in sources]
    made: list[list[Tensor]] = [[torch.zeros_like(block) for block in found] for found in blocks]
    dots = [torch.zeros_like(share) for share in shares]
    for source, block, target, weight in plan.terms:
        # What weighs 0 is left out, even where it is not a number.
        scaled = torch.where(shares[weight] != 0, shares[weight] * gradients[target], 0.0)
        made[source][block] = made[source][block] + scaled.to(made[source][block].dtype)
        dots[weight] = dots[weight] + (gradients[target] * blocks[source][block]).sum().to(weights.dtype)
    return [*(torch.cat(found, dim=1) for found in made), torch.stack(dots)]


_LIBRARY = torch.library.Library("nas", "FRAGMENT")
_LIBRARY.define("total(Tensor[] outputs) -> Tensor")
_LIBRARY.define("weighted_sums(Tensor[] sources, Tensor weights, int[] plan, int channels) -> Tensor[]")
_LIBRARY.define(
    "weighted_sums_backward(Tensor[] gradients, Tensor[] sources, Tensor weights, int[] plan, bool[] needed)"
    " -> Tensor[]"
)


@torch.library.impl(_LIBRARY, "total", "Meta")
def _shape_of_total(outputs: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(outputs[0], dtype=common_dtype(outputs))


@torch.library.impl(_LIBRARY, "total", "CPU")
@torch.library.impl(_LIBRARY, "total", "CUDA")
def _total(outputs: Sequence[Tensor]) -> Tensor:
    kind = common_dtype(outputs)
    if kernels := kernels_for(outputs[0]):
        with torch.cuda.device_of(outputs[0]):
            made: Tensor = kernels.total(outputs, kind)
        return made
    found = outputs[0].to(accumulated_in(kind), copy=True)
    for output in outputs[1:]:
        found.add_(output)
    return found.to(kind)


@torch.library.impl(_LIBRARY, "weighted_sums", "Meta")
def _shapes_of_sums(sources: Sequence[Tensor], weights: Tensor, plan: Sequence[int], channels: int) -> list[Tensor]:
    first = sources[0].narrow(1, 0, channels)
    return [torch.empty_like(first, dtype=common_dtype(sources)) for _ in range(_plan(plan).sums)]


@torch.library.impl(_LIBRARY, "weighted_sums", "CPU")
@torch.library.impl(_LIBRARY, "weighted_sums", "CUDA")
def _sums(sources: Sequence[Tensor], weights: Tensor, plan: Sequence[int], channels: int) -> list[Tensor]:
    read, kind = _plan(plan), common_dtype(sources)
    if kernels := kernels_for(sources[0], _KERNELS):
        with torch.cuda.device_of(sources[0]):
            made: list[Tensor] = kernels.forward(sources, weights, read.terms, read.sums, channels, kind)
        return made
    first = sources[0].narrow(1, 0, channels)
    shares, blocks = weights.tolist(), [_blocks(source, channels) for source in sources]
    found = [torch.zeros_like(first, dtype=accumulated_in(kind)) for _ in range(read.sums)]
    for source, block, target, weight in read.terms:
        if shares[weight]:
            found[target].add_(blocks[source][block], alpha=shares[weight])
    return [tensor.to(kind) for tensor in found]


@torch.library.impl(_LIBRARY, "weighted_sums_backward", "Meta")
def _shapes_of_gradients(
    gradients: Sequence[Tensor], sources: Sequence[Tensor], weights: Tensor, plan: Sequence[int], needed: Sequence[bool]
) -> list[Tensor]:
    made = [
        torch.empty_like(source) if need else source.new_empty(0)
        for source, need in zip(sources, needed[:-1], strict=True)
    ]
    return [*made, torch.empty_like(weights) if needed[-1] else weights.new_empty(0)]


@torch.library.impl(_LIBRARY, "weighted_sums_backward", "CPU")
@torch.library.impl(_LIBRARY, "weighted_sums_backward", "CUDA")
def _gradients(
    gradients: Sequence[Tensor], sources: Sequence[Tensor], weights: Tensor, plan: Sequence[int], needed: Sequence[bool]
) -> list[Tensor]:
    read = _plan(plan)
    if kernels := kernels_for(sources[0], _KERNELS):
        with torch.cuda.device_of(sources[0]):
            found: list[Tensor] = kernels.backward(gradients, sources, weights, read.terms, needed)
        return found
    shares, channels = weights.tolist(), gradients[0].shape[1]
    made = [
        torch.zeros_like(source) if need else source.new_empty(0)
        for source, need in zip(sources, needed[:-1], strict=True)
    ]
    for source, block, target, weight in read.terms:
        if needed[source] and shares[weight]:
            made[source].narrow(1, block * channels, channels).add_(gradients[target], alpha=shares[weight])
    if not needed[-1]:
        return [*made, weights.new_empty(0)]
    of_weights = torch.zeros_like(weights)
    blocks = [_blocks(source, channels) for source in sources]
    for source, block, target, weight in read.terms:
        of_weights[weight] = dot(gradients[target], blocks[source][block])
    return [*made, of_weights]
