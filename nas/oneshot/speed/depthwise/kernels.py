"""The kernels of depthwise convolutions for CUDA, in Triton: of images whose channels lie together in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from nas.oneshot.speed.depthwise.together import Shape

_TILE = 1024
"""Numbers that a program holds."""
_PROGRAMS = 4096
"""That the gradients of the weights are summed by, as far as they are large."""

_FAR = 2**30
"""From where on places are counted in 64 bits: half of what 32 hold, as those beyond the last are counted too."""

_SIZES = ["height", "width", "out_height", "out_width", "places", "each", "per"]
"""For which no kernel of its own is compiled: one serves all numbers of chains and channels and all sizes of images."""

# Annotations of the kernels are read by Triton, which knows none but its own; Triton 3.6 takes what stands in a tuple
# for a constant only where it is said again. A window is (kernel height and width, padding, dilation), and has `counts`
# channels, of `per` tiles at most.


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _forward_kernel(  # type: ignore[no-untyped-def]
    made,
    source,
    strides,
    weights,
    height,
    width,
    out_height,
    out_width,
    places,
    per,
    counts,
    channels,
    every,
    windows: tl.constexpr,
    stride_high: tl.constexpr,
    stride_wide: tl.constexpr,
    shared: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    wide: tl.constexpr,
    long: tl.constexpr,
) -> None:
    start = tl.program_id(0)
    if long:
        start = start.to(tl.int64)
    place = start * rows + tl.arange(0, rows)
    image = place // (out_height * out_width)
    y = place // out_width % out_height
    x = place % out_width
    tile = tl.program_id(1)
    offset = tile * 0
    for i in tl.static_range(len(windows)):
        if tile // per == i:
            channel = tile % per * columns + tl.arange(0, columns)
            there = channel < counts[i]
            read = channel % channels if shared else offset + channel
            base = source + (image * strides[0])[:, None] + read[None, :]
            found = tl.zeros([rows, columns], dtype=wide)
            for p in tl.static_range(tl.constexpr(windows[i][0])):
                for q in tl.static_range(tl.constexpr(windows[i][1])):
                    row = y * stride_high - windows[i][2] + p * windows[i][4]
                    column = x * stride_wide - windows[i][3] + q * windows[i][5]
                    inside = (place < places) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
                    at = row * strides[1] + column * strides[2]
                    value = tl.load(base + at[:, None], mask=inside[:, None] & there[None, :], other=0.0)
                    tap = p * windows[i][1] + q
                    weight = tl.load(
                        weights[i] + channel * (windows[i][0] * windows[i][1]) + tap, mask=there, other=0.0
                    )
                    found += value.to(wide) * weight.to(wide)[None, :]
            write = made + (place * every)[:, None] + (offset + channel)[None, :]
            tl.store(write, found.to(made.dtype.element_ty), mask=(place < places)[:, None] & there[None, :])
        offset += counts[i]


@triton.jit  # type: ignore[untyped-decorator]
def _gathered(  # type: ignore[no-untyped-def]
    found,
    gradient,
    strides,
    weight,
    image,
    y,
    x,
    inside,
    out_height,
    out_width,
    channel,
    there,
    offset,
    window: tl.constexpr,
    stride_high: tl.constexpr,
    stride_wide: tl.constexpr,
    wide: tl.constexpr,
):
    """What a tile of an input gets from the outputs of a window that have read it."""
    start = gradient + (image * strides[0])[:, None] + (offset + channel)[None, :]
    for p in tl.static_range(tl.constexpr(window[0])):
        for q in tl.static_range(tl.constexpr(window[1])):
            row = y + window[2] - p * window[4]
            column = x + window[3] - q * window[5]
            reads = inside & (row >= 0) & (column >= 0)
            if stride_high > 1:
                reads = reads & (row % stride_high == 0)
                row = row // stride_high
            if stride_wide > 1:
                reads = reads & (column % stride_wide == 0)
                column = column // stride_wide
            reads = reads & (row < out_height) & (column < out_width)
            at = row * strides[1] + column * strides[2]
            value = tl.load(start + at[:, None], mask=reads[:, None] & there[None, :], other=0.0)
            tap = p * window[1] + q
            share = tl.load(weight + channel * (window[0] * window[1]) + tap, mask=there, other=0.0)
            found += value.to(wide) * share.to(wide)[None, :]
    return found


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _to_source_kernel(  # type: ignore[no-untyped-def]
    made,
    gradient,
    strides,
    weights,
    height,
    width,
    out_height,
    out_width,
    places,
    per,
    counts,
    channels,
    every,
    windows: tl.constexpr,
    stride_high: tl.constexpr,
    stride_wide: tl.constexpr,
    shared: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    wide: tl.constexpr,
    long: tl.constexpr,
) -> None:
    start = tl.program_id(0)
    if long:
        start = start.to(tl.int64)
    place = start * rows + tl.arange(0, rows)
    inside = place < places
    image = place // (height * width)
    y = place // width % height
    x = place % width
    tile = tl.program_id(1)
    offset = tile * 0
    if shared:
        own = tile * columns + tl.arange(0, columns)
        there = own < channels
        found = tl.zeros([rows, columns], dtype=wide)
        for i in tl.static_range(len(windows)):
            for chain in range(0, counts[i], channels):
                found = _gathered(
                    found, gradient, strides, weights[i], image, y, x, inside, out_height, out_width,
                    chain + own, there, offset, tl.constexpr(windows[i]), stride_high, stride_wide, wide,
                )  # fmt: skip
            offset += counts[i]
        write = made + (place * channels)[:, None] + own[None, :]
        tl.store(write, found.to(made.dtype.element_ty), mask=inside[:, None] & there[None, :])
    else:
        for i in tl.static_range(len(windows)):
            if tile // per == i:
                channel = tile % per * columns + tl.arange(0, columns)
                exists = channel < counts[i]
                got = _gathered(
                    tl.zeros([rows, columns], dtype=wide), gradient, strides, weights[i], image, y, x, inside,
                    out_height, out_width, channel, exists, offset, tl.constexpr(windows[i]),
                    stride_high, stride_wide, wide,
                )  # fmt: skip
                write = made + (place * every)[:, None] + (offset + channel)[None, :]
                tl.store(write, got.to(made.dtype.element_ty), mask=inside[:, None] & exists[None, :])
            offset += counts[i]


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _to_weights_kernel(  # type: ignore[no-untyped-def]
    partial,
    gradient,
    gradient_strides,
    source,
    strides,
    height,
    width,
    out_height,
    out_width,
    places,
    each,
    per,
    counts,
    channels,
    every,
    windows: tl.constexpr,
    most: tl.constexpr,
    stride_high: tl.constexpr,
    stride_wide: tl.constexpr,
    shared: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    wide: tl.constexpr,
    long: tl.constexpr,
) -> None:
    # One program for some places, a tap and a tile of channels: the taps of the same places run next to each other.
    tile, part = tl.program_id(0) // most, tl.program_id(1)
    tap = tl.program_id(0) % most
    if long:
        part = part.to(tl.int64)
    offset, first = tile * 0, tile * 0
    for i in tl.static_range(len(windows)):
        if (tile // per == i) & (tap < windows[i][0] * windows[i][1]):
            p, q = tap // windows[i][1], tap % windows[i][1]
            channel = tile % per * columns + tl.arange(0, columns)
            there = channel < counts[i]
            read = channel % channels if shared else offset + channel
            found = tl.zeros([rows, columns], dtype=wide)
            for step in range(0, each, rows):
                place = part * each + step + tl.arange(0, rows)
                image = place // (out_height * out_width)
                y = place // out_width % out_height
                x = place % out_width
                row = y * stride_high - windows[i][2] + p * windows[i][4]
                column = x * stride_wide - windows[i][3] + q * windows[i][5]
                inside = (place < places) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
                mask = inside[:, None] & there[None, :]
                at = image * strides[0] + row * strides[1] + column * strides[2]
                value = tl.load(source + at[:, None] + read[None, :], mask=mask, other=0.0)
                at = image * gradient_strides[0] + y * gradient_strides[1] + x * gradient_strides[2]
                given = tl.load(gradient + at[:, None] + (offset + channel)[None, :], mask=mask, other=0.0)
                found += value.to(wide) * given.to(wide)
            write = partial + part * every + first + channel * (windows[i][0] * windows[i][1]) + tap
            tl.store(write, tl.sum(found, axis=0), mask=there)
        offset += counts[i]
        first += counts[i] * (windows[i][0] * windows[i][1])


def forward(source: Tensor, weights: Sequence[Tensor], shape: Shape) -> Tensor:
    """The outputs of all windows side by side (see `nas.oneshot.speed.depthwise.together`).

    Args:
        source: its channels lie together; a part of a wider tensor is read where it is.
        weights: of each window.
        shape: of the convolutions.
    """
    source = _together(source)
    batch, _, height, width = source.shape
    size = shape.size(height, width)
    counts, columns, rows = _tiles(shape)
    made = _empty(source, sum(counts), *size)
    per = triton.cdiv(max(counts), columns)
    places = batch * size[0] * size[1]
    _forward_kernel[(triton.cdiv(places, rows), per * len(counts))](
        made,
        source,
        _strides(source),
        tuple(weight.contiguous() for weight in weights),
        height,
        width,
        *size,
        places,
        per,
        counts,
        shape.channels,
        sum(counts),
        rows=rows,
        columns=columns,
        **_constants(shape, source, made),
    )
    return made


def to_source(gradient: Tensor, source: Tensor, weights: Sequence[Tensor], shape: Shape) -> Tensor:
    """The gradient of what is read, channels together."""
    gradient = _together(gradient)
    batch, channels, height, width = source.shape
    counts, columns, rows = _tiles(shape)
    made = _empty(source, channels, height, width)
    per = triton.cdiv(max(counts), columns)
    tiles = triton.cdiv(shape.channels, columns) if shape.shared else per * len(counts)
    places = batch * height * width
    _to_source_kernel[(triton.cdiv(places, rows), tiles)](
        made,
        gradient,
        _strides(gradient),
        tuple(weight.contiguous() for weight in weights),
        height,
        width,
        *gradient.shape[2:],
        places,
        per,
        counts,
        shape.channels,
        sum(counts),
        rows=rows,
        columns=columns,
        **_constants(shape, gradient, made),
    )
    return made


def to_weights(gradient: Tensor, source: Tensor, weights: Sequence[Tensor], shape: Shape) -> Tensor:
    """The gradients of the weights, one behind the other."""
    gradient, source = _together(gradient), _together(source)
    counts, columns, rows = _tiles(shape)
    batch, _, out_height, out_width = gradient.shape
    places = batch * out_height * out_width
    taps = [window.kernel[0] * window.kernel[1] for window in shape.windows]
    every = sum(count * number for count, number in zip(counts, taps, strict=True))
    per = triton.cdiv(max(counts), columns)
    programs = per * len(counts) * max(taps)
    parts = max(1, min(triton.cdiv(places, 4 * rows), triton.cdiv(_PROGRAMS, programs)))
    each = triton.cdiv(triton.cdiv(places, parts), rows) * rows
    parts = triton.cdiv(places, each)
    kind = torch.float64 if gradient.dtype == torch.float64 else torch.float32
    partial = torch.empty((parts, every), dtype=kind, device=gradient.device)
    _to_weights_kernel[(programs, parts)](
        partial,
        gradient,
        _strides(gradient),
        source,
        _strides(source),
        *source.shape[2:],
        out_height,
        out_width,
        places,
        each,
        per,
        counts,
        shape.channels,
        every,
        most=max(taps),
        rows=rows,
        columns=columns,
        **_constants(shape, gradient, source, partial),
    )
    return partial.sum(0, dtype=kind).to(weights[0].dtype)


def _together(tensor: Tensor) -> Tensor:
    """With its channels one next to the other, copied if need be."""
    return tensor if tensor.stride(1) == 1 else tensor.contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    size = (like.shape[0], channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _strides(tensor: Tensor) -> tuple[int, int, int]:
    """Of image, row and column."""
    return tensor.stride(0), tensor.stride(2), tensor.stride(3)


def _tiles(shape: Shape) -> tuple[tuple[int, ...], int, int]:
    """The channels of each window, and how many channels and places are a tile."""
    counts = tuple(window.chains * shape.channels for window in shape.windows)
    widest = shape.channels if shape.shared else max(counts)
    columns = min(32, triton.next_power_of_2(widest))
    return counts, columns, _TILE // columns


def _constants(shape: Shape, *tensors: Tensor) -> dict[str, Any]:
    """What a kernel is compiled for.

    Args:
        shape: of the convolutions.
        *tensors: what it reads and writes.
    """
    reach = max(sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) for t in tensors)
    windows = ((*w.kernel, *w.padding, *w.dilation) for w in shape.windows)
    return {
        "windows": tuple(windows),
        "stride_high": shape.stride[0],
        "stride_wide": shape.stride[1],
        "shared": int(shape.shared),
        "wide": tl.float64 if tensors[0].dtype == torch.float64 else tl.float32,
        "long": reach >= _FAR,
        "enable_fp_fusion": True,
    }
