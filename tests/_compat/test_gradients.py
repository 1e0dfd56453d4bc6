"""What torch calls the node that a function leaves which is differentiated once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas._compat.gradients import differentiates_once


class Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def test_a_marked_function_is_found_which_torch_passes_over() -> None:
    weight = torch.ones(2, requires_grad=True)
    loss = (Marked.apply(weight) ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    assert torch.autograd.grad(gradient.sum(), weight, allow_unused=True, retain_graph=True) == (None,), "not 16"
    assert differentiates_once([gradient])
    (plain,) = torch.autograd.grad((weight**3).sum(), weight, create_graph=True)
    assert not differentiates_once([plain, loss.detach()])
