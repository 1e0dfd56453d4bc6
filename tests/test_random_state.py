"""Random numbers of a device are kept, put back and seeded as those of the CPU are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch

from nas.random_state import seeded, untouched
from nas.testing import can_stand_in, second_device


@pytest.fixture
def device() -> Iterator[torch.device]:
    real = torch.accelerator.current_accelerator()
    if real is not None and torch.accelerator.is_available():
        yield torch.device(real.type, 0)
        return
    if not can_stand_in():
        pytest.skip("this torch knows no backends in Python")
    with second_device() as second:
        yield second.device


def draw(device: torch.device) -> list[float]:
    return torch.rand(3, device=device).tolist()


@pytest.mark.parametrize("guard", [lambda: seeded(7), lambda: untouched(devices=True)], ids=["seeded", "untouched"])
def test_a_device_draws_on_as_if_nothing_had_been_drawn(
    guard: Callable[[], AbstractContextManager[None]], device: torch.device
) -> None:
    torch.manual_seed(3)
    expected = [draw(device), draw(device)]
    torch.manual_seed(3)
    assert draw(device) == expected[0]
    with guard():
        draw(device)
    assert draw(device) == expected[1]


def test_a_seed_makes_the_numbers_of_a_device(device: torch.device) -> None:
    found = []
    for seed in (1, 1, 2):
        with seeded(seed):
            found.append(draw(device))
    assert found[0] == found[1] != found[2]
