"""A search that goes on draws the numbers that it would have drawn, on any device."""

from __future__ import annotations

from typing import Any

import torch

from nas.oneshot.training.random_streams import all_states, restore_states


def test_a_checkpoint_holds_the_numbers_of_every_device(other_device: Any) -> None:
    def draw() -> list[list[float]]:
        return [torch.rand(3, device=place).tolist() for place in ("cpu", other_device.device)]

    states = all_states()
    expected = draw()
    assert draw() != expected
    restore_states(states)
    assert draw() == expected
