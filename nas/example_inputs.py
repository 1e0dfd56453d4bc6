"""What a forward pass is called with: an example of the user's, as arguments, on any device."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Set
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from nas.checks import plain_int
from nas.errors import NasTypeError, explain

Example: TypeAlias = "Tensor | list[Any] | tuple[Any, ...] | Mapping[str, Any]"
"""A tensor; the shape of one float tensor, as in (1, 3, 32, 32); a tuple of all that `forward` takes by position, as in
(tokens, None, mask); or a dict of what it takes by keyword (of a forward that has no such keywords: the dict batch that
it takes). Anything that holds tensors may stand in it: dicts, lists, dataclasses, a graph."""

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""What a call is given by position, and what by keyword."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of a forward pass."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch: Any = None
    """The example itself where it was a dict: the one argument of a forward that takes no such keywords."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors in it."""
        return tuple(tensors_of((self.args, self.kwargs)))

    def converted(self, convert: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with other tensors in the place of these; all else is copied."""
        memo: dict[int, Any] = {id(tensor): convert(tensor) for tensor in self.tensors}
        args, kwargs, batch = copy.deepcopy((self.args, dict(self.kwargs), self.batch), memo)
        return Inputs(args, kwargs, batch)

    def on(self, device: torch.device | str) -> Inputs:
        """The same on a device; on "meta" without numbers."""
        if str(device) == "meta":
            return self.converted(lambda tensor: torch.empty_like(tensor, device="meta"))
        return self.converted(lambda tensor: tensor.detach().to(device))

    def arguments_for(self, model: nn.Module) -> Arguments:
        """What a model is called with."""
        if self.batch is not None and not _takes(model, (), self.kwargs) and _takes(model, (self.batch,), {}):
            return (self.batch,), {}
        return self.args, dict(self.kwargs)

    def __str__(self) -> str:
        """The shapes, for messages."""
        by_name = [f"{name} of shape {text}" for name, value in self.kwargs.items() if (text := _shapes_text(value))]
        return ", ".join([*(text for value in self.args if (text := _shapes_text(value))), *by_name])


def _takes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[Any, Any]) -> bool:
    """Whether a forward can be called so, as far as its signature says."""
    if not all(isinstance(name, str) for name in kwargs):
        return False
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # It has none.
        return not args
    return True


def in_order(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The same call with as much as possible by position, in the order of the signature."""
    if kwargs:
        try:
            bound = inspect.signature(forward).bind(*args, **kwargs)
        except (TypeError, ValueError):  # no signature, or one that is not true
            return args, kwargs
        return bound.args, bound.kwargs
    return args, kwargs


def _shapes_text(value: Any) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors_of(value))


def read_example(example_input: object, *, weightless: bool = False) -> Inputs:
    """The arguments that an example stands for; a shape becomes normal noise.

    Args:
        example_input: see `Example`; what has been read already is taken as it is.
        weightless: whether a shape becomes a tensor on the meta device instead.

    Raises:
        NasTypeError: anything else, and what holds no tensor.
    """
    if isinstance(example_input, Inputs):
        return example_input
    if isinstance(example_input, list | tuple):
        shape = [size for item in example_input if (size := plain_int(item)) is not None and size > 0]
        if shape and len(shape) == len(example_input):
            if weightless:
                return Inputs((torch.empty(shape, device="meta"),))
            return Inputs((torch.randn(shape, generator=torch.Generator().manual_seed(0)),))
    if isinstance(example_input, nn.Module) or next(tensors_of(example_input), None) is None:
        raise NasTypeError(
            explain(
                "example_input is a tensor, a tuple of tensors, or a shape; also a tuple of all that forward takes, or "
                "a dict of what it takes by keyword",
                got=example_input,
                mend="write (1, 3, 32, 32), batch included; for models that take integers, give a tensor of them",
            )
        )
    if isinstance(example_input, list | tuple):
        return Inputs(tuple(example_input))
    if isinstance(example_input, Mapping):
        return Inputs(kwargs=dict(example_input), batch=example_input)
    return Inputs((example_input,))


def meta_example(example_input: Example) -> tuple[Tensor, ...]:
    """The inputs of a forward pass that takes tensors by position, on the meta device.

    Args:
        example_input: a tensor, a tuple of tensors, or the shape of one float tensor.

    Raises:
        NasTypeError: anything else.
    """
    return _only_tensors(read_example(example_input, weightless=True).on("meta"), example_input)


def real_example(example_input: Example) -> tuple[Tensor, ...]:
    """The inputs of a forward pass that takes tensors by position; a shape becomes normal noise."""
    return _only_tensors(read_example(example_input), example_input)


def _only_tensors(inputs: Inputs, example_input: object) -> tuple[Tensor, ...]:
    if inputs.kwargs or not all(isinstance(item, Tensor) for item in inputs.args):
        raise NasTypeError(explain("here example_input is a tensor, a tuple of tensors, or a shape", got=example_input))
    return inputs.args


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in an input or an output: in lists, tuples, dicts, dataclasses and other plain objects too."""
    if isinstance(value, Tensor):
        yield value
    elif value is not None and not isinstance(value, _PLAIN):
        yield from _tensors_inside(value, set())


def _tensors_inside(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, _PLAIN) or id(value) in seen:
        return
    seen.add(id(value))
    for item in _parts(value):
        yield from _tensors_inside(item, seen)


_PLAIN: tuple[type, ...] = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, nn.Module)
_PLAIN += (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
"""What holds no tensors; a module's are its own."""


def _parts(value: Any) -> list[Any]:
    """What an object consists of."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | Set):
        return list(value)
    slots = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    names = [name for found in slots for name in ([found] if isinstance(found, str) else found)]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in names)]
