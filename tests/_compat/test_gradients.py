"""What torch calls the node that a function leaves which is differentiated once; how it counts who holds memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas._compat.gradients import are_followed, differentiates_once, edge_of, holders_of, place_of, sole_end


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


def test_who_is_told_of_gradients_is_seen() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    assert not are_followed(parameters)
    view: Any = parameters[1].expand_as(parameters[1])
    node = view.grad_fn.next_functions[0][0]
    del view
    assert are_followed(parameters)
    del node
    assert not are_followed(parameters)
    hook = parameters[2].register_post_accumulate_grad_hook(lambda parameter: None)
    assert are_followed(parameters)
    hook.remove()
    parameters[0].requires_grad_(False)
    assert not are_followed(parameters)


def test_the_only_end_of_a_graph_is_found() -> None:
    weight, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    middle = (weight * 2).exp()

    def is_middle(node: Any) -> bool:
        return node is middle.grad_fn

    loss = (middle.sin() + middle).sum()
    node = sole_end(loss, is_middle)
    assert node is middle.grad_fn
    (found,) = torch.autograd.grad(loss, [edge_of(node, 0)], retain_graph=True)
    assert torch.equal(found, torch.autograd.grad(loss, middle)[0])
    assert sole_end((middle * other).sum(), is_middle) is None
    assert sole_end(other.sum(), is_middle) is None
    assert sole_end(other, is_middle) is None
