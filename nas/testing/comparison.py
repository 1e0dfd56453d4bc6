"""What the contract suites compare by: trees of values to the last bit, and what is global in a process."""

from __future__ import annotations

import os
import random
import signal
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import torch

from nas.errors import NasError


def refused(act: Callable[[], object], words: str, error: type[NasError] = NasError) -> None:
    """Asserts that something is refused, with words in the message."""
    try:
        act()
    except error as caught:
        message = str(caught)
    else:
        raise AssertionError(f"this must be refused, with {words!r} in the message")
    assert words in message, f"{words!r} should be in: {message}"


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Where two trees of dicts, lists, tensors and values differ, to the last bit."""
    if isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor):
        same = found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(found, expected)
        return [] if same else [where]
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        names = sorted({*found, *expected}, key=str)
        missing = object()
        pairs = [(str(name), found.get(name, missing), expected.get(name, missing)) for name in names]
        return [d for name, one, other in pairs for d in differences(one, other, f"{where}/{name}".lstrip("/"))]
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple) and len(found) == len(expected):
        pairs = [(str(i), one, other) for i, (one, other) in enumerate(zip(found, expected, strict=True))]
        return [d for name, one, other in pairs for d in differences(one, other, f"{where}/{name}".lstrip("/"))]
    return [] if type(found) is type(expected) and bool(found == expected) else [where]


def process_state() -> dict[str, Any]:
    """What a search must leave as it was."""
    kind, keys, *place = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(numpy.array(keys, dtype="int64")), *place],
        "torch": torch.get_rng_state(),
        "warnings": list(warnings.filters),
        "signals": {number.name: signal.getsignal(number) for number in signal.Signals},
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark],
        "type": torch.get_default_dtype(),
    }
