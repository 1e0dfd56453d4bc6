"""A copy of a model to trace: on the CPU and in eval mode."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from nas._compat.torch_internals import awaits_first_call
from nas.copying import Memo, copy_module, rebind
from nas.errors import NasValueError, explain


def inference_copy(model: nn.Module) -> nn.Module:
    """The model on the CPU and in eval mode, sharing nothing with the original.

    Raises:
        NasValueError: weights without values.
        NasTypeError: it keeps something that cannot be copied.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta or is_lazy(tensor) for tensor in tensors) or any(map(awaits_first_call, model.modules())):
        rule = "the weights of the model must have values, and some are on the meta device or lazy"
        mend = "build it on a real device; fill_lazy_layers(model, example_input) calls it once"
        raise NasValueError(explain(rule, where="to_onnx", mend=mend))
    memo: Memo = {}
    return rebind(copy_module(model, memo), memo, everything=True).cpu().eval()
