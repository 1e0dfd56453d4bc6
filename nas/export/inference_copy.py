"""A copy of a model to trace: on the CPU and in eval mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas._compat.torch_internals import awaits_first_call
from nas.errors import NasTypeError, NasValueError, explain
from nas.export.one_line import one_line


def inference_copy(model: nn.Module) -> nn.Module:
    """The model on the CPU and in eval mode, sharing nothing with the original."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta or is_lazy(tensor) for tensor in tensors) or any(map(awaits_first_call, model.modules())):
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
    return twin.cpu().eval()


def _tensors_in(value: Any, *, depth: int = 4) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple | set) and depth:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(item, depth=depth - 1)
