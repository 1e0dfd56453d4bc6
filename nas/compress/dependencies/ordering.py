"""Reordering channels and heads in place: nothing changes in what a model computes, which is also how it is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.compress.dependencies.groups import Groups
from nas.compress.dependencies.tracing import named_tensors, returned
from nas.example_inputs import Inputs
from nas.random_state import untouched

_ALIKE = 1e-3
"""Of the largest number of an output; a channel in a wrong place changes outputs by far more."""


def reorder(model: nn.Module, groups: Groups, orders: Sequence[Tensor]) -> None:
    """Puts channels and heads into another order, everywhere at once.

    Args:
        model: changed in place.
        groups: of it.
        orders: for each group, which one comes first, second, ...
    """
    tensors = named_tensors(model)
    with torch.no_grad():
        for (name, dim), line in groups.lines.items():
            index = torch.arange(len(line.owner))
            for number in sorted(set(line.owner[line.owner >= 0].tolist())):
                places = groups.positions(number, (name, dim))
                index[places] = places[orders[number]]
            tensor = tensors[name]
            tensor.copy_(tensor.index_select(dim, index.to(tensor.device)))


def _unlike(model: nn.Module, groups: Groups) -> None:
    """Gives a model other numbers, no two alike, so that nothing can hide behind ones and zeros."""
    generator = torch.Generator().manual_seed(1)
    lined = {name for name, _ in groups.lines}
    with torch.no_grad():
        for name, tensor in named_tensors(model).items():
            if not tensor.is_floating_point():
                continue
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            if not isinstance(tensor, nn.Parameter):
                if name in lined:
                    tensor.add_(0.3 * noise)
            elif tensor.dim() < 2:
                tensor.add_(noise - 0.5)
            else:
                tensor.add_((noise - 0.5) * 3 / max(1.0, tensor[0].numel()) ** 0.5)


def wrongly_ordered(make: Callable[[], nn.Module], inputs: Inputs, groups: Groups) -> dict[str, str]:
    """Groups whose channels cannot change places, though their trace says so: the label of each, with the reason.

    Args:
        make: makes a copy of the model, with numbers.
        inputs: with numbers, on the device of the copies.
        groups: of it.
    """
    if not groups.groups:
        return {}
    generator = torch.Generator().manual_seed(2)
    shuffled = [torch.randperm(group.size, generator=generator) for group in groups.groups]
    straight = [torch.arange(group.size) for group in groups.groups]
    try:
        outputs = _outputs(make, inputs, groups, straight, double=True)
        double = True
    except Exception:  # a model that mixes in tensors of a fixed dtype
        outputs = _outputs(make, inputs, groups, straight, double=False)
        double = False

    def wrong(numbers: Sequence[int]) -> list[int]:
        orders = [shuffled[n] if n in set(numbers) else straight[n] for n in range(len(straight))]
        if not numbers or _alike(outputs, _outputs(make, inputs, groups, orders, double=double)):
            return []
        if len(numbers) == 1:
            return list(numbers)
        half = len(numbers) // 2
        return [*wrong(numbers[:half]), *wrong(numbers[half:])] or list(numbers)  # right alone, and wrong together

    reason = "the model computes something else when its channels change places"
    return {groups.groups[number].label: reason for number in wrong(range(len(straight)))}


def _outputs(
    make: Callable[[], nn.Module], inputs: Inputs, groups: Groups, orders: Sequence[Tensor], *, double: bool
) -> list[Tensor]:
    model = make().eval()
    if double:
        model = model.double()
        inputs = inputs.converted(lambda t: t.double() if t.is_floating_point() else t.clone())
    _unlike(model, groups)
    reorder(model, groups, orders)
    args, kwargs = inputs.arguments_for(model)
    with untouched(), torch.no_grad():
        return [tensor.double() for tensor in returned(model(*args, **kwargs))]


def _alike(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    def close(a: Tensor, b: Tensor) -> Any:
        return a.shape == b.shape and bool(((a - b).abs() <= _ALIKE * a.abs().max()).all())

    return len(some) == len(others) and all(close(a, b) for a, b in zip(some, others, strict=True))
