"""What is taken for granted of torch's counts of memory."""

from __future__ import annotations

import torch
from torch import nn

from nas._compat.memory import holders_of, place_of


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
