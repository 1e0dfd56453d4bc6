"""A copy of a model to trace: on the CPU, in eval mode, with functions that look at the copy."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Iterator
from typing import Any, final

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas.errors import NasTypeError, NasValueError, explain
from nas.export.one_line import one_line


def inference_copy(model: nn.Module) -> nn.Module:
    """The model on the CPU and in eval mode, sharing nothing with the original."""
    if any(tensor.is_meta or is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        rule = "the weights of the model must have values, and some are on the meta device or lazy"
        mend = "build it on a real device; fill_lazy_layers(model, example_input) calls it once"
        raise NasValueError(explain(rule, where="to_onnx", mend=mend))
    # Tensors that were computed and kept (weight_norm's weight, the last activations) refuse to be deep-copied.
    kept = [tensor for module in model.modules() for tensor in _tensors_in(vars(module))]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}
    try:
        twin = copy.deepcopy(model, memo)
    except Exception as error:
        rule = f"the model must be one that copy.deepcopy can copy ({one_line(error)})"
        raise NasTypeError(explain(rule, got=type(model), where="to_onnx")) from error
    functions = _CopiedFunctions(memo)
    for module in twin.modules():
        functions.put_into(vars(module))
    return twin.cpu().eval()


def _tensors_in(value: Any, *, depth: int = 4) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple | set) and depth:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(item, depth=depth - 1)


@final
class _CopiedFunctions:
    """Functions whose enclosed variables and defaults are the copies, as those of a copied object's methods are.

    `copy.deepcopy` takes functions as they are: a hook `lambda module, inputs, output: found.update(x=output)` of a
    copy would fill the dict `found` of the original.

    Args:
        memo: id of an original -> its copy.
    """

    def __init__(self, memo: dict[int, Any]) -> None:
        self._memo = memo
        self._cells: dict[int, types.CellType] = {}
        self._functions: dict[int, Any] = {}

    def put_into(self, container: Any, *, depth: int = 4) -> None:
        """Replaces the functions that lie in a dict or list."""
        pairs = list(container.items() if isinstance(container, dict) else enumerate(container))
        for key, value in pairs:
            if isinstance(value, types.FunctionType | functools.partial):
                container[key] = self._copied(value)
            elif isinstance(value, dict | list) and depth:
                self.put_into(value, depth=depth - 1)

    def _copied(self, value: Any) -> Any:
        if isinstance(value, functools.partial):  # deepcopy has copied its arguments
            return functools.partial(self._copied(value.func), *value.args, **value.keywords)
        if not isinstance(value, types.FunctionType) or not (value.__closure__ or value.__defaults__):
            return self._content(value)
        if id(value) not in self._functions:
            closure = tuple(self._cells.setdefault(id(cell), types.CellType()) for cell in value.__closure__ or ())
            twin = types.FunctionType(value.__code__, value.__globals__, value.__name__, None, closure)
            self._functions[id(value)] = twin
            twin.__dict__.update(vars(value))
            twin.__qualname__, twin.__annotations__ = value.__qualname__, value.__annotations__
            twin.__kwdefaults__ = value.__kwdefaults__
            twin.__defaults__ = tuple(map(self._copied, value.__defaults__ or ())) or None
            for old, new in zip(value.__closure__ or (), closure, strict=True):
                with contextlib.suppress(ValueError):  # an empty cell: a variable that has no value yet
                    new.cell_contents = self._copied(old.cell_contents)
        return self._functions[id(value)]

    def _content(self, value: Any) -> Any:
        """The copy of what a function holds: of a part of the model, or of a container in which functions meet."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, types.MethodType) and id(value.__self__) in self._memo:
            return types.MethodType(value.__func__, self._memo[id(value.__self__)])
        if isinstance(value, dict | list | set):
            with contextlib.suppress(Exception):  # what cannot be copied stays shared, as deepcopy leaves it
                return copy.deepcopy(value, self._memo)
        return value
