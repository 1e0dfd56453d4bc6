"""The model that was given runs as in inference, with its own hooks, and is left as it was."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from nas import NasValueError
from nas.export.given_model import GivenModel
from nas.export.onnx_call import take_apart


class Changes(nn.Module):
    """Whatever a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.kept: list[object] = ["first"]
        self.found: dict[str, object] = {"inner": [1]}
        self.name = "before"

    def train(self, mode: bool = True) -> Changes:
        with torch.no_grad():
            self.layer.weight.data += 0.0 if mode else 1e-3  # as adapters are merged into weights
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.kept.append(x)
        self.found["x"] = x
        self.found["inner"].append(2)  # type: ignore[attr-defined]  # it is a list
        self.name = "after"
        self.other = x
        x.zero_()
        return self.layer(x) + self.calls


def test_it_is_left_as_it_was() -> None:
    net = Changes().train()
    net.layer.eval()
    weight, version = net.layer.weight.detach().clone(), net.layer.weight._version
    x = torch.randn(2, 4)
    before, numbers = x.clone(), torch.get_rng_state()
    given = GivenModel(net)
    outputs = [given.run(take_apart(net, x), [x])[""] for _ in range(2)]
    assert torch.equal(*outputs), "each call begins from the same state"
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert net.training
    assert not net.layer.training
    assert torch.equal(net.layer.weight, weight)
    assert net.layer.weight._version == version, "what autograd has recorded stays valid"
    assert (net.calls.item(), net.kept, net.name) == (0, ["first"], "before")
    assert net.found == {"inner": [1]}
    assert "other" not in vars(net)


def test_random_numbers_and_gradients_are_not_touched() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    loss, x = net(torch.randn(2, 4)).sum(), torch.randn(2, 4)
    state, python = torch.get_rng_state(), random.getstate()
    first, second = (GivenModel(net).run(take_apart(net, x), [x])[""] for _ in range(2))
    assert torch.equal(first, second), "dropout is off"
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    loss.backward()  # what was recorded before is still good


def test_what_goes_wrong_is_told_on_one_line() -> None:
    net = nn.Linear(4, 3)
    with pytest.raises(NasValueError, match=r"the model must run \(mat1 and mat2[^\n]*$|the model must run \(addmm"):
        GivenModel(net).run(take_apart(net, torch.zeros(2, 4)), [torch.zeros(2, 5)])
