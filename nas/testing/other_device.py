"""A device that is not the CPU, on any machine: what a move leaves behind is found without a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from pytorch_lightning.accelerators import MPSAccelerator

from nas._compat.second_device import NAME, Backend, can_register, present


@final
class SecondAccelerator(MPSAccelerator):
    """What a Trainer is given as `accelerator`: `strategy="auto"` takes the device then, as it does for a GPU alone."""

    def setup_device(self, device: torch.device) -> None:
        """It is there."""

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """None."""
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        """There is one."""
        return [0]

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """There is one."""
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        """There is one."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """As long as it is made."""
        return True


@final
class SecondDevice:
    """The device while it is there.

    Attributes:
        device: for `.to`.
        accelerator: for a Trainer.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.device = torch.device(NAME, 0)
        self.accelerator = SecondAccelerator()

    @property
    def calls(self) -> Counter[str]:
        """How often each operation was computed there."""
        return self._backend.calls

    @property
    def waits(self) -> Counter[str]:
        """How often the host would have waited for the device, by what it waited for."""
        return self._backend.waits

    @property
    def copies(self) -> int:
        """How often something was copied to the device."""
        return self._backend.copies


def can_stand_in() -> bool:
    """Whether there can be one: not where a CUDA device is, which is better, nor by a torch without such backends.

    Example:
        >>> can_stand_in() or torch.cuda.is_available()
        True
    """
    return can_register() and not torch.cuda.is_available()


@contextmanager
def second_device() -> Iterator[SecondDevice]:
    """Inside, torch has one device more, whose tensors have numbers: whole searches run there.

    An operation that mixes its tensors with those of the CPU is refused where CUDA refuses it: a number (a tensor
    without dimensions) of the CPU may stand in arithmetic, and indices of the CPU may pick from what is on the device.
    Random numbers there are not those of the CPU. Its memory is that of the CPU, so it tells nothing of speed.
    torch counts its devices at the first backward pass of a process: enter this once before, in a conftest.py say.

    Yields:
        The device, and what was counted on it.

    Raises:
        RuntimeError: in this process torch has a backend of somebody else's, or none can be made: see `can_stand_in`.

    Example:
        >>> from torch import nn
        >>> with second_device() as second:
        ...     layer = nn.Linear(2, 1).to(second.device)
        ...     print(layer(torch.ones(3, 2, device=second.device)).device)
        ...     try:
        ...         layer(torch.ones(3, 2))
        ...     except RuntimeError as error:
        ...         print(str(error)[:55])
        second_device:0
        Expected all tensors to be on the same device, but foun
    """
    if not can_stand_in():
        raise RuntimeError("no stand-in can be made: this torch knows no backends in Python, or has a CUDA device")
    with present() as backend:
        yield SecondDevice(backend)
