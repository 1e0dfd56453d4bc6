"""Runs a model that somebody else owns as in inference, and leaves it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from nas.errors import NasError, NasValueError, explain
from nas.export.one_line import one_line
from nas.export.onnx_call import Call, outputs_of
from nas.random_state import untouched


@final
class GivenModel:
    """A model as it was given: with its own hooks, on its own device.

    Args:
        model: what it holds is remembered now, and put back after each run: tensors, modes, attributes, and what is in
            its lists and dicts. What its hooks do elsewhere they do once more, as in any call.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        tensors = [*model.parameters(), *model.buffers()]
        self._device = tensors[0].device if tensors else torch.device("cpu")
        self._on_cuda = any(tensor.is_cuda for tensor in tensors)
        self._state = _State(model)

    @property
    def on_cpu(self) -> bool:
        return self._device.type == "cpu"

    def run(self, call: Call, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """What it returns in inference mode, on the CPU."""
        precise = _without_tf32() if self._on_cuda else contextlib.nullcontext()
        with untouched(devices=True), precise, self.in_inference() as model:
            return run(model, call, [tensor.to(self._device) for tensor in tensors])

    @contextlib.contextmanager
    def in_inference(self) -> Iterator[nn.Module]:
        """The model itself, in inference mode; put back afterwards."""
        try:
            if any(module.training for module in self._model.modules()):
                self._model.eval()
            yield self._model
        finally:
            self._state.put_back()

    def forget_tracing(self, call: Call) -> None:
        """Calls it once more: what its hooks keep elsewhere, a global dict say, are numbers again, not a trace's."""
        with contextlib.suppress(NasError):
            self.run(call, list(call.tensors.values()))


def run(model: nn.Module, call: Call, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The tensors of what a model returns, by their places, on the CPU; it may write into its inputs.

    Raises:
        NasValueError: it does not run on them.
    """
    try:
        with torch.no_grad():
            output = call.run(model, [tensor.clone() for tensor in tensors])
    except Exception as error:
        raise NasValueError(explain(f"the model must run ({one_line(error)})")) from error
    return {place: tensor.detach().cpu() for place, tensor in outputs_of(output).items()}


@final
class _State:
    """What the modules of a model hold."""

    def __init__(self, model: nn.Module) -> None:
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        for module in model.modules():
            self._remember(vars(module))

    def _remember(self, value: Any) -> None:
        if isinstance(value, Tensor) and value.layout is torch.strided:
            self._tensors.setdefault(id(value), (value, value.detach().clone()))
        elif isinstance(value, dict | list | set) and id(value) not in self._containers:
            self._containers[id(value)] = (value, value.copy())
            for item in value.values() if isinstance(value, dict) else value:
                self._remember(item)

    def put_back(self) -> None:
        for value, content in self._containers.values():
            if isinstance(value, list):
                value[:] = content
            else:
                value.clear()
                value.update(content)
        for tensor, content in self._tensors.values():
            if not torch.equal(tensor.detach(), content):  # NaN too is written again, which changes nothing
                tensor.data.copy_(content)


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolutions in full precision on a GPU too: with 10 bits they differ from any other machine's."""
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        yield
