"""Copies of modules, whoever made them: with all that they keep, or without numbers on the meta device."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas._compat.torch_internals import own_buffers, own_parameters, plain_attributes
from nas.copying.functions import Memo, rebind
from nas.errors import NasError, NasTypeError, explain

T = TypeVar("T")
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_DEEP = 6
"""So many objects inside one another are looked into for locks."""


def copy_module(model: nn.Module, memo: Memo | None = None, *, on_meta: bool = False) -> nn.Module:
    """A copy that shares nothing with the module, which is not touched. Tied tensors of it are tied in the copy.

    Tensors that were computed and kept (the weight under an old-style `weight_norm`, the last activation) become plain
    ones with the same numbers, and locks new locks.

    Args:
        model: the module.
        memo: what stands for objects that were copied before, and will for those that are now.
        on_meta: whether the tensors of the copy are on the meta device, so that no number is copied or allocated.

    Raises:
        NasTypeError: it keeps something that cannot be copied; the module and its attribute are named.

    Example:
        >>> net = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 5, bias=False))
        >>> net[1].weight = net[0].weight
        >>> twin = copy_module(net)
        >>> twin[1].weight is twin[0].weight, twin[0].weight is net[0].weight
        (True, False)
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for tensor in _tensors(vars(module)):
            if id(tensor) not in memo and (on_meta or not tensor.is_leaf):
                memo[id(tensor)] = _to_meta(tensor) if on_meta else tensor.detach().clone()
                memo.setdefault(id(memo), []).append(tensor)  # An id means nothing once its object is gone.
    return rebind(deep_copy(model, memo), memo)


def deep_copy(thing: T, memo: Memo | None = None, *, sharing: bool = False) -> T:
    """`copy.deepcopy` with new locks for old ones.

    Args:
        thing: a module, or anything else.
        memo: as `copy.deepcopy` takes it.
        sharing: whether what cannot be copied is shared; if not, it is refused.

    Raises:
        NasTypeError: something in it cannot be copied.
    """
    memo = {} if memo is None else memo
    for _ in range(2):
        attempt = dict(memo)
        try:
            found = copy.deepcopy(thing, attempt)
        except NasError:
            raise
        except Exception as error:
            failed = error
            for lock in _locks(thing, _DEEP, set()):
                memo[id(lock)] = type(lock)() if isinstance(lock, _LOCKS[1]) else threading.Lock()
            continue
        memo.update(attempt)
        return found
    if sharing:
        return _copied_in_part(thing, memo)
    raise _cannot_be_copied(thing, failed)


def _copied_in_part(thing: T, memo: Memo) -> T:
    """Containers copied item by item, so that only the very things that cannot be copied are shared."""
    if type(thing) in (list, tuple):
        return type(thing)(deep_copy(item, memo, sharing=True) for item in thing)  # type: ignore[attr-defined,call-arg]
    if type(thing) is dict:
        return {key: deep_copy(item, memo, sharing=True) for key, item in thing.items()}  # type: ignore[return-value,attr-defined]
    return thing


def _cannot_be_copied(thing: object, error: Exception) -> NasTypeError:
    where, why = "", error
    if isinstance(thing, nn.Module):
        for path, module in thing.named_modules():
            for name, value in plain_attributes(module).items():
                try:
                    copy.deepcopy(value, {id(tensor): tensor for tensor in _tensors({name: value})})
                except Exception as found:
                    where, why = f"attribute {name!r} of module {path or '(itself)'!r}", found
    return NasTypeError(
        explain(
            f"the module cannot be copied ({type(why).__name__}: {why})",
            got=type(thing).__name__,
            where=where,
            mend="keep it outside of the module, give the class a __deepcopy__, or build the module in a function",
        )
    )


def _locks(thing: object, depth: int, seen: set[int]) -> Iterator[Any]:
    """The locks in an object and in what it holds."""
    if depth == 0 or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, _LOCKS):
        yield thing
    elif isinstance(thing, nn.Module):
        for module in thing.modules():
            for value in plain_attributes(module).values():
                yield from _locks(value, depth, seen)
    else:
        inside: Any = thing if isinstance(thing, list | tuple | set) else getattr(thing, "__dict__", {}).values()
        for item in thing.values() if isinstance(thing, dict) else inside:
            if not isinstance(item, type):
                yield from _locks(item, depth - 1, seen)


def move(model: nn.Module, device: torch.device | str | int) -> nn.Module:
    """`model.to(device)`, with tied tensors still tied."""
    places: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for module in model.modules():
        for tensors in (own_parameters(module), own_buffers(module)):
            for name, tensor in tensors.items():
                if tensor is not None:
                    places.setdefault(id(tensor), []).append((tensors, name))
    model = model.to(device)
    for first, *others in places.values():
        for tensors, name in others:
            tensors[name] = first[0][first[1]]
    return model


def _tensors(attributes: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors of a module: parameters, buffers and plain attributes, also in lists, tuples and dicts."""
    for value in attributes.values():
        if isinstance(value, Tensor):
            yield value
        elif type(value) is dict:
            yield from _tensors({str(i): item for i, item in enumerate(value.values())})
        elif type(value) in (list, tuple):
            yield from _tensors({str(i): item for i, item in enumerate(value)})


def _to_meta(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        kind: Any = type(tensor)
        return kind(requires_grad=tensor.requires_grad, device="meta", dtype=tensor.dtype)  # type: ignore[no-any-return]
    empty = torch.empty_like(tensor.detach(), device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
