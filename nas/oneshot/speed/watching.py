"""What a model keeps, and what a forward pass of it does: whether a recorded one would be the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import is_
from types import FunctionType, MethodType, ModuleType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nas._compat.gradients import are_followed
from nas._compat.torch_internals import (
    BatchNorm,
    TorchDispatchMode,
    can_decompose,
    has_hooks,
    is_heard,
    own_buffers,
    own_parameters,
    schema_of,
    storage_key,
)
from nas.example_inputs import tensors_of
from nas.random_state import host_states


def is_plain(module: nn.Module) -> bool:
    """Whether it is a batch norm that does with its mode and its momentum what torch's do."""
    return isinstance(module, BatchNorm) and type(module).forward is BatchNorm.forward and "forward" not in vars(module)


_LOOKS = 5
"""Passes before which it is looked for who follows gradients, until nobody is found."""


@final
class Listeners:
    """Whether somebody listens to what a model does inside, which a replay would not tell.

    Args:
        model: its own hooks are called by whoever calls it, those of its parameters in each backward pass too.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._made = self._made_then = -1
        self._found: str | None = None
        self._followed, self._looks = False, 0

    def reason(self) -> str | None:
        """Says who is listened to. As long as nobody has made hooks anywhere, nothing is looked through again."""
        if self._made != (made := RemovableHandle.next_id):
            self._made = made
            parts = [name for name, part in self._model.named_modules() if name and has_hooks(part)]
            heard = [name for name, parameter in self._model.named_parameters() if is_heard(parameter)]
            of_parts = f"somebody listens to the calls of {parts[0]!r}" if parts else None
            self._found = f"somebody listens to the gradient of {heard[0]!r}" if heard else of_parts
        return self._found

    def look_at_gradients(self) -> None:
        """Notes whether somebody may be told when torch hands out gradients; while no graph of them is there."""
        if self._made_then != (made := RemovableHandle.next_id):
            self._made_then, self._followed, self._looks = made, True, 0
        # It may have been the graph of a loss that somebody kept for a while.
        if self._followed and self._looks < _LOOKS:
            self._looks += 1
            self._followed = are_followed(self._model.parameters())

    def follow_gradients(self) -> bool:
        """Whether somebody may be told of the gradients of the pass that was begun then."""
        return self._followed or self._made_then != RemovableHandle.next_id

    def come(self) -> bool:
        """Whether hooks were made since `reason` was asked."""
        return self._made != RemovableHandle.next_id


_VALUES: Callable[[dict[str, Any]], Iterable[Any]] = dict.values


@final
class Places:
    """Where the parameters and buffers of modules lie: what is recorded reads and writes there.

    Args:
        modules: all of a model.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._held = [held for module in modules for held in (own_parameters(module), own_buffers(module)) if held]
        self._slots = self._now()
        self._tensors = [tensor for tensor in self._slots if tensor is not None]
        self._addresses = list(map(Tensor.data_ptr, self._tensors))

    def hold(self) -> bool:
        """Whether they are the same, and lie where they did; their numbers may have changed."""
        now = self._now()
        # Of thousands, before each pass; so by functions that are no Python.
        same = len(now) == len(self._slots) and all(map(is_, now, self._slots))
        return same and list(map(Tensor.data_ptr, self._tensors)) == self._addresses

    def _now(self) -> list[Tensor | None]:
        return list(chain.from_iterable(map(_VALUES, self._held)))


@final
class State:
    """All that the modules of a model keep, as it is now.

    Args:
        model: whose modules.
        aside: an object that they hold for a time, and that is no part of them.

    Attributes:
        tensors: its parameters and buffers.
    """

    def __init__(self, model: nn.Module, aside: object) -> None:
        modules = list(model.modules())
        found = list(_containers(modules, aside))
        self._empty = [container for container in found if not container]
        self._containers = [container for container in found if container]
        self._before = [container.copy() for container in self._containers]
        self._empty_before = [type(container)() for container in self._empty]
        norms = {id(vars(module)) for module in modules if is_plain(module)}
        self._beside_norms = [
            {**before, "training": None, "momentum": None} if id(container) in norms else before
            for container, before in zip(self._containers, self._before, strict=True)
        ]
        self._slots = [held for module in modules for held in (own_parameters(module), own_buffers(module)) if held]
        self._slots_before = [dict(held) for held in self._slots]
        self.tensors = self._now()
        self._places = [tensor.data_ptr() for tensor in self.tensors]

    def is_like(self, other: State) -> bool:
        """Whether the model was the same in another state, but for modes and momenta of torch's own batch norms."""
        try:
            return self._places == other._places and self._beside_norms == other._beside_norms
        except Exception:  # what cannot be compared is another object
            return False

    def put_back(self) -> None:
        """Sets what it was; numbers that were written in place stay."""
        for container, before in zip(
            [*self._containers, *self._empty], [*self._before, *self._empty_before], strict=True
        ):
            _refill(container, before)
        for held, before in zip(self._slots, self._slots_before, strict=True):
            _refill(held, before)

    def _now(self) -> list[Tensor]:
        return [tensor for held in self._slots for tensor in held.values() if tensor is not None]

    def holds(self) -> bool:
        """Whether nothing was set, added or moved since; numbers may have been written in place."""
        now = self._now()
        if len(now) != len(self.tensors) or any(a is not b for a, b in zip(now, self.tensors, strict=True)):
            return False
        if [tensor.data_ptr() for tensor in now] != self._places:
            return False
        try:
            return not any(self._empty) and self._containers == self._before
        except Exception:  # what cannot be compared is another object
            return False


