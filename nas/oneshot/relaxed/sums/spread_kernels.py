"""The kernels of several weighted sums of the same tensors, for CUDA, in Triton."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from nas.oneshot.relaxed.sums.kernels import BLOCK, accumulator, as_rows, is_long, offset


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(  # type: ignore[no-untyped-def]
    totals,
    sources,
    strides,
    steps,
    weights,
    inner,
    size,
    terms: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
    long: tl.constexpr,
) -> None:
    start = tl.program_id(0)
    if long:
        start = start.to(tl.int64)
    place = start * block + tl.arange(0, block)
    inside = place < size
    for j in tl.static_range(len(totals)):
        found = tl.zeros([block], dtype=wide)
        for t in tl.static_range(len(terms)):
            if terms[t][2] == j:
                weight = tl.load(weights + terms[t][3]).to(wide)
                if weight != 0.0:
                    read = sources[terms[t][0]] + terms[t][1] * steps[terms[t][0]]
                    read += offset(place, inner, strides[terms[t][0]], False)
                    found += weight * tl.load(read, mask=inside, other=0.0).to(wide)
        tl.store(totals[j] + place, found.to(totals[j].dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(  # type: ignore[no-untyped-def]
    gradients,
    gradient_strides,
    sources,
    strides,
    steps,
    weights,
    made,
    made_strides,
    made_steps,
    partial,
    inner,
    size,
    terms: tl.constexpr,
    blocks: tl.constexpr,
    number: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
    needed: tl.constexpr,
    long: tl.constexpr,
) -> None:
    start = tl.program_id(0)
    if long:
        start = start.to(tl.int64)
    place = start * block + tl.arange(0, block)
    inside = place < size
    for i in tl.static_range(len(sources)):
        if (needed >> i) & 1:
            for k in tl.static_range(tl.constexpr(blocks[i])):
                found = tl.zeros([block], dtype=wide)
                for t in tl.static_range(len(terms)):
                    if terms[t][0] == i and terms[t][1] == k:
                        weight = tl.load(weights + terms[t][3]).to(wide)
                        read = gradients[terms[t][2]] + offset(place, inner, gradient_strides[terms[t][2]], False)
                        given = tl.load(read, mask=inside, other=0.0).to(wide)
                        found += tl.where(weight != 0.0, weight * given, 0.0)
                write = made[i] + k * made_steps[i] + offset(place, inner, made_strides[i], False)
                tl.store(write, found.to(made[i].dtype.element_ty), mask=inside)
    if (needed >> len(sources)) & 1:
        at = tl.arange(0, number)
        sums = tl.zeros([number], dtype=wide)
        for t in tl.static_range(len(terms)):
            read = gradients[terms[t][2]] + offset(place, inner, gradient_strides[terms[t][2]], False)
            given = tl.load(read, mask=inside, other=0.0).to(wide)
            read = sources[terms[t][0]] + terms[t][1] * steps[terms[t][0]]
            read += offset(place, inner, strides[terms[t][0]], False)
            value = tl.load(read, mask=inside, other=0.0).to(wide)
            sums += tl.where(at == terms[t][3], tl.sum(value * given), 0.0)
        tl.store(partial + start * number + at, sums)


def forward(
    sources: Sequence[Tensor],
    weights: Tensor,
    terms: Sequence[tuple[int, int, int, int]],
    number: int,
    channels: int,
    kind: torch.dtype,
) -> list[Tensor]:
    """Weighted sums of blocks of channels (see `nas.oneshot.relaxed.sums.spread`), in the layout of the first source.

    Args:
        sources: each (batch, blocks * channels, ...).
        weights: (weights,).
        terms: source, block, sum and weight of each.
        number: of the sums.
        channels: of a block.
        kind: of the sums.
    """
    totals = [torch.empty_like(sources[0].narrow(1, 0, channels), dtype=kind) for _ in range(number)]
    size = totals[0].numel()
    if size:
        (totals, sources), strides, inner = _laid([totals, sources], channels)
        _forward_kernel[(triton.cdiv(size, BLOCK),)](
            tuple(totals),
            tuple(sources),
            strides[len(totals) :],
            _steps(sources, channels),
            weights,
            inner,
            size,
            terms=tuple(terms),
            block=BLOCK,
            wide=accumulator(kind),
            long=is_long(totals[0]),
            enable_fp_fusion=True,
        )
    return totals


def backward(
    gradients: Sequence[Tensor],
    sources: Sequence[Tensor],
    weights: Tensor,
    terms: Sequence[tuple[int, int, int, int]],
    needed: Sequence[bool],
) -> list[Tensor]:
    """The gradients of the sources, each as large as its source, and of the weights; empty where not needed."""
    channels, size = gradients[0].shape[1], gradients[0].numel()
    if not size:
        made = [torch.empty_like(source) for source in sources]
        return [*made, torch.zeros_like(weights)]
    wanted = [source for source, need in zip(sources, needed[:-1], strict=True) if need]
    (gradients, sources, made), strides, inner = _laid(
        [gradients, sources, [torch.empty_like(source) for source in wanted]], channels
    )
    programs, number = triton.cdiv(size, BLOCK), triton.next_power_of_2(len(weights))
    wide = accumulator(torch.promote_types(gradients[0].dtype, sources[0].dtype))
    partial = torch.empty(
        (programs, number), device=weights.device, dtype=torch.float64 if wide == tl.float64 else torch.float32
    )
    # Where no gradient is needed something has to stand.
    left, all_made = iter(zip(made, strides[len(gradients) + len(sources) :], strict=True)), []
    for source, need in zip(sources, needed[:-1], strict=True):
        all_made.append(next(left) if need else (source.new_empty(0), 0))
    _backward_kernel[(programs,)](
        tuple(gradients),
        strides[: len(gradients)],
        tuple(sources),
        strides[len(gradients) : len(gradients) + len(sources)],
        _steps(sources, channels),
        weights,
        tuple(tensor for tensor, _ in all_made),
        tuple(stride for _, stride in all_made),
        tuple(channels * tensor.stride(1) if tensor.dim() > 1 else 0 for tensor, _ in all_made),
        partial,
        inner,
        size,
        terms=tuple(terms),
        blocks=tuple(source.shape[1] // channels for source in sources),
        number=number,
        block=BLOCK,
        wide=wide,
        needed=sum(bool(need) << i for i, need in enumerate(needed)),
        long=is_long(gradients[0]),
        enable_fp_fusion=True,
    )
    of_weights = partial.sum(0)[: len(weights)].to(weights.dtype) if needed[-1] else weights.new_empty(0)
    return [*(tensor for tensor, _ in all_made), of_weights]


def _steps(sources: Sequence[Tensor], channels: int) -> tuple[int, ...]:
    return tuple(channels * source.stride(1) for source in sources)


def _laid(lists: Sequence[Sequence[Tensor]], channels: int) -> tuple[list[list[Tensor]], tuple[int, ...], int]:
    """Tensors of some blocks of channels each, as rows of one length, in the order of the first: copied if need be.

    Returns:
        The tensors, the distances of the rows of all of them, and the length of a row.
    """
    shape = (lists[0][0].shape[0], channels, *lists[0][0].shape[2:])
    every = [tensor for tensors in lists for tensor in tensors]
    for again in (every, None):
        found = as_rows(shape, tuple(tensor.stride() for tensor in every))
        if found is not None:
            break
        assert again is not None
        last = every[0].dim() == 4 and every[0].stride(1) == 1 and channels > 1
        layout = torch.channels_last if last else torch.contiguous_format
        every = [tensor.contiguous(memory_format=layout) for tensor in every]
    assert found is not None
    strides, inner = found
    left = iter(every)
    return [[next(left) for _ in tensors] for tensors in lists], strides, inner
