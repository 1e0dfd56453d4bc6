"""The kernels of the weighted sum for CUDA, in Triton: each reads every output once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024
_PROGRAMS = 1024
"""Of the backward pass at most, so that what each of them sums up stays little."""


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(
    total: Any,
    outputs: Any,
    strides: Any,
    weights: Any,
    inner: Any,
    size: Any,
    number: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = place < size
    row, column = place // inner, place % inner
    found = tl.zeros([block], dtype=wide)
    for i in tl.static_range(number):
        weight = tl.load(weights + i).to(wide)
        # Where the weight is 0 nothing is read, and nothing that is not a number gets through.
        if weight != 0.0:
            value = tl.load(outputs[i] + row * strides[i] + column, mask=inside, other=0.0)
            found += weight * value.to(wide)
    tl.store(total + place, found.to(total.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(
    gradient: Any,
    outputs: Any,
    strides: Any,
    weights: Any,
    made: Any,
    partial: Any,
    inner: Any,
    size: Any,
    number: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
    needed: tl.constexpr,
) -> None:
    step = tl.num_programs(0).to(tl.int64) * block
    start = tl.program_id(0).to(tl.int64) * block
    at = tl.arange(0, number)
    sums = tl.zeros([number], dtype=wide)
    for first in range(start, size, step):
        place = first + tl.arange(0, block)
        inside = place < size
        row, column = place // inner, place % inner
        given = tl.load(gradient + place, mask=inside, other=0.0).to(wide)
        for i in tl.static_range(len(outputs)):
            if needed[i]:
                weight = tl.load(weights + i).to(wide)
                tl.store(made[i] + place, (weight * given).to(made[i].dtype.element_ty), mask=inside)
            if needed[len(outputs)]:
                value = tl.load(outputs[i] + row * strides[i] + column, mask=inside, other=0.0).to(wide)
                sums += tl.where(at == i, tl.sum(value * given), 0.0)
    if needed[len(outputs)]:
        tl.store(partial + tl.program_id(0) * number + at, sums)


def forward(outputs: Sequence[Tensor], weights: Tensor, kind: torch.dtype) -> Tensor:
    """The weighted sum, in the layout of the first output.

    Args:
        outputs: each (batch, ...) of one shape.
        weights: (candidates,).
        kind: of the sum.
    """
    total = torch.empty_like(outputs[0], dtype=kind)
    if total.numel():
        total, rows, strides, inner = _rows(total, outputs)
        grid = (triton.cdiv(total.numel(), _BLOCK),)
        _forward_kernel[grid](
            total, rows, strides, weights, inner, total.numel(), number=len(rows), block=_BLOCK, wide=_wide(kind)
        )
    return total


def backward(gradient: Tensor, outputs: Sequence[Tensor], weights: Tensor, needed: Sequence[bool]) -> list[Tensor]:
    """The gradients of the outputs, and (candidates,) of the weights; empty where they are not needed."""
    if not torch.ops.aten.is_non_overlapping_and_dense.default(gradient):
        gradient = gradient.contiguous()
    made = [
        torch.empty_like(gradient, dtype=output.dtype) if need else output.new_empty(0)
        for output, need in zip(outputs, needed[:-1], strict=True)
    ]
    wide = _wide(torch.promote_types(gradient.dtype, outputs[0].dtype))
    if not gradient.numel():
        return [*made, torch.zeros_like(weights) if needed[-1] else weights.new_empty(0)]
    gradient, rows, strides, inner = _rows(gradient, outputs)
    programs = min(triton.cdiv(gradient.numel(), _BLOCK), _PROGRAMS)
    number = triton.next_power_of_2(len(rows))
    partial = torch.empty(
        (programs, number), device=gradient.device, dtype=torch.float64 if wide == tl.float64 else torch.float32
    )
    _backward_kernel[(programs,)](
        gradient,
        rows,
        strides,
        weights,
        tuple(made),
        partial,
        inner,
        gradient.numel(),
        number=number,
        block=_BLOCK,
        wide=wide,
        needed=tuple(bool(need) for need in needed),
    )
    if not needed[-1]:
        return [*made, weights.new_empty(0)]
    return [*made, partial.sum(0)[: len(rows)].to(weights.dtype)]


def _wide(kind: torch.dtype) -> Any:
    return tl.float64 if kind == torch.float64 else tl.float32


def _rows(dense: Tensor, outputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...], tuple[int, ...], int]:
    """Reads each output as rows of one length that lie apart, in the order in which the dense tensor lies in memory.

    So slices of a wider tensor, along its channels say, are read where they are; others are copied.

    Returns:
        The dense tensor, the outputs, the distance of the rows of each, and the length of a row.
    """
    order = sorted(range(dense.dim()), key=lambda dim: (dense.stride(dim), dense.shape[dim] == 1), reverse=True)
    shape = [dense.shape[dim] for dim in order]
    for split in range(len(order) + 1):
        found = [_row_stride([output.stride(dim) for dim in order], shape, split) for output in outputs]
        if all(stride is not None for stride in found):
            return dense, tuple(outputs), tuple(s for s in found if s is not None), max(1, math.prod(shape[split:]))
    copies = []
    for output in outputs:
        copy = torch.empty_like(dense, dtype=output.dtype)
        copies.append(copy.copy_(output))
    return _rows(dense, copies)


def _row_stride(strides: Sequence[int], shape: Sequence[int], split: int) -> int | None:
    """The distance of rows that hold the dimensions from `split` on, where the tensor can be read so."""
    expected = 1
    for i in reversed(range(split, len(shape))):
        if shape[i] != 1 and strides[i] != expected:
            return None
        expected *= shape[i]
    row: int | None = None
    distance = 0
    for i in reversed(range(split)):
        if shape[i] == 1:
            continue
        if row is None:
            row = distance = strides[i]
        if strides[i] != distance:
            return None
        distance *= shape[i]
    return expected if row is None else row
