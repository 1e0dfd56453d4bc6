"""Functions that a module carries: hooks, and methods put in place by hand.

`copy.deepcopy` leaves functions as they are, so those of a copy would still reach the modules of the original.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import CellType, FunctionType
from typing import Any

from torch import Tensor, nn

from nas._compat.torch_internals import hook_dicts

Memo = dict[int, Any]
"""As `copy.deepcopy` takes it: what stands for which object, by its id."""


def rebind(twin: nn.Module, memo: Memo, *, everything: bool = False) -> nn.Module:
    """A copy whose functions hold on to what is the copy's.

    Args:
        twin: the copy.
        memo: of the copying.
        everything: whether they hold on to copies of all else too (of a dict that a hook fills, say).

    Example: a hook that adds what a module of the model makes of its input.
        >>> from nas.copying import copy_module
        >>> def adapted():
        ...     net = nn.Linear(2, 2)
        ...     net.adapter = adapter = nn.Linear(2, 2)
        ...     net.register_forward_hook(lambda module, inputs, output: output + adapter(inputs[0]))
        ...     return net
        >>> twin = copy_module(adapted())
        >>> (hook,) = twin._forward_hooks.values()
        >>> hook.__closure__[0].cell_contents is twin.adapter
        True
    """
    for place, key, function in list(_closures(twin)):
        if everything or _holds_tensors(function, set()):
            place[key] = _rebuilt(function, memo, everything)
    return twin


def _closures(model: nn.Module) -> Iterator[tuple[dict[Any, Any], Any, FunctionType]]:
    """Where functions that hold on to something stand: the dict, the key, the function."""
    for module in model.modules():
        places: list[dict[Any, Any]] = [vars(module), *hook_dicts(module)]
        for place in places:
            for key, value in place.items():
                if isinstance(value, FunctionType) and value.__closure__:
                    yield place, key, value


def _contents(function: FunctionType) -> Iterator[tuple[int, Any]]:
    """What a function holds on to, with its place."""
    for place, cell in enumerate(function.__closure__ or ()):
        try:
            yield place, cell.cell_contents
        except ValueError:  # nothing yet
            continue


def _holds_tensors(function: FunctionType, seen: set[int]) -> bool:
    """Whether it holds on to a module or a tensor, by itself or by another function."""
    if id(function) in seen:
        return False
    seen.add(id(function))
    return any(
        isinstance(held, nn.Module | Tensor) or (isinstance(held, FunctionType) and _holds_tensors(held, seen))
        for _, held in _contents(function)
    )


def _rebuilt(function: FunctionType, memo: Memo, everything: bool) -> FunctionType:
    """The function, with copies of what it holds on to."""
    if id(function) in memo:
        known: FunctionType = memo[id(function)]
        return known
    cells = tuple(CellType() for _ in function.__closure__ or ())
    twin = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    twin.__kwdefaults__ = function.__kwdefaults__
    vars(twin).update(vars(function))
    memo[id(function)] = twin
    for place, held in _contents(function):
        if isinstance(held, FunctionType) and held.__closure__:
            cells[place].cell_contents = _rebuilt(held, memo, everything)
        elif everything or isinstance(held, nn.Module | Tensor):
            cells[place].cell_contents = _copied(held, memo)
        else:
            cells[place].cell_contents = held
    return twin


def _copied(held: Any, memo: Memo) -> Any:
    try:
        return copy.deepcopy(held, memo)
    except Exception:  # A lock, a file: there is but one.
        return held
