"""All tensors that an object leads to, wherever they are kept: modules, plain attributes, containers, closures."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from torch import Tensor

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, CodeType, FrameType, BuiltinFunctionType)
"""What leads nowhere, or to the whole program."""


def reachable_tensors(
    *roots: object, leave: Callable[[object], bool] = lambda found: False
) -> Iterator[tuple[str, Tensor]]:
    """The tensors that objects lead to, each once, with the way to it; their gradients too.

    Every reference is followed that Python's garbage collector knows: attributes, items of containers, what functions
    remember, what hooks are bound to. What a function reads from its module, classes and weak references are not.

    Args:
        *roots: any objects.
        leave: says which objects are not looked into.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(1, 1)
        >>> constant = torch.ones(1)
        >>> def adds(number):
        ...     return lambda module, inputs, output: output + number
        >>> hook = layer.register_forward_hook(adds(constant))
        >>> [way.rpartition(".")[2] for way, tensor in reachable_tensors(layer) if tensor is constant]
        ["<lambda>'s number"]
        >>> len(list(reachable_tensors(layer)))
        3
    """
    seen: dict[int, object] = {}  # kept, so that no two have one id
    waiting: deque[tuple[str, object]] = deque((type(root).__name__, root) for root in roots)
    while waiting:
        way, found = waiting.popleft()
        if isinstance(found, _PLAIN) or id(found) in seen or leave(found):
            continue
        seen[id(found)] = found
        if isinstance(found, Tensor):
            yield way, found
        waiting.extend((way + step, each) for step, each in _references(found))


def _references(found: Any) -> Iterator[tuple[str, object]]:
    """What an object leads to, and what to call the step."""
    if isinstance(found, Tensor):
        if found.is_leaf and found.grad is not None:
            yield ".grad", found.grad
        yield from ((f".{name}", each) for name, each in vars(found).items())
    elif isinstance(found, FunctionType):  # not its module, which the collector would name too
        cells = zip(found.__code__.co_freevars, found.__closure__ or (), strict=True)
        for name, cell in cells:
            try:
                yield f".{found.__name__}'s {name}", cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        yield from ((f".{found.__name__}'s default", each) for each in found.__defaults__ or ())
        yield from ((f".{found.__name__}'s {name}", each) for name, each in (found.__kwdefaults__ or {}).items())
        yield from ((f".{name}", each) for name, each in vars(found).items())
    elif isinstance(found, dict):
        for key, each in found.items():
            yield f"[{type(key).__name__} as key]", key
            yield f"[{key!r}]" if isinstance(key, str | int) else f"[{type(key).__name__}]", each
    elif isinstance(found, list | tuple | set | frozenset | deque):
        yield from ((f"[{position}]", each) for position, each in enumerate(found))
    else:
        own = getattr(found, "__dict__", None)
        named = own if isinstance(own, dict) else {}
        yield from ((f".{name}", each) for name, each in named.items())
        yield from ((f".({type(each).__name__})", each) for each in gc.get_referents(found) if each is not own)
