"""The kernels of the weighted sum for CUDA, in Triton: each reads every output once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
_MOST = 48
"""Outputs of one launch: kernels of many more take long to compile, and have too many arguments."""

# Annotations of the kernels are read by Triton, which knows none but its own.


@triton.jit  # type: ignore[untyped-decorator]
def offset(place, inner, stride, dense: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where in a tensor of rows that lie apart a place is, counted without what lies between them."""
    if dense:
        return place
    else:
        return (place // inner).to(tl.int64) * stride + place % inner


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(  # type: ignore[no-untyped-def]
    total,
    outputs,
    strides,
    weights,
    inner,
    size,
    number: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
    dense: tl.constexpr,
    long: tl.constexpr,
    plain: tl.constexpr,
) -> None:
    start = tl.program_id(0)
    if long:
        start = start.to(tl.int64)
    place = start * block + tl.arange(0, block)
    inside = place < size
    found = tl.zeros([block], dtype=wide)
    for i in tl.static_range(number):
        read = outputs[i] + offset(place, inner, strides[i], dense)
        if plain:
            found += tl.load(read, mask=inside, other=0.0).to(wide)
        else:
            weight = tl.load(weights + i).to(wide)
            # Where the weight is 0 nothing is read, and nothing that is not a number gets through.
            if weight != 0.0:
                found += weight * tl.load(read, mask=inside, other=0.0).to(wide)
    tl.store(total + place, found.to(total.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(  # type: ignore[no-untyped-def]
    gradient,
    outputs,
    strides,
    weights,
    made,
    partial,
    inner,
    size,
    candidates: tl.constexpr,
    number: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
    needed: tl.constexpr,
    dense: tl.constexpr,
    long: tl.constexpr,
) -> None:
    start = tl.program_id(0)
    if long:
        start = start.to(tl.int64)
    place = start * block + tl.arange(0, block)
    inside = place < size
    given = tl.load(gradient + place, mask=inside, other=0.0).to(wide)
    at = tl.arange(0, number)
    sums = tl.zeros([number], dtype=wide)
    for i in tl.static_range(candidates):
        if (needed >> i) & 1:
            weight = tl.load(weights + i).to(wide)
            scaled = tl.where(weight != 0.0, weight * given, 0.0)
            tl.store(made[i] + place, scaled.to(made[i].dtype.element_ty), mask=inside)
        if (needed >> candidates) & 1:
            read = outputs[i] + offset(place, inner, strides[i], dense)
            value = tl.load(read, mask=inside, other=0.0).to(wide)
            sums += tl.where(at == i, tl.sum(value * given), 0.0)
    if (needed >> candidates) & 1:
        tl.store(partial + start * number + at, sums)


def total(outputs: Sequence[Tensor], kind: torch.dtype) -> Tensor:
    """The sum of outputs of one shape, in the layout of the first."""
    return forward(outputs, None, kind)


def forward(outputs: Sequence[Tensor], weights: Tensor | None, kind: torch.dtype) -> Tensor:
    """The weighted sum, in the layout of the first output.

    Args:
        outputs: each (batch, ...) of one shape.
        weights: (candidates,); None where each weighs 1.
        kind: of the sum.
    """
    if len(outputs) > _MOST:
        between = torch.float64 if kind == torch.float64 else torch.float32
        parts = [
            forward(outputs[part], None if weights is None else weights[part], between) for part in _parts(len(outputs))
        ]
        return torch.stack(parts).sum(0).to(kind)
    total = torch.empty_like(outputs[0], dtype=kind)
    if total.numel():
        total, rows, strides, inner = _rows(total, outputs)
        _forward_kernel[(triton.cdiv(total.numel(), BLOCK),)](
            total,
            rows,
            strides,
            weights,
            inner,
            total.numel(),
            number=len(rows),
            block=BLOCK,
            wide=accumulator(kind),
            dense=inner == total.numel(),
            long=is_long(total),
            plain=weights is None,
            enable_fp_fusion=True,
        )
    return total


def backward(gradient: Tensor, outputs: Sequence[Tensor], weights: Tensor, needed: Sequence[bool]) -> list[Tensor]:
    """The gradients of the outputs, and (candidates,) of the weights; empty where they are not needed."""
    if len(outputs) > _MOST:
        parts = [
            backward(gradient, outputs[part], weights[part], [*needed[part], needed[-1]])
            for part in _parts(len(outputs))
        ]
        return [made for part in parts for made in part[:-1]] + [torch.cat([part[-1] for part in parts])]
    if not torch.ops.aten.is_non_overlapping_and_dense.default(gradient):
        gradient = gradient.contiguous()
    made = [
        torch.empty_like(gradient, dtype=output.dtype) if need else output.new_empty(0)
        for output, need in zip(outputs, needed[:-1], strict=True)
    ]
    wide = accumulator(torch.promote_types(gradient.dtype, outputs[0].dtype))
    if not gradient.numel():
        return [*made, torch.zeros_like(weights) if needed[-1] else weights.new_empty(0)]
    gradient, rows, strides, inner = _rows(gradient, outputs)
    programs = triton.cdiv(gradient.numel(), BLOCK)
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
        candidates=len(rows),
        number=number,
        block=BLOCK,
        wide=wide,
        needed=sum(bool(need) << i for i, need in enumerate(needed)),
        dense=inner == gradient.numel(),
        long=is_long(gradient),
        enable_fp_fusion=True,
    )
    if not needed[-1]:
        return [*made, weights.new_empty(0)]
    return [*made, partial.sum(0)[: len(rows)].to(weights.dtype)]


def _parts(number: int) -> list[slice]:
    return [slice(start, min(start + _MOST, number)) for start in range(0, number, _MOST)]


def is_long(tensor: Tensor) -> bool:
    """Whether its places, and those of a last block, do not fit into 32 bits."""
    return tensor.numel() + BLOCK >= 2**31


def accumulator(kind: torch.dtype) -> Any:
    """In what a kernel accumulates."""
    return tl.float64 if kind == torch.float64 else tl.float32


def _rows(dense: Tensor, outputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...], tuple[int, ...], int]:
    """Reads each output as rows of one length that lie apart, in the order in which the dense tensor lies in memory.

    So slices of a wider tensor, along its channels say, are read where they are; others are copied.

    Returns:
        The dense tensor, the outputs, the distance of the rows of each, and the length of a row.
    """
    found = as_rows(tuple(dense.shape), (dense.stride(), *(output.stride() for output in outputs)))
    if found is not None:
        strides, inner = found
        return dense, tuple(outputs), strides[1:], inner
    copies = []
    for output in outputs:
        copy = torch.empty_like(dense, dtype=output.dtype)
        copies.append(copy.copy_(output))
    return _rows(dense, copies)


@lru_cache(maxsize=4096)
def as_rows(shape: tuple[int, ...], strides: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], int] | None:
    """The distances of rows of tensors of one shape, and the length of a row; None where they cannot be read so.

    The rows are in the order in which the first of the tensors lies in memory.
    """
    first = strides[0]
    order = sorted(range(len(shape)), key=lambda dim: (first[dim], shape[dim] == 1), reverse=True)
    ordered = [shape[dim] for dim in order]
    for split in range(len(order) + 1):
        found = [_row_stride([own[dim] for dim in order], ordered, split) for own in strides]
        if all(stride is not None for stride in found):
            return tuple(s for s in found if s is not None), max(1, math.prod(ordered[split:]))
    return None


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
