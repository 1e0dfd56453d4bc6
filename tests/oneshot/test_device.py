"""A forward pass makes nothing on another device than the model's, and waits for none; seen with tensors that only say
they are on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nas import InputChoice, LayerChoice, ModelSpace, Repeat, ValueChoice
from nas.model_zoo import NASBench201, darts
from nas.oneshot import RelaxedSupernet, Speed, optimise


class Inputs(nn.Module):
    """Inputs of all kinds, one of them missing."""

    def __init__(self) -> None:
        super().__init__()
        self.one = InputChoice(3, n_chosen=2, reduction="mean", label="two of three")
        self.some = InputChoice(3, n_chosen=None, reduction="mean", label="any")
        kernels = {str(k): lambda k=k: nn.Conv2d(3, 3, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
        pools = {"average": lambda: nn.AvgPool2d(3, 1, 1), "same": nn.Identity}
        self.op = LayerChoice({**kernels, **pools}, label="op")
        self.linear = LayerChoice([lambda: nn.Linear(8, 8), lambda: nn.Linear(8, 8), nn.Identity], label="linear")

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(x)
        found: Tensor = self.some([self.one([x, y, None]), None, self.linear(y)])
        return found


class Edges(nn.Module):
    """Two edges of a node, each of convolutions alone, which become one."""

    def __init__(self) -> None:
        super().__init__()
        self.node = InputChoice(3, n_chosen=2, replace=False, each=self._edge, label="node")

    @staticmethod
    def _edge(i: int) -> nn.Module:
        kernels = {str(k): lambda k=k: nn.Conv2d(3, 3, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
        return LayerChoice(kernels, label=f"edge {i}")

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.node([x, x + 1, x + 2])
        return found


def widths() -> nn.Module:
    width = ValueChoice([2, 4], label="width")
    repeated = Repeat(lambda i: nn.Conv2d(width, width, 3, padding=1), depth=(1, 3), label="depth")
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), repeated, nn.Flatten(), nn.Linear(36 * width, 2)
    )


SPACES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "inputs": (Inputs, {}),
    "edges": (Edges, {}),
    "cells": (lambda: darts(channels=4, cells=1, none=True), {}),
    "partial channels": (lambda: darts(channels=4, cells=1), {"partial_channels": 2, "edges": "softmax"}),
    "cells of nodes": (lambda: NASBench201(channels=4, cells=1), {}),
    "widths": (widths, {}),
}


def pretend(module: nn.Module, mode: FakeTensorMode) -> None:
    """Its tensors say that they are on a CUDA device, and have no numbers."""

    def moved(tensor: Tensor) -> Tensor:
        fake = mode.from_tensor(tensor.detach())
        with mode:
            return torch.empty_strided(fake.shape, fake.stride(), dtype=fake.dtype, device="cuda")

    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        module._apply(moved)  # type: ignore[no-untyped-call]  # torch's
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_all_is_done_on_the_device_of_the_model(name: str, merge: bool) -> None:
    factory, options = SPACES[name]
    net = RelaxedSupernet(ModelSpace(factory), **options)
    net.model.train()
    optimise(net, (torch.zeros(2, 3, 8, 8),), Speed(merge=merge))
    mode = FakeTensorMode()
    pretend(net.model, mode)
    pretend(net.architecture, mode)
    with mode:
        net.architecture.mix()
        y = net.model(torch.empty(2, 3, 8, 8, device="cuda"))
    assert y.device.type == "cuda"
    assert y.requires_grad
