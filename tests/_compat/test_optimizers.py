"""What is taken for granted of the private names of optimizers and schedulers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook

from nas._compat.optimizers import has_step_hooks, mark_as_followed, tell_schedulers


def make() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


def test_hooks_of_steps_are_seen() -> None:
    optimizer = make()
    assert not has_step_hooks(optimizer)
    for register in (optimizer.register_step_pre_hook, optimizer.register_step_post_hook):
        handle = register(lambda *args: None)
        assert has_step_hooks(optimizer)
        handle.remove()
    handle = register_optimizer_step_post_hook(lambda *args: None)
    assert has_step_hooks(optimizer)
    handle.remove()
    assert not has_step_hooks(optimizer)


@pytest.mark.parametrize("told", [True, False])
def test_a_scheduler_leaves_a_marked_step_and_wants_to_be_told(told: bool) -> None:
    optimizer = make()

    class Step:
        def __call__(self) -> None:
            if told:
                tell_schedulers(optimizer)

    step = Step()
    mark_as_followed(step)
    optimizer.step = step  # type: ignore[assignment, method-assign]
    scheduler = StepLR(optimizer, 1)
    assert optimizer.step is step
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        optimizer.step()
        scheduler.step()
    assert bool([w for w in heard if "before `optimizer.step()`" in str(w.message)]) is not told
