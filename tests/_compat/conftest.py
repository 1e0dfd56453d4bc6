"""The stand-in for another device is made known before any test: torch counts devices at its first backward pass."""

import torch

from nas._compat.second_device import can_register, register

if can_register() and not torch.cuda.is_available():
    register()
