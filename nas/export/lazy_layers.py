"""Gives lazy layers their shapes and weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nas._compat.torch_internals import awaits_first_call
from nas.calls import explained
from nas.errors import NasTypeError, explain
from nas.export.given_model import run
from nas.export.onnx_call import take_apart


@explained()
def fill_lazy_layers(model: nn.Module, example_input: Any) -> None:
    """Calls a model that has lazy layers (`nn.LazyLinear`, ...) once, in inference mode: they get their weights by it.

    Args:
        model: it is changed; its other weights, and the mode of each of its modules, stay.
        example_input: what it is called with, as for `to_onnx`.

    Raises:
        NasTypeError: no model, or an example that is none.
        NasValueError: the model does not run on it.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
        >>> fill_lazy_layers(net, torch.zeros(2, 4, 4))
        >>> net[1].weight.shape
        torch.Size([3, 16])
    """
    if not isinstance(model, nn.Module):
        raise NasTypeError(explain("the model must be a torch.nn.Module", got=model, where="fill_lazy_layers"))
    if not any(map(awaits_first_call, model.modules())):
        return
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    call = take_apart(model, example_input)
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        run(model, call, [tensor.to(device) for tensor in call.tensors.values()])
    finally:
        for module, training in modes:
            module.training = training
