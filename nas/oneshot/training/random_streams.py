"""The global random generators: their states as plain data, and streams that keep to themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy
import torch

from nas.checks import check_int
from nas.random_state import device_states, host_states, set_device_states, set_host_states


@final
class RandomStream:
    """Global random generators of its own for some code: that of others neither moves them nor is moved.

    Args:
        seed: where it begins.
    """

    def __init__(self, seed: int) -> None:
        self._states: tuple[Any, ...] | None = None
        self._seed = check_int("seed", seed, where="RandomStream")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block the global generators of Python, numpy and torch (on the CPU) are those of the stream."""
        outside = host_states()
        if self._states is None:
            random.seed(self._seed)
            numpy.random.seed(self._seed)
            # Not torch.manual_seed, which would seed the generators of all devices too.
            torch.set_rng_state(torch.Generator().manual_seed(self._seed).get_state())
        else:
            set_host_states(self._states)
        try:
            yield
        finally:
            self._states = host_states()
            set_host_states(outside)


def all_states() -> dict[str, Any]:
    """The states of all global generators, as numbers, text and tensors."""
    twister: tuple[Any, ...] = numpy.random.get_state()  # type: ignore[assignment]  # of this kind, unless asked for a dict
    kind, keys, place, has_gauss, gauss = twister
    version, numbers, gauss_next = random.getstate()
    return {
        "python": [version, list(numbers), gauss_next],
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), int(place), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "devices": device_states(),
    }


def restore_states(states: dict[str, Any]) -> None:
    """Sets all global generators; those of devices that are not here are left out."""
    version, numbers, gauss_next = states["python"]
    random.setstate((version, tuple(numbers), gauss_next))
    kind, keys, place, has_gauss, gauss = states["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), place, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    # Under "cuda" in checkpoints of before.
    set_device_states(states["devices"] if "devices" in states else {"cuda": states["cuda"]})


def seed_all(seed: int) -> None:
    """Seeds all global generators."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
