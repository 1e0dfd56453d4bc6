"""Where in the largest tensor of a parameter or buffer the tensor of a smaller layer lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import Convolution, NormBase, TransposedConvolution, own_buffers, own_parameters
from nas.errors import NasTypeError, NasValueError, explain

Shape: TypeAlias = tuple[int, ...]
Index: TypeAlias = slice | Tensor
Region: TypeAlias = tuple[Index, ...]
"""What a tensor is indexed with: a slice for each dimension, or tensors that broadcast to the smaller shape."""


class Slicer(Protocol):
    """Says where the tensor of a smaller layer lies."""

    def __call__(
        self, module: nn.Module, name: str, small: Shape, full: Shape, full_module: nn.Module | None
    ) -> Region:
        """One index for each dimension.

        Args:
            module: the smaller layer.
            name: of its tensor: "weight".
            small, full: the two shapes.
            full_module: a layer whose tensor has the full shape, where there is one.
        """


_SLICERS: dict[type[nn.Module], Slicer] = {}


def register_slicer(*classes: type[nn.Module]) -> Callable[[Slicer], Slicer]:
    """Says how the tensors of layers are sliced that pack several in one; subclasses inherit it.

    Raises:
        NasValueError: a class that has a slicer already.
        NasTypeError: no module class.

    Example:
        >>> class Gated(nn.Module):  # two matrices in one
        ...     def __init__(self, width: int) -> None:
        ...         super().__init__()
        ...         self.weight = nn.Parameter(torch.zeros(2 * width, 4))
        >>> @register_slicer(Gated)
        ... def gated(module, name, small, full, full_module):
        ...     return block((2, small[0] // 2), (2, full[0] // 2)), slice(0, small[1])
        >>> region(Gated(2), "weight", (6, 4))[0]
        tensor([0, 1, 3, 4])
    """

    def register(slicer: Slicer) -> Slicer:
        for cls in classes:
            if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
                raise NasTypeError(explain("a slicer is registered for nn.Module classes", got=cls))
            if cls in _SLICERS:
                raise NasValueError(explain("a class has one slicer", got=cls.__qualname__))
            _SLICERS[cls] = slicer
        return slicer

    return register


def region(
    module: nn.Module,
    name: str,
    full_shape: Sequence[int],
    *,
    full_module: nn.Module | None = None,
    parts: Mapping[int, Index] | None = None,
) -> Region:
    """Where in a tensor of the full shape the tensor of a smaller layer lies.

    Channels are the leading ones, kernels are cropped around their centre, and classes with a slicer of their own are
    asked (`register_slicer`): attention and recurrent layers, which pack several matrices in one, have one.

    Args:
        module: the smaller layer, which owns the tensor.
        name: of its parameter or buffer: "weight".
        full_shape: of the larger tensor.
        full_module: a layer whose tensor has the full shape; needed where the number of groups differs.
        parts: dimension -> the index along it, where more is known about what lies there: behind a concatenation.

    Returns:
        An index for each dimension: `large[region(...)]` has the smaller shape.

    Raises:
        NasValueError: the smaller tensor is no part of the larger one.

    Example:
        >>> region(nn.Conv2d(2, 4, 3), "weight", (8, 2, 5, 5))
        (slice(0, 4, None), slice(0, 2, None), slice(1, 4, None), slice(1, 4, None))
    """
    tensor: Tensor | None = own_parameters(module).get(name)
    tensor = own_buffers(module).get(name) if tensor is None else tensor
    full, where = tuple(full_shape), f"{name!r} of {type(module).__name__}"
    if tensor is None:
        raise NasValueError(explain("no such parameter or buffer", got=name, where=type(module).__name__))
    small = tuple(tensor.shape)
    if len(small) != len(full) or any(n > most for n, most in zip(small, full, strict=True)):
        raise NasValueError(explain(f"a tensor of shape {small} is no part of one of {full}", where=where))
    slicer = next((_SLICERS[cls] for cls in type(module).__mro__ if cls in _SLICERS), None)
    if small == full and not isinstance(module, Convolution):
        found: Region = leading(small)
    elif slicer is None:
        found = leading(small)
    else:
        found = slicer(module, name, small, full, full_module)
    if parts:
        found = tuple(parts.get(dim, index) for dim, index in enumerate(found))
    return as_mesh(found, full)


def leading(shape: Shape) -> Region:
    """The leading part along every dimension."""
    return tuple(slice(0, n) for n in shape)


def block(small: Shape, full: Shape, start: int = 0) -> Index:
    """Where the leading block of a grid lies when both are flattened to one dimension.

    Args:
        small, full: lengths along each axis of the grid.
        start: of the grid in the dimension.

    Example:
        >>> block((2, 2), (2, 3)), block((2, 3), (4, 3))
        (tensor([0, 1, 3, 4]), slice(0, 6, None))
    """
    # Axes that are whole move as one with the axis before them.
    while len(small) > 1 and small[-1] == full[-1]:
        small, full = (*small[:-2], small[-2] * small[-1]), (*full[:-2], full[-2] * full[-1])
    if prod(small[:-1]) == 1:
        return slice(start, start + small[-1])
    grid = torch.arange(start, start + prod(full), device="cpu").reshape(full)
    return grid[tuple(slice(0, n) for n in small)].flatten()


def as_mesh(found: Region, full: Shape) -> Region:
    """The same region as torch can index with it: where several indices are tensors, all are, and they broadcast."""
    if sum(isinstance(index, Tensor) for index in found) < 2 or any(
        isinstance(index, Tensor) and index.dim() > 1 for index in found
    ):
        return found
    lines = [
        torch.arange(full[dim], device="cpu")[index] if isinstance(index, slice) else index
        for dim, index in enumerate(found)
    ]
    return tuple(line.reshape([-1 if d == dim else 1 for d in range(len(lines))]) for dim, line in enumerate(lines))


def is_whole(found: Region, full: Shape) -> bool:
    """Whether a region is all of the tensor, in its order."""
    return all(isinstance(index, slice) and index == slice(0, n) for index, n in zip(found, full, strict=True))


@register_slicer(Convolution)
def _convolution(module: nn.Module, name: str, small: Shape, full: Shape, full_module: nn.Module | None) -> Region:
    if name != "weight":
        return leading(small)
    assert isinstance(module, Convolution)
    kernel = tuple(slice((most - n) // 2, (most - n) // 2 + n) for n, most in zip(small[2:], full[2:], strict=True))
    channels = leading(small[:2])
    transposed = isinstance(module, TransposedConvolution)
    whole = full_module if isinstance(full_module, Convolution) else None
    groups = _full_groups(module, full, whole)
    if module.groups == 1 and groups == 1:
        return (*channels, *kernel)
    # Rows are outputs (transposed: inputs); a row reads (is read by) the columns of its group.
    per_group = (small[0] // module.groups, small[1])
    if groups is not None:
        full_per_group = (full[0] // groups, full[1])
        if per_group == full_per_group:
            return (*channels, *kernel)
        rows = torch.arange(small[0], device="cpu").unsqueeze(1)
        columns = (rows // per_group[0]) * small[1] + torch.arange(small[1], device="cpu").unsqueeze(0)
        columns = columns - (rows // full_per_group[0]) * full[1]
        if bool(((columns >= 0) & (columns < full[1])).all()):
            return _with_kernel(rows, columns, kernel, full)
    made, read = ("in", "out") if transposed else ("out", "in")
    raise NasValueError(
        explain(
            f"the groups of the smaller convolution do not lie in those of the larger: {module.groups} groups of "
            f"{per_group[0]} {made} and {per_group[1]} {read} channels in {_text(groups, full)}",
            where=f"{name!r} of {module}",
            mend="keep the channels of a group fixed (groups=width // 8), or the width fixed and let the numbers of "
            "groups divide each other, or make it a LayerChoice of whole layers",
        )
    )


def _full_groups(module: Convolution, full: Shape, whole: Convolution | None) -> int | None:
    """The number of groups of the larger convolution; None where it cannot be told."""
    if whole is not None and whole.weight is not None and tuple(whole.weight.shape) == full:
        return whole.groups
    if module.groups == 1:
        return 1
    rows = module.weight.shape[0] // module.groups
    return full[0] // rows if module.weight.shape[1] == full[1] and full[0] % rows == 0 else None


def _with_kernel(rows: Tensor, columns: Tensor, kernel: tuple[slice, ...], full: Shape) -> Region:
    ones = [1] * len(kernel)
    channels = [index.reshape([*index.shape, *ones]) for index in (rows, columns)]
    lines = [
        torch.arange(full[2 + dim], device="cpu")[index].reshape(
            [1, 1, *(-1 if d == dim else 1 for d in range(len(kernel)))]
        )
        for dim, index in enumerate(kernel)
    ]
    return (*channels, *lines)


def _text(groups: int | None, full: Shape) -> str:
    return "another number of them" if groups is None else f"{groups} of {full[0] // groups} and {full[1]}"


@register_slicer(nn.MultiheadAttention)
def _attention(module: nn.Module, name: str, small: Shape, full: Shape, full_module: nn.Module | None) -> Region:
    if name in ("in_proj_weight", "in_proj_bias"):
        return (block((3, small[0] // 3), (3, full[0] // 3)), *leading(small[1:]))
    return leading(small)


_GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}


@register_slicer(nn.RNNBase, nn.RNNCellBase)
def _recurrent(module: nn.Module, name: str, small: Shape, full: Shape, full_module: nn.Module | None) -> Region:
    kind = next((cls.__name__ for cls in type(module).__mro__ if cls.__name__ in _GATES), "")
    gates = _GATES.get(kind, 1)
    hr = name.startswith("weight_hr")
    found: list[Index] = [slice(0, small[0]) if hr else block((gates, small[0] // gates), (gates, full[0] // gates))]
    if len(small) > 1:
        # Layers above the first read both directions.
        both = name.startswith("weight_ih") and "_l0" not in name and getattr(module, "bidirectional", False)
        ways = 2 if both else 1
        found.append(block((ways, small[1] // ways), (ways, full[1] // ways)))
    return tuple(found)


def input_dimension(module: nn.Module, name: str) -> int | None:
    """Along which dimension of a tensor the channels lie that the layer reads; None where none or several are.

    Example:
        >>> input_dimension(nn.Linear(2, 3), "weight"), input_dimension(nn.Linear(2, 3), "bias")
        (1, None)
    """
    if isinstance(module, TransposedConvolution):
        return 0 if name == "weight" else None
    if isinstance(module, Convolution):
        if module.groups > 1:  # depthwise: what comes out lies as what goes in
            return 0 if module.groups == module.in_channels == module.out_channels else None
        return 1 if name == "weight" else None
    if isinstance(module, nn.Linear):
        return 1 if name == "weight" else None
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) - 1 if len(module.normalized_shape) == 1 else None
    if isinstance(module, NormBase | nn.GroupNorm | nn.PReLU):
        return None if name == "num_batches_tracked" else 0
    return None


def indexed(tensor: Tensor, found: Region) -> Tensor:
    """The part of a tensor that a region names: a view where all indices are slices."""
    place: Any = found
    part: Tensor = tensor[place]
    return part
