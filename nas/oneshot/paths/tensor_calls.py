"""Calls of torch's functions, and which dimensions become which when they reshape a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor

from nas.oneshot.paths.slicing import Shape


@final
@dataclass(frozen=True, slots=True)
class TensorCall:
    """Of a function."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    tensors: list[Tensor] = field(default_factory=list)

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


def reshaped(call: TensorCall, inputs: Tensor, out: Tensor) -> list[tuple[list[int], list[int]]]:
    """Which dimensions became which."""
    if call.name not in ("flatten", "unflatten"):
        return _matched(tuple(inputs.shape), tuple(out.shape))
    named = ("start_dim", 0) if call.name == "flatten" else ("dim", 0)
    start = int(call.get(1, *named)) % max(inputs.dim(), 1)
    stop = int(call.get(2, "end_dim", -1)) % max(inputs.dim(), 1) if call.name == "flatten" else start
    grown = out.dim() - inputs.dim()
    whole = [([d], [d]) for d in range(start)]
    whole.append(([*range(start, stop + 1)], [*range(start, stop + grown + 1)]))
    return whole + [([d], [d + grown]) for d in range(stop + 1, inputs.dim())]


def _matched(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Which dimensions became which in a reshape; those of length 1 go with the one before them."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        mine, other = [i], [j]
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right and (i < len(before) if left < right else j < len(after)):
            if left < right:
                left *= before[i]
                mine.append(i)
                i += 1
            else:
                right *= after[j]
                other.append(j)
                j += 1
        while i < len(before) and before[i] == 1:
            mine.append(i)
            i += 1
        while j < len(after) and after[j] == 1:
            other.append(j)
            j += 1
        groups.append((mine, other))
    return groups
