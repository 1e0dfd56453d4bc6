"""What torch's operators do with the labels of tensors; what is not listed here may be thinned by nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from nas._compat.torch_internals import schema_of, tree_leaves
from nas.compress.dependencies.labels import Algebra, Block, Labels

FIXED = "it meets something whose length cannot change"


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One operator that was run."""

    algebra: Algebra
    name: str
    values: Mapping[str, Any]
    """The arguments by their names in torch's schema, defaults included."""
    outputs: Sequence[Tensor]
    labels: Callable[[Any], Labels]
    """Of a tensor; none of anything else."""

    @property
    def first(self) -> Tensor:
        """The first tensor among the arguments."""
        found: Tensor = next(value for value in tree_leaves(list(self.values.values())) if isinstance(value, Tensor))
        return found

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [value for value in tree_leaves(list(self.values.values())) if isinstance(value, Tensor)]

    def dims(self, name: str = "dim", *, of: Tensor | None = None) -> list[int]:
        """The dimensions that an argument names; all of them where it names none."""
        given, n = self.values.get(name), (self.first if of is None else of).dim()
        if given is None or (isinstance(given, list | tuple) and not given):
            return list(range(n))
        return [int(d) % max(n, 1) for d in (given if isinstance(given, list | tuple) else [given])]


Rule: TypeAlias = Callable[[Call], Sequence[Labels]]
"""Makes ties, and says what the labels of the outputs are."""


def arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an operator by name, defaults included."""
    named = {argument.name: argument for argument in schema_of(func).arguments}
    found = {name: argument.default_value for name, argument in named.items() if argument.has_default_value()}
    return {**found, **dict(zip(named, args, strict=False)), **kwargs}


# Element by element.


def aligned(call: Call, tensors: Iterable[Any], shape: Sequence[int]) -> list[tuple[Labels, Sequence[bool]]]:
    """Tensors as `Algebra.met` takes them, the last dimensions under each other."""
    found: list[tuple[Labels, Sequence[bool]]] = []
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or tensor.dim() > len(shape) or tensor.numel() == 1:
            continue
        ahead = len(shape) - tensor.dim()
        full = [d >= ahead and tensor.shape[d - ahead] == shape[d] for d in range(len(shape))]
        found.append((call.algebra.moved(call.labels(tensor), {d: d + ahead for d in range(tensor.dim())}), full))
    return found


def pointwise(call: Call) -> Sequence[Labels]:
    """Element by element, with broadcasting."""
    shape = list(call.outputs[0].shape) if call.outputs else []
    found = call.algebra.met(aligned(call, call.tensors, shape), shape, FIXED)
    return [found if list(output.shape) == shape else () for output in call.outputs]


def same(call: Call) -> Sequence[Labels]:
    """The tensor itself, or a copy."""
    return [call.labels(call.first)] * len(call.outputs)


def fresh(call: Call) -> Sequence[Labels]:
    """The same number everywhere: as long as whatever it meets."""
    return [_fresh(call, output) for output in call.outputs]


def _fresh(call: Call, output: Tensor) -> Labels:
    return tuple(Block((dim,), call.algebra.units.make(n)) for dim, n in enumerate(output.shape) if n > 1)


def like(call: Call) -> Sequence[Labels]:
    """The same number everywhere, in the shape of another tensor."""
    return same(call) if list(call.outputs[0].shape) == list(call.first.shape) else fresh(call)


# Other dimensions.


def views(call: Call) -> Sequence[Labels]:
    """Read in the same order with other dimensions."""
    first = call.first
    return [call.algebra.reshaped(call.labels(first), first.shape, output.shape) for output in call.outputs]


def permutes(call: Call) -> Sequence[Labels]:
    """Dimensions change places."""
    n = call.first.dim()
    order = list(range(n))
    if call.name == "permute":
        order = call.dims("dims")
    elif call.name in ("t", "t_"):
        order.reverse()
    else:
        a, b = int(call.values["dim0"]) % n, int(call.values["dim1"]) % n
        order[a], order[b] = b, a
    places = {before: after for after, before in enumerate(order)}
    return [call.algebra.moved(call.labels(call.first), places)]


def expands(call: Call) -> Sequence[Labels]:
    """Dimensions of length 1 become longer, and new ones stand before the others."""
    ahead = call.outputs[0].dim() - call.first.dim()
    return [call.algebra.moved(call.labels(call.first), {d: d + ahead for d in range(call.first.dim())})]


def restrides(call: Call) -> Sequence[Labels]:
    """The same numbers with other strides, where that is all."""
    output = call.outputs[0]
    if list(output.shape) != list(call.values["size"]) or not output.squeeze().is_contiguous():
        call.algebra.fix(call.labels(call.first), "its memory is read in another order")
        return [()]
    return views(call)


def unsqueezes(call: Call) -> Sequence[Labels]:
    """One more dimension of length 1."""
    new = int(call.values["dim"]) % (call.first.dim() + 1)
    return [call.algebra.moved(call.labels(call.first), {d: d + (d >= new) for d in range(call.first.dim())})]


def slices(call: Call) -> Sequence[Labels]:
    """Neighbours along a dimension."""
    dim, n = call.dims()[0], call.first.shape[call.dims()[0]]
    start, end, step = (call.values.get(name) for name in ("start", "end", "step"))
    if step not in (None, 1):
        return [call.algebra.settle(call.labels(call.first), [dim], "only some of them are taken")]
    return [call.algebra.sliced(call.labels(call.first), dim, slice(*slice(start, end, step).indices(n)))]


def selects(call: Call) -> Sequence[Labels]:
    """One index of a dimension, which is gone then."""
    dim = call.dims()[0]
    position = int(call.values["index"]) % call.first.shape[dim]
    return [call.algebra.picked(call.labels(call.first), dim, position)]


def unbinds(call: Call) -> Sequence[Labels]:
    """Every index of a dimension by itself."""
    dim = call.dims()[0]
    return [call.algebra.picked(call.labels(call.first), dim, i) for i in range(len(call.outputs))]


def splits(call: Call) -> Sequence[Labels]:
    """Neighbours along a dimension, one part after the other."""
    dim, start, found = call.dims()[0], 0, []
    for output in call.outputs:
        found.append(call.algebra.sliced(call.labels(call.first), dim, slice(start, start + output.shape[dim])))
        start += output.shape[dim]
    return found


def joins(call: Call) -> Sequence[Labels]:
    """A concatenation."""
    tensors = [tensor for tensor in call.tensors if tensor.numel()]
    dim = int(call.values.get("dim", 0)) % call.outputs[0].dim()
    labels, shapes = [call.labels(tensor) for tensor in tensors], [tensor.shape for tensor in tensors]
    if call.name == "stack":
        places = {d: d + (d >= dim) for d in range(tensors[0].dim())}
        labels = [call.algebra.moved(one, places) for one in labels]
        full = [d != dim for d in range(call.outputs[0].dim())]
        return [call.algebra.met([(one, full) for one in labels], call.outputs[0].shape, FIXED)]
    if not any(dim in block.dims for one in labels for block in one):
        full = [d != dim for d in range(call.outputs[0].dim())]
        return [call.algebra.met([(one, full) for one in labels], call.outputs[0].shape, FIXED)]
    return [call.algebra.joined(labels, shapes, dim, FIXED)]


def repeats(call: Call) -> Sequence[Labels]:
    """Tiles along dimensions."""
    output, first = call.outputs[0], call.first
    ahead, labels = output.dim() - first.dim(), call.labels(first)
    for dim in range(first.dim()):
        times = output.shape[dim + ahead] // max(first.shape[dim], 1)
        if times > 1 and any(dim in block.dims for block in labels):
            index = torch.arange(first.shape[dim], device="cpu").repeat(times).numpy()
            labels = call.algebra.sliced(labels, dim, index)
    return [call.algebra.moved(labels, {d: d + ahead for d in range(first.dim())})]


# Over dimensions.


def reduces(call: Call) -> Sequence[Labels]:
    """A sum, a mean, a largest number over dimensions."""
    dims = set(call.dims() if "dim" in call.values else range(call.first.dim()))
    labels = call.algebra.reduced(call.labels(call.first), dims)
    if call.outputs and call.outputs[0].dim() != call.first.dim():
        left = [d for d in range(call.first.dim()) if d not in dims]
        labels = call.algebra.moved(labels, {d: i for i, d in enumerate(left)})
    return [labels] * len(call.outputs)


def ordered(call: Call) -> Sequence[Labels]:
    """What asks for positions along a dimension: the largest one and where it is, a running sum."""
    dims = call.dims() if "dim" in call.values else list(range(call.first.dim()))
    labels = call.algebra.settle(call.labels(call.first), dims, f"torch's {call.name} depends on their order")
    if call.outputs[0].dim() != call.first.dim():
        left = [d for d in range(call.first.dim()) if d not in dims]
        labels = call.algebra.moved(labels, {d: i for i, d in enumerate(left)})
    return [labels] * len(call.outputs)


def softmaxes(call: Call) -> Sequence[Labels]:
    """A softmax along a dimension: the same for any order."""
    dims, found = set(call.dims()), []
    for block in call.labels(call.first):
        left = call.algebra.whole(block, dims) if len(block.dims) > 1 else block
        found.append(left if left is not None else block)
    return [tuple(found)] * len(call.outputs)


def spatial(call: Call) -> Sequence[Labels]:
    """What moves along the dimensions behind the channels: pooling, interpolation."""
    labels = call.algebra.settle(call.labels(call.first), range(2, call.first.dim()), "they are resampled")
    return [labels] * len(call.outputs)


def pads(call: Call) -> Sequence[Labels]:
    """Something is put around dimensions."""
    pad, n = list(call.values["pad"]), call.first.dim()
    dims = [n - 1 - i // 2 for i, length in enumerate(pad) if length]
    return [call.algebra.settle(call.labels(call.first), dims, "they are padded")]


def turns(call: Call) -> Sequence[Labels]:
    """Indices along dimensions change places."""
    dims = call.dims("dims")
    return [call.algebra.settle(call.labels(call.first), dims, f"torch's {call.name} changes their places")]


def triangles(call: Call) -> Sequence[Labels]:
    """The part above or below a diagonal of the last two dimensions."""
    n = call.first.dim()
    return [call.algebra.settle(call.labels(call.first), [n - 2, n - 1], "it is cut along a diagonal")]


def indexes(call: Call) -> Sequence[Labels]:
    """Indexing by tensors, along neighbouring dimensions."""
    first, reason = call.values["self"], "they are picked by an index"
    for index in call.tensors[1:]:
        call.algebra.fix(call.labels(index), "it is an index")
    if call.name == "index_select":
        return [call.algebra.settle(call.labels(first), call.dims(), reason)]
    given = [d for d, index in enumerate(call.values["indices"]) if index is not None]
    labels = call.algebra.settle(call.labels(first), given, reason)
    if any(isinstance(i, Tensor) and i.dtype == torch.bool for i in call.values["indices"]):
        call.algebra.fix(labels, reason)
        return [()]
    if given != list(range(given[0], given[-1] + 1)):
        call.algebra.fix(labels, reason)
        return [()]
    more = call.outputs[0].dim() - first.dim()
    return [call.algebra.moved(labels, {d: d + more * (d > given[-1]) for d in range(first.dim())})]
