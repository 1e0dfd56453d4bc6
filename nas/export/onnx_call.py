"""A call of a model taken apart: its tensors by name, what stays constant, and the tensors of what it returns."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from nas.errors import NasTypeError, NasValueError, explain

Place: TypeAlias = tuple[str | int, ...]
"""Where a tensor stands: the keys and indices that lead to it."""

BATCH = "batch"
"""The name of the first dimension, where nobody gave it another."""

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device)


@final
@dataclass(frozen=True, kw_only=True)
class Call:
    """What a model is called with.

    Args:
        tensors: name -> tensor, on the CPU; the inputs of the ONNX file, in this order.
        constants: name -> each other value that is not None.
        arguments: the arguments by position and by keyword, with the name of a tensor (a `_Slot`) in its place.
    """

    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Any]
    arguments: tuple[Sequence[Any], Mapping[str, Any]]

    def run(self, model: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """Calls the model with other tensors in the same places."""
        given = dict(zip(self.tensors, tensors, strict=True))

        def fill(_: Place, value: Any) -> Any:
            return given[value.name] if isinstance(value, _Slot) else value

        args, kwargs = self.arguments
        return model(*_map(fill, args, ()), **_map(fill, kwargs, ()))


@final
@dataclass(frozen=True, kw_only=True)
class _Slot:
    """The place of a tensor."""

    name: str


def take_apart(model: nn.Module, example_input: Any) -> Call:
    """The call that an example stands for.

    Args:
        model: its `forward` decides whether a dict is keywords or one argument.
        example_input: a tensor; a tuple of arguments; a list of arguments, or a dict of keywords, where `forward` takes
            such, else the one argument. Tensors may lie in lists, tuples, dicts and dataclasses.

    Raises:
        NasTypeError: there is no tensor in it, or something that is neither a tensor nor plain, or it is not what
            `forward` takes.
        NasValueError: a tensor without elements.
    """
    args, kwargs = _arguments(model, example_input)
    found: list[tuple[Place, Any]] = []

    def note(place: Place, value: Any) -> Any:
        found.append((place, value))
        return value

    _map(note, args, ())
    _map(note, kwargs, ())
    kinds = [type(value).__name__ for _, value in found]
    rule = "example_input must be a dict of keywords, a tensor or a tuple of tensors"
    if not any(isinstance(value, Tensor) for _, value in found):
        mend = "a tensor as the model is called with: torch.zeros(2, 3, 32, 32), say"
        raise NasTypeError(explain(rule, got=kinds, where="to_onnx", mend=mend))
    strange = [type(v).__name__ for _, v in found if not (v is None or isinstance(v, (Tensor, *_PLAIN)))]
    if strange:
        mend = "wrap the model in a module that takes tensors, and makes the rest from them"
        raise NasTypeError(explain(rule, got=strange, where="to_onnx", mend=mend))
    if not _takes(model, args, kwargs):
        mend = f"give the arguments of forward{inspect.signature(model.forward)}"
        raise NasTypeError(explain(rule, got=kinds, where="to_onnx", mend=mend))
    empty = [tuple(value.shape) for _, value in found if isinstance(value, Tensor) and not value.numel()]
    if empty:
        rule = "the first dimension of example_input must be the batch: at least 1, and no other one may be empty"
        raise NasValueError(explain(rule, got=empty, where="to_onnx"))
    alone = len(args) == 1 and not kwargs
    tensors: dict[str, Tensor] = {}
    constants: dict[str, Any] = {}

    def put(place: Place, value: Any) -> Any:
        name = _name(place[1:] if alone else place, taken={*tensors, *constants})
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().clone()
            return _Slot(name=name)
        if value is not None:
            constants[name] = value
        return value

    arguments = (_map(put, args, ()), _map(put, kwargs, ()))
    return Call(tensors=tensors, constants=constants, arguments=arguments)


def outputs_of(output: object) -> dict[str, Tensor]:
    """The tensors of what a model returned, by their places, in order.

    Raises:
        NasTypeError: something in it is no tensor.
    """
    return {".".join(map(str, place)): tensor for place, tensor in _leaves(output, ())}


def _leaves(output: object, place: Place) -> Iterator[tuple[Place, Tensor]]:
    if isinstance(output, Tensor):
        yield place, output
        return
    if isinstance(output, Mapping):
        items: list[tuple[Any, Any]] = list(output.items())
    elif isinstance(output, tuple | list):
        items = list(enumerate(output))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        items = [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    elif isinstance(output, torch.SymInt | torch.SymFloat):  # a size, while the model is traced
        dtype = torch.int64 if isinstance(output, torch.SymInt) else torch.get_default_dtype()
        yield place, torch.scalar_tensor(output, dtype=dtype)
        return
    elif isinstance(output, bool | int | float):
        yield place, torch.as_tensor(output)
        return
    else:  # an object of a class that nobody knows, such as the keys and values that a language model has kept
        items = [(name, value) for name, value in getattr(output, "__dict__", {}).items() if _holds_tensors(value)]
        if not items:
            rule = "a model that is exported must return a tensor, or a tuple, list or dict of tensors"
            mend = "wrap the model in a module that returns its tensors alone"
            raise NasTypeError(explain(rule, got=type(output), where="to_onnx", mend=mend))
    for key, item in items:
        if item is not None:
            yield from _leaves(item, (*place, key))


def _holds_tensors(value: object, *, depth: int = 4) -> bool:
    if isinstance(value, Tensor) or not depth:
        return isinstance(value, Tensor)
    if isinstance(value, Mapping):
        parts = list(value.values())
    else:
        parts = list(value) if isinstance(value, tuple | list) else list(getattr(value, "__dict__", {}).values())
    return any(_holds_tensors(part, depth=depth - 1) for part in parts)


def dynamic_dimensions(
    call: Call, dynamic: Mapping[str, Mapping[int, str]] | None
) -> tuple[dict[str, dict[int, str]], dict[str, dict[int, str]]]:
    """Which dimensions may have any size: those that were asked for, and those of the batch.

    Where nobody has named a first dimension, the batch is that of the first tensor, and of each that is as long.

    Raises:
        NasTypeError, NasValueError: a name that no input has, a dimension that it lacks, one name for two sizes.
    """
    asked = _checked_dynamic(call, {} if dynamic is None else dynamic)
    first = next((tensor.shape[0] for tensor in call.tensors.values() if tensor.ndim), None)
    if first is None or any(0 in names for names in asked.values()):
        return asked, {}
    batch = {name: {0: BATCH} for name, tensor in call.tensors.items() if tensor.ndim and tensor.shape[0] == first}
    return asked, batch


def _checked_dynamic(call: Call, dynamic: object) -> dict[str, dict[int, str]]:
    rule = "dynamic must be a dict of inputs, each with a dict dimension -> its name"
    mend = 'such as dynamic={"input": {1: "tokens"}}'
    if not isinstance(dynamic, Mapping) or not all(isinstance(names, Mapping) for names in dynamic.values()):
        raise NasTypeError(explain(rule, got=dynamic, where="to_onnx", mend=mend))
    sizes: dict[str, int] = {}
    asked: dict[str, dict[int, str]] = {}
    for name, names in dynamic.items():
        if name not in call.tensors:
            rule = f"dynamic must name inputs of the file, which are {list(call.tensors)}"
            raise NasValueError(explain(rule, got=name, where="to_onnx"))
        shape = tuple(call.tensors[name].shape)
        for dim, symbol in names.items():
            if isinstance(dim, bool) or not isinstance(dim, int) or not isinstance(symbol, str):
                raise NasTypeError(explain(rule, got={name: dict(names)}, where="to_onnx", mend=mend))
            if not re.fullmatch(r"[A-Za-z_]\w*", symbol):
                raise NasValueError(explain("a dynamic dimension must have an identifier as its name", got=symbol))
            if not -len(shape) <= dim < len(shape):
                raise NasValueError(explain(f"{name!r} has {len(shape)} dimensions", got=dim, where="to_onnx"))
            dim %= len(shape)
            if sizes.setdefault(symbol, shape[dim]) != shape[dim]:
                rule = f"the dimensions named {symbol!r} must be of one size in example_input"
                raise NasValueError(explain(rule, got=[sizes[symbol], shape[dim]], where="to_onnx"))
            asked.setdefault(name, {})[dim] = symbol
    return asked


def _arguments(model: nn.Module, example_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_input, Mapping):
        as_keywords = {key: value for key, value in example_input.items() if isinstance(key, str)}
        if len(as_keywords) == len(example_input) and _takes(model, (), as_keywords):
            return (), as_keywords
    elif isinstance(example_input, tuple) and not hasattr(example_input, "_fields"):
        return example_input, {}
    elif isinstance(example_input, list) and _takes(model, example_input, {}):
        return tuple(example_input), {}
    return (example_input,), {}


def _takes(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it has no signature that Python knows
        return True
    return True


def _name(place: Place, *, taken: set[str]) -> str:
    """`input`, `input_0`, `images_1`: the keys and indices on the way, behind `input` where there is no key first."""
    parts = [str(part) for part in place]
    if not place or isinstance(place[0], int):
        parts.insert(0, "input")
    name = "_".join(parts)
    while name in taken:
        name += "_"
    return name


def _map(function: Callable[[Place, Any], Any], value: Any, place: Place) -> Any:
    """The same structure with `function(place, leaf)` in place of each leaf."""
    if isinstance(value, Tensor):
        return function(place, value)
    if isinstance(value, tuple | list):
        items = [_map(function, item, (*place, i)) for i, item in enumerate(value)]
        if hasattr(value, "_fields"):
            return type(value)(*items)
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        mapped = {key: _map(function, item, (*place, key)) for key, item in value.items()}
        return mapped if type(value) is dict else type(value)(mapped)  # type: ignore[call-arg]  # as dicts do
    if dataclasses.is_dataclass(value) and not isinstance(value, type | _Slot):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        changed = {name: _map(function, getattr(value, name), (*place, name)) for name in fields}
        return dataclasses.replace(value, **changed)
    return function(place, value)
