"""What a program did not make: modules of its surroundings are recognised while it runs, and copied, never touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, final
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import children_of, own_buffers, own_parameters, plain_attributes, watching_modules
from nas.copying.copies import copy_module, deep_copy, move
from nas.copying.functions import Memo

T = TypeVar("T")
Seen = WeakValueDictionary[int, Tensor]
"""The tensors that a program has handed out before, by id."""

_MAKING: ContextVar[Making | None] = ContextVar("nas_making", default=None)


@final
class Making:
    """One run of a program: which modules it makes, and copies of those that it found made.

    While it is `active`, it notices each module that is made, by a constructor, a copy or a file. A module of the
    result that was not made meanwhile is foreign: the user's backbone, a default argument, a module at the top of a
    file. It is copied with its weights, once for each run. Where the program put something into a foreign module, the
    copy has it, and the module itself is put back as it was.

    Args:
        seen: tensors that earlier runs of the program have handed out; one that comes again is foreign too.
        on_meta: whether copies are made without numbers, on the meta device.
    """

    def __init__(self, seen: Seen, *, on_meta: bool) -> None:
        self._seen, self._on_meta = seen, on_meta
        # Ids alone, lest candidates that are dropped live on; a foreign module lives all the while, and keeps its id.
        self._made: set[int] = set()
        self._changed: dict[tuple[int, str], tuple[nn.Module, str, dict[str, Any], Any]] = {}
        self._memo: Memo = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Notices what is made inside the block; afterwards foreign modules are as they were."""
        token = _MAKING.set(self)
        try:
            with watching_modules(self._note_made, self._note_change):
                yield
        finally:
            _MAKING.reset(token)
            for _, name, parts, before in self._changed.values():
                if before is _NOTHING:
                    parts.pop(name, None)
                else:
                    parts[name] = before

    def _note_made(self, module: nn.Module) -> None:
        self._made.add(id(module))

    def _note_change(self, module: nn.Module, name: str) -> None:
        if id(module) in self._made or (id(module), name) in self._changed:
            return
        for parts in (own_parameters(module), own_buffers(module), children_of(module)):
            if name in parts:
                self._changed[id(module), name] = module, name, parts, parts[name]
                return
        # It goes into one of the three, and out of that one again.
        for parts in (own_parameters(module), own_buffers(module), children_of(module)):
            self._changed.setdefault((id(module), f"{name} of {id(parts)}"), (module, name, parts, _NOTHING))

    def _is_foreign(self, thing: object) -> bool:
        return isinstance(thing, nn.Module) and id(thing) not in self._made

    def copied_arguments(self, arguments: T) -> T:
        """What a program is called with, copied, so that nothing it does to it is seen elsewhere.

        What cannot be copied (a lock, an open file) is handed on as it is.
        """
        for module in _modules_in(arguments):
            self.copied(module)
        return deep_copy(arguments, self._memo, sharing=True)

    def own(self, module: nn.Module) -> nn.Module:
        """The module if the program made it, whatever is inside; else a copy."""
        return self.copied(module) if self._is_foreign(module) else module

    def finish(self, module: nn.Module, device: torch.device | str | int | None) -> nn.Module:
        """What the run has built, with copies of all that it did not make, on a device."""
        module = self.own(module)
        pending, visited = [module], set[int]()
        while pending:
            part = pending.pop()
            if id(part) in visited:
                continue
            visited.add(id(part))
            children = children_of(part)
            for name, child in children.items():
                if self._is_foreign(child):
                    children[name] = self.copied(child)  # type: ignore[arg-type]  # a module
                elif child is not None:
                    pending.append(child)
            if not type(part).__module__.startswith("torch.nn.modules."):
                self._own_attributes(part)
        for part in module.modules():
            for tensors in (own_parameters(part), own_buffers(part)):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = self._own_tensor(tensor)  # type: ignore[assignment]  # of the same kind
        return module if device is None else move(module, device)

    def copied(self, module: nn.Module) -> nn.Module:
        """The copy of a foreign module; the same one each time in this run."""
        found = self._memo.get(id(module))
        if found is None:
            found = copy_module(module, self._memo, on_meta=self._on_meta)
            self._made.update(map(id, found.modules()))
        assert isinstance(found, nn.Module)
        return found

    def _own_attributes(self, module: nn.Module) -> None:
        """Foreign modules that it keeps beside its children, in plain attributes, lists and dicts."""
        for name, value in plain_attributes(module).items():
            if isinstance(value, nn.Module | list | tuple | dict) and self._holds_foreign(value):
                vars(module)[name] = self._replaced(value)

    def _holds_foreign(self, value: object) -> bool:
        items = value.values() if type(value) is dict else value if type(value) in (list, tuple) else (value,)
        return any(map(self._is_foreign, items))  # type: ignore[call-overload]  # a container

    def _replaced(self, value: Any) -> Any:
        if type(value) is dict:
            return {key: self._replaced(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(self._replaced, value))
        return self.copied(value) if self._is_foreign(value) else value

    def _own_tensor(self, tensor: Tensor) -> Tensor:
        """The tensor, or its copy where it belongs to a foreign module or was handed out before."""
        twin = self._memo.get(id(tensor))
        if twin is None:
            twin = tensor
            if self._seen.get(id(tensor)) is tensor:
                twin = tensor.detach().clone()
                twin = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
            self._memo[id(tensor)] = self._seen[id(twin)] = twin
        assert isinstance(twin, Tensor)
        return twin


_NOTHING = object()


def _modules_in(arguments: object) -> Iterator[nn.Module]:
    if isinstance(arguments, nn.Module):
        yield arguments
    items = arguments.values() if isinstance(arguments, dict) else arguments
    for item in items if isinstance(arguments, dict | list | tuple) else ():  # type: ignore[attr-defined]
        yield from _modules_in(item)


def own(module: nn.Module) -> nn.Module:
    """The module, or a copy where the program that runs did not make it; the module itself where none runs."""
    making = _MAKING.get()
    return module if making is None else making.own(module)
