"""Lazy layers get their weights by one call, and everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nas import NasTypeError, NasValueError
from nas.export import fill_lazy_layers, to_onnx


def lazy() -> nn.Sequential:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Dropout(), nn.Flatten(), nn.LazyLinear(2))


def test_they_get_weights_and_the_rest_stays(tmp_path: Path) -> None:
    net = lazy().train()
    net[2].eval()
    fill_lazy_layers(net, torch.randn(2, 3, 6, 6))
    assert net[4].weight.shape == (2, 64)
    assert [module.training for module in net] == [True, True, False, True, True]
    assert torch.equal(net[1].running_mean, torch.zeros(4)), "no statistics are taken"
    weight = net[4].weight.detach().clone()
    fill_lazy_layers(net, "nothing to do, so the example does not count")
    assert torch.equal(net[4].weight, weight)
    assert to_onnx(net, torch.randn(2, 3, 6, 6), tmp_path / "net.onnx").dynamic_batch


def test_lazy_layers_with_loaded_weights_need_their_call_too(tmp_path: Path) -> None:
    source, net, x = lazy(), lazy(), torch.randn(2, 3, 6, 6)
    fill_lazy_layers(source, x)
    net.load_state_dict(source.state_dict())
    with pytest.raises(NasValueError, match="on the meta device or lazy.*fill_lazy_layers"):
        to_onnx(net, x, tmp_path / "net.onnx")
    fill_lazy_layers(net, x)
    assert type(net[4]) is nn.Linear
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in net.state_dict().items())
    assert to_onnx(net, x, tmp_path / "net.onnx").dynamic_batch


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(NasTypeError, match=r"must be a torch\.nn\.Module"):
        fill_lazy_layers(nn.LazyLinear, torch.zeros(2, 3))  # type: ignore[arg-type]
    with pytest.raises(NasTypeError, match="a tensor or a tuple of tensors"):
        fill_lazy_layers(lazy(), 3)
    with pytest.raises(NasValueError, match="the model must run"):
        fill_lazy_layers(lazy(), torch.zeros(2, 3))
