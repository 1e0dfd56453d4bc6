"""What torch calls the node that a function leaves which is differentiated once; how it counts who holds memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas._compat.gradients import differentiates_once, holders_of, place_of


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


def test_views_lie_in_one_place_and_are_counted() -> None:
    tensor = torch.zeros(4)
    place = place_of(tensor)
    alone = holders_of(place)
    view = tensor[1:].detach()
    assert place_of(view) == place != place_of(tensor.clone())
    assert holders_of(place) == alone + 1
    del view
    assert holders_of(place) == alone


def test_a_gradient_that_torch_takes_over_is_counted() -> None:
    parameter, gradient = nn.Parameter(torch.zeros(4)), torch.ones(4)
    alone = holders_of(place_of(gradient))
    parameter.grad = gradient.detach()
    assert holders_of(place_of(gradient)) == alone + 1
    parameter.grad = None
    assert holders_of(place_of(gradient)) == alone
