"""Several devices in one-shot search: gradients are averaged by hand, since each step trains another part."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, final

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations
import torch
import torch.distributed
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher  # it has no public name
from torch import nn
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from nas.errors import NasValueError, explain
from nas.oneshot.training.batches import Batches


@final
class PlainProcesses(DDPStrategy):
    """Processes that share gradients when the search says so; no wrapper expects all of them in each step."""

    def configure_ddp(self) -> None:
        """Nothing is wrapped."""

    def _configure_launcher(self) -> None:
        assert self._start_method != "popen", "see choose_strategy"
        self._launcher = _Launcher(self, start_method=self._start_method)


@final
class _Launcher(_MultiProcessingLauncher):
    """Spawns processes as Lightning does, but by cloudpickle: spaces are full of lambdas and local classes."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Runs the function in all processes, and returns what the first one returned."""
        if self._start_method != "spawn":
            return super().launch(function, *args, trainer=trainer, **kwargs)
        assert trainer is not None
        assert self._strategy.cluster_environment is not None
        os.environ["MASTER_PORT"] = str(self._strategy.cluster_environment.main_port)
        payload = cloudpickle.dumps((self, trainer, function, args, kwargs))
        queue = get_context("spawn").SimpleQueue()
        number = trainer.num_devices
        context = start_processes(_work, args=(payload, queue), nprocs=number, start_method="spawn", join=False)
        self.procs = context.processes
        try:
            while not context.join():
                pass
        except BaseException:
            self.kill(signal.SIGKILL)
            raise
        output = queue.get()
        self._recover_results_in_main_process(output, trainer)
        return output.trainer_results


def _work(index: int, payload: bytes, queue: Any) -> None:
    launcher, trainer, function, args, kwargs = cloudpickle.loads(payload)
    launcher._wrapping_function(index, trainer, function, args, kwargs, queue)


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
        return PlainProcesses(
            start_method=given._start_method if given._start_method != "popen" else "spawn",
            process_group_backend=given._process_group_backend,
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


@final
class Share:
    """Every n-th batch, for one of n devices.

    Args:
        batches: of all devices, in the same order on each.
        rank: of the device.
        devices: how many there are.
    """

    def __init__(self, batches: Batches, rank: int, devices: int) -> None:
        self._batches, self._rank, self._devices = batches, rank, devices

    def __len__(self) -> int:
        """As many on every device."""
        return len(self._batches) // self._devices

    def __iter__(self) -> Iterator[Any]:
        """Those of this device."""
        group = []
        for batch in self._batches:
            group.append(batch)
            if len(group) == self._devices:
                yield group[self._rank]
                group = []
