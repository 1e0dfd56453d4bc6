"""Several devices in one-shot search: gradients are averaged by hand, since each step trains another part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.distributed
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from nas._compat.lightning_internals import PlainProcesses, start_method
from nas.errors import NasValueError, explain


def choose_strategy(given: Any) -> DDPStrategy:
    """The strategy of several devices.

    Raises:
        NasValueError: one that splits the model.
    """
    names: dict[str | None, Literal["spawn", "fork"]] = {
        "auto": "spawn",
        None: "spawn",
        "ddp": "spawn",
        "ddp_spawn": "spawn",
        "ddp_fork": "fork",
    }
    if isinstance(given, DDPStrategy):
        method = start_method(given)
        return PlainProcesses(
            start_method="spawn" if method == "popen" else method, process_group_backend=given.process_group_backend
        )
    if not isinstance(given, str | None) or given not in names:
        raise NasValueError(
            explain(
                "one-shot search on several devices works in processes of one copy each",
                got=given,
                mend='strategy="ddp"',
            )
        )
    return PlainProcesses(start_method=names[given])


def is_distributed() -> bool:
    """Whether there are several processes."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean of the gradients over all devices, in place; all of them have trained the same path."""
    if not is_distributed():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        flat = torch.cat([gradient.reshape(-1).float() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        begin = 0
        for gradient in gradients:
            gradient.copy_(flat[begin : begin + gradient.numel()].view_as(gradient))
            begin += gradient.numel()


def broadcast_buffers(module: nn.Module) -> None:
    """The buffers of the first device, batch statistics for the most part, on all of them."""
    if is_distributed():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def gather(value: Any) -> list[Any]:
    """The value of every device, by rank."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
