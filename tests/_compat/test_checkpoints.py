"""Checkpoints are computed again as things were; the private names that this takes are there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as torchs
from torch.utils.checkpoint import checkpoint

from nas._compat.checkpoints import Again, checkpointed_part, noticing_checkpoints


class Things:
    """A number that is noted, and what was read of it."""

    def __init__(self) -> None:
        self.number, self.read = 1, list[int]()

    def note(self) -> Any:
        then = self.number
        return lambda: self.as_then(then)

    @contextmanager
    def as_then(self, number: int) -> Iterator[None]:
        now, self.number = self.number, number
        try:
            yield
        finally:
            self.number = now

    def part(self, x: Tensor) -> Tensor:
        assert checkpointed_part() is not None
        self.read.append(self.number)
        return (self.number * x).exp()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_part_is_computed_again_as_things_were(reentrant: bool, nested: bool) -> None:
    things, x = Things(), torch.tensor(0.5, requires_grad=True)

    def outer(x: Tensor) -> Tensor:
        y: Tensor = checkpoint(things.part, x, use_reentrant=reentrant)
        return y

    with noticing_checkpoints(things.note):
        y = checkpoint(outer if nested else things.part, x, use_reentrant=reentrant)
        assert checkpointed_part() is None
    things.number = 5
    (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    assert torch.allclose(gradient, x.exp())
    assert torch.allclose(torch.autograd.grad(gradient, x)[0], x.exp())
    assert things.number == 5
    assert set(things.read) == {1}
    assert len(things.read) > 1


def test_outside_of_it_both_variants_are_those_of_torch() -> None:
    layer, x = nn.Linear(1, 1), torch.ones(1, 1, requires_grad=True)
    with noticing_checkpoints(Things().note):
        patched = vars(torchs).copy()
    assert vars(torchs) != patched
    y = checkpoint(layer, x, use_reentrant=True)
    assert "CheckpointFunction" in type(y.grad_fn).__name__
    with pytest.raises(RuntimeError, match="incompatible with .grad"):
        torch.autograd.grad(y.sum(), x)


def test_a_context_is_entered_again() -> None:
    things = Things()
    context = Again(lambda: things.as_then(3))
    for _ in range(2):
        with context:
            assert things.number == 3
        assert things.number == 1