def _refill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, dict | set):
        container.update(content)
    else:
        container.extend(content)


def _containers(modules: Iterable[nn.Module], aside: object) -> Iterator[Any]:
    """The attributes of modules, and the lists, dicts, sets and objects among them with what these keep."""
    pending: list[tuple[Any, bool]] = [(vars(module), True) for module in modules]
    seen = {id(vars(aside)), *(id(container) for container, _ in pending)}
    while pending:
        container, looks = pending.pop()
        if type(container) is not tuple:
            yield container
        for item in container.values() if isinstance(container, dict) else container:
            if type(item) in _PLAIN:
                continue
            inside = item
            if not isinstance(item, _CONTAINERS):
                if not looks or isinstance(item, _NO_STATE) or not isinstance(getattr(item, "__dict__", None), dict):
                    continue
                inside = vars(item)
            elif not item:
                yield from () if type(item) is tuple else (item,)
                continue
            if id(inside) not in seen:
                seen.add(id(inside))
                pending.append((inside, looks and inside is item))


_PLAIN = frozenset({bool, int, float, str, type(None), Tensor, nn.Parameter})
_CONTAINERS = (dict, list, set, deque, tuple)
_NO_STATE = (nn.Module, Tensor, type, FunctionType, MethodType, ModuleType)


@final
class Watch(TorchDispatchMode):
    """Looks for operations that a replay would not repeat as they were.

    Args:
        inputs: of the pass, which it must not change.
        owned: what it may read and write beside what it makes; None for any tensor on the device.
        draws: whether it may draw random numbers on the device, which a replay draws anew.

    Attributes:
        reason: the first that was found.
    """

    def __init__(self, inputs: Sequence[Tensor], owned: Sequence[Tensor] | None, *, draws: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = inputs[0].device
        self._given = set(map(_storage, inputs))
        self._owned = None if owned is None else set(map(_storage, owned))
        self._draws = draws
        self._made: set[int] = set()
        self.reason: str | None = None

    def made(self, tensor: Tensor) -> bool:
        """Whether a tensor is one that the pass has made, no part of others."""
        return _storage(tensor) in self._made

    def _knows(self, storage: int) -> bool:
        return storage in self._made or storage in self._given or (self._owned is not None and storage in self._owned)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if can_decompose(func):  # in inference mode; what it is made of says what it does
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if self.reason is None:
            try:
                self.reason = self._reason(func, args, kwargs, out)
            except RuntimeError:  # of tensors that have no memory of the usual kind
                self.reason = f"it computes with tensors of another kind: {func}"
        return out

    def _reason(self, func: Any, args: Any, kwargs: Any, out: Any) -> str | None:
        rule = _rule(func)
        if rule.draws and not self._draws and rule.draws_with(args, kwargs):
            return f"it draws random numbers: {func}"
        if rule.looks:
            return f"it looks at what it has computed: {func}"
        for tensor in _tensors((*args, *kwargs.values())):
            if tensor.device != self._device:
                return f"it computes on several devices: {func}"
            if self._owned is not None and not self._knows(_storage(tensor)):  # no union of sets for each tensor
                return f"it takes a tensor that is no parameter or buffer of it: {func}"
        if rule.writes and any(_storage(tensor) in self._given for tensor in _tensors(rule.written(args, kwargs))):
            return f"it changes its inputs: {func}"
        for tensor in _tensors((out,)):
            if tensor.device != self._device:
                return f"it computes on several devices: {func}"
            if (key := _storage(tensor)) not in (self._owned or ()) and key not in self._given:
                self._made.add(key)
        return None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among arguments or results of an operation, in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@final
class _Rule:
    """What an operation says of itself."""

    def __init__(self, func: Any) -> None:
        self._arguments = schema_of(func).arguments
        self.draws = torch.Tag.nondeterministic_seeded in func.tags
        self.looks = bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))
        self.writes = [a.name for a in self._arguments if a.alias_info is not None and a.alias_info.is_write]

    def _given(self, args: Any, kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = dict(zip((argument.name for argument in self._arguments), args, strict=False))
        found.update(kwargs)
        return found

    def draws_with(self, args: Any, kwargs: Any) -> bool:
        """Whether one that can draw random numbers does, with these arguments."""
        given = self._given(args, kwargs)
        shares = [given.get(a.name, a.default_value) for a in self._arguments if a.name in _DROPPED]
        return not shares or any(share != 0 for share in shares)

    def written(self, args: Any, kwargs: Any) -> list[Any]:
        """The arguments that it writes into."""
        given = self._given(args, kwargs)
        return [given[name] for name in self.writes if name in given]


@cache
def _rule(func: Any) -> _Rule:
    return _Rule(func)


_DROPPED = ("dropout_p", "dropout")
"""What arguments are called that say how much is left out by chance."""


def _storage(tensor: Tensor) -> int:
    return storage_key(tensor.untyped_storage())


def numbers_of_host(device: torch.device) -> tuple[Any, ...]:
    """The states of the generators that are not those of a device."""
    python, (_, keys, *place), torchs = host_states()
    return python, keys.tobytes(), place, None if device.type == "cpu" else torchs.numpy().tobytes()


def hides_tensors(leaves: Sequence[Any]) -> bool:
    """Whether objects among the leaves hold tensors themselves."""
    return any(not isinstance(leaf, Tensor) and next(tensors_of(leaf), None) is not None for leaf in leaves)


def look_of(leaf: Any) -> object:
    """What of an input a recorded pass depends on."""
    if isinstance(leaf, Tensor):
        return type(leaf), leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return type(leaf), repr(leaf)
