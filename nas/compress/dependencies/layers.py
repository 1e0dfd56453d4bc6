"""What the operators that layers are made of do with labels: products, convolutions, norms, tables."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nas.compress.dependencies.labels import Block, Labels
from nas.compress.dependencies.operators import FIXED, Call, aligned


def products(call: Call) -> Sequence[Labels]:
    """Products of matrices, with or without something that is added."""
    names = [name for name in call.values if isinstance(call.values[name], Tensor)]
    one, other = (call.values[name] for name in names[-2:])
    batch, algebra = one.dim() - 2, call.algebra
    lead = {d: d for d in range(batch)}
    left = algebra.moved(call.labels(one), {**lead, batch: batch, batch + 1: batch + 1})
    right = algebra.moved(call.labels(other), {**lead, batch: batch + 1, batch + 1: batch + 2})
    every = [True] * batch
    shape = [*one.shape, other.shape[-1]]
    met = algebra.met(
        [(left, [*every, True, True, False]), (right, [*every, False, True, True])], shape, "it reads a fixed length"
    )
    found = algebra.reduced(met, [batch + 1])
    found = algebra.moved(found, {**lead, batch: batch, batch + 2: batch + 1})
    algebra.made += [block.lines for block in call.labels(other) if block.dims == (batch + 1,)]
    if len(names) > 2:
        size = list(call.outputs[0].shape)
        added = aligned(call, [call.values[names[0]]], size)
        found = algebra.met([(found, [True] * len(size)), *added], size, FIXED)
    return [found]


def convolves(call: Call) -> Sequence[Labels]:
    """A convolution of any kind."""
    algebra, values = call.algebra, call.values
    x, weight, bias, groups = values["input"], values["weight"], values["bias"], int(values["groups"])
    rows, columns = (1, 0) if values["transposed"] else (0, 1)
    kernel = range(2, weight.dim())
    wide = [block for block in call.labels(weight) if not set(block.dims) & set(kernel)]
    algebra.settle(call.labels(weight), kernel, "its kernel")
    read = algebra.settle(call.labels(x), [d for d in range(x.dim()) if d != 1], "a convolution moves along them")
    size = [1, x.shape[1]]
    if groups == 1:
        source = algebra.moved(tuple(b for b in wide if b.dims == (columns,)), {columns: 1})
        algebra.met([(read, [False, True]), (source, [False, True])], size, "it reads a fixed number of channels")
        made = algebra.moved(tuple(b for b in wide if b.dims == (rows,)), {rows: 1})
    else:
        made = _grouped(call, read, weight, groups, transposed=bool(values["transposed"]))
    algebra.made += [block.lines for block in made]
    if isinstance(bias, Tensor):
        n = call.outputs[0].shape[1]
        both = [(made, [False, True]), (algebra.moved(call.labels(bias), {0: 1}), [False, True])]
        made = algebra.met(both, [1, n], FIXED)
    return [made]


def _grouped(call: Call, read: Labels, weight: Tensor, groups: int, *, transposed: bool) -> Labels:
    """Whole groups stay or go: what they read, and what they make."""
    algebra, units = call.algebra, call.algebra.units
    reason = "it is shared by the groups of a convolution"
    algebra.settle(call.labels(weight), [1], reason)
    n = call.outputs[0].shape[1]
    found = next((block.lines for block in call.labels(weight) if block.dims == (0,)), None)
    source = next((block.lines for block in read if block.dims == (1,)), None)
    if found is None or source is None:
        algebra.fix([*read, *call.labels(weight)], "a convolution with groups reads a fixed number of channels")
        return ()
    by_group = found.reshape(groups, -1)
    units.tie_along(by_group, (1,))
    units.tie_along(source.reshape(groups, -1), (1,))
    units.tie(by_group[:, 0], source.reshape(groups, -1)[:, 0])
    return (Block((1,), by_group[:, 0].repeat(n // groups) if transposed or len(found) != n else found),)


def normalises(call: Call) -> Sequence[Labels]:
    """A norm over the last dimensions."""
    values = call.values
    x, last = values["input"], len(values["normalized_shape"])
    dims, found = set(range(x.dim() - last, x.dim())), []
    for block in call.labels(x):
        inside = set(block.dims) <= dims
        left = block if inside else call.algebra.whole(block, dims)
        assert left is not None
        found.append(left)
    shape = list(x.shape)
    operands = [(tuple(found), [True] * x.dim()), *aligned(call, [values.get("weight"), values.get("bias")], shape)]
    return [call.algebra.met(operands, shape, FIXED), *[()] * (len(call.outputs) - 1)]


def norms_channels(call: Call) -> Sequence[Labels]:
    """A norm with parameters for each channel, over groups of channels or over each by itself."""
    values, algebra = call.values, call.algebra
    x, n = values["input"], values["input"].shape[1]
    labels = algebra.settle(call.labels(x), [d for d in range(x.dim()) if d != 1], "they are normalised")
    groups = int(values.get("group", 1))
    if 1 < groups < n:
        for block in labels:
            algebra.units.tie_along(block.lines.reshape(groups, -1), (1,))
    operands: list[tuple[Labels, Sequence[bool]]] = [(labels, [False, True])]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(values.get(name), Tensor):
            operands.append((algebra.moved(call.labels(values[name]), {0: 1}), [False, True]))
    return [algebra.met(operands, [1, n], FIXED), *[()] * (len(call.outputs) - 1)]


def embeds(call: Call) -> Sequence[Labels]:
    """Rows of a table."""
    table, algebra = call.values["weight"], call.algebra
    labels = algebra.settle(call.labels(table), [0], "its rows are picked by an index")
    algebra.fix(call.labels(call.values["indices"]), "it is an index")
    algebra.made += [block.lines for block in labels]
    return [algebra.moved(labels, {0: 0, 1: call.outputs[0].dim() - 1})]


def gates(call: Call) -> Sequence[Labels]:
    """One half times the sigmoid of the other."""
    dim, labels = call.dims()[0], call.labels(call.first)
    half = call.first.shape[dim] // 2
    parts = [call.algebra.sliced(labels, dim, slice(at, at + half)) for at in (0, half)]
    full = [True] * call.first.dim()
    return [call.algebra.met([(part, full) for part in parts], call.outputs[0].shape, FIXED)]


def shuffles(call: Call) -> Sequence[Labels]:
    """Neighbouring channels become neighbouring pixels."""
    x, factor = call.first, int(call.values["upscale_factor"]) ** 2
    dim = x.dim() - 3
    labels = call.algebra.settle(call.labels(x), [d for d in range(x.dim()) if d != dim], "they are resampled")
    found = []
    for block in labels:
        found.append(Block((dim,), call.algebra.units.tie_along(block.lines.reshape(-1, factor), (1,))))
    return [tuple(found)]
