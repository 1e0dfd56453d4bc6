"""Seeds for trials, and the global random generators around them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor

from nas.checks import check_int
from nas.whole_process import SharedSetting, generators_if_free, generators_taken

Rng: TypeAlias = int | random.Random


def as_rng(seed: Rng, name: str = "seed") -> random.Random:
    """A generator of its own for a seed; a generator is passed through.

    Args:
        seed: an int or a `random.Random`.
        name: of the argument, for the message.

    Raises:
        NasTypeError: neither an int nor a `random.Random`.
    """
    if isinstance(seed, random.Random):
        return seed
    return random.Random(check_int(name, seed, or_else="a random.Random", mend="say 0"))


def derive_seed(*parts: int) -> int:
    """A 32-bit seed that depends on all the parts: (experiment's seed, trial number, repeat).

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


@contextmanager
def one_thread() -> Iterator[None]:
    """Makes torch work in one thread: small matrices go faster so, and to the same bits on every number of cores."""
    with _ONE_THREAD.held():
        yield


_ONE_THREAD = SharedSetting(torch.get_num_threads, torch.set_num_threads, 1)


def host_states() -> tuple[Any, ...]:
    """The states of the global generators of Python, numpy and torch on the CPU."""
    return random.getstate(), numpy.random.get_state(), torch.get_rng_state()


def set_host_states(states: tuple[Any, ...]) -> None:
    """Puts back what `host_states` has returned."""
    random.setstate(states[0])
    numpy.random.set_state(states[1])
    torch.set_rng_state(states[2])


def device_states() -> dict[str, list[Tensor]]:
    """The states of the generators of the accelerator's devices, under its kind ("cuda"); none where none is in use."""
    module = _accelerator()
    if module is None or not getattr(module, "is_initialized", module.is_available)():
        return {}
    return {_kind(): [module.get_rng_state(*place) for place in _places(module)]}


def set_device_states(states: Mapping[str, list[Tensor]]) -> None:
    """Puts back what `device_states` has returned; states of devices that are not here are left out."""
    module = _accelerator()
    if module is not None:
        for place, state in zip(_places(module), states.get(_kind(), []), strict=False):
            module.set_rng_state(state, *place)


def _kind() -> str:
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None else found.type


def _accelerator() -> Any:
    """torch's module of it."""
    return torch.get_device_module(_kind()) if torch.accelerator.is_available() else None


def _places(module: Any) -> list[tuple[int, ...]]:
    """What names each device to the functions of its generators; for the one of Apple's machines, nothing does."""
    return [()] if _kind() == "mps" else [(index,) for index in range(module.device_count())]


@contextmanager
def untouched(*, devices: bool = False) -> Iterator[None]:
    """Afterwards the global generators on the CPU are as they were before, whatever is drawn inside the block.

    Where another thread has seeded them, for a trial that it runs, they are that thread's, and left to it.

    Args:
        devices: whether those of the accelerator's devices are, too.

    Example:
        >>> before = torch.get_rng_state()
        >>> with untouched():
        ...     noise = torch.randn(3)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    with generators_if_free() as taken:
        if taken:
            with _put_back(devices=devices):
                yield
        else:
            yield


@contextmanager
def _put_back(*, devices: bool) -> Iterator[None]:
    python, torchs = random.getstate(), torch.get_rng_state()
    numpys = numpy.random.get_bit_generator()  # type: ignore[attr-defined]  # not in numpy's stubs, as the next one
    numpy.random.set_bit_generator(_scratch())  # type: ignore[attr-defined]
    on_devices = device_states() if devices else {}
    try:
        yield
    finally:
        set_device_states(on_devices)
        random.setstate(python)
        numpy.random.set_bit_generator(numpys)  # type: ignore[attr-defined]
        torch.set_rng_state(torchs)


@cache
def _scratch() -> numpy.random.MT19937:
    """What numpy draws from meanwhile: to read and set the state of a generator takes 0.1 ms, as a new one does."""
    return numpy.random.MT19937(0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of Python, numpy and torch (on devices too), and afterwards puts them back.

    Inside, they are this thread's: another one that wants to seed them waits.
    """
    with generators_taken(), _seeded(seed):
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before, on_devices = host_states(), device_states()
    random.seed(seed)
    numpy.random.seed(seed)
    _seed_torch(seed)
    try:
        yield
    finally:
        set_host_states(before)
        set_device_states(on_devices)


def _seed_torch(seed: int) -> None:
    # torch.manual_seed formats three stack traces for accelerators that are not in use yet: 0.25 ms for each trial.
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
