"""Steps of relaxed supernets, computed in several ways: what the figures of mixed operations are taken of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas import LayerChoice, ModelSpace, ValueChoice
from nas.model_zoo import NASBench201, darts
from nas.oneshot import RelaxedSupernet, Speed, compile_whole, frozen, optimise


def loop(outputs: Sequence[Tensor | None], weights: Tensor) -> Tensor:
    """The plain loop that everybody writes."""
    total: Tensor | None = None
    for output, weight in zip(outputs, weights.unbind(), strict=True):
        if output is not None:
            total = output * weight if total is None else total + output * weight
    assert total is not None
    return total


def convolution(channels: tuple[int, int], kernel: int) -> nn.Module:
    return nn.Conv2d(*channels, kernel, padding=kernel // 2)


def lenet() -> nn.Module:
    """Two choices of a convolution of 1x1, 3x3 or 5x5."""

    def choice(label: str, *channels: int) -> nn.Module:
        inside, out = channels
        return LayerChoice({str(k): partial(convolution, (inside, out), k) for k in (1, 3, 5)}, label=label)

    return nn.Sequential(
        choice("first", 1, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        choice("second", 16, 32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )


def widths() -> nn.Module:
    """Convolutions whose widths are chosen."""
    width = [ValueChoice([16, 32, 64], label=f"width {i}") for i in range(4)]
    layers: list[nn.Module] = []
    before = 3
    for i, after in enumerate(width):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, stride=1 + i % 2, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A space, and a batch for it."""

    factory: Callable[[], nn.Module]
    shape: tuple[int, ...]


CASES = {
    "LeNet-like, batch 64": Case(factory=lenet, shape=(64, 1, 28, 28)),
    "DARTS CIFAR, batch 16": Case(factory=lambda: darts(channels=16, cells=8, none=True), shape=(16, 3, 32, 32)),
    "DARTS CIFAR, batch 64": Case(factory=lambda: darts(channels=16, cells=8, none=True), shape=(64, 3, 32, 32)),
    "NAS-Bench-201, batch 64": Case(factory=lambda: NASBench201(), shape=(64, 3, 32, 32)),
    "widths, batch 64": Case(factory=widths, shape=(64, 3, 32, 32)),
}


@dataclass(kw_only=True)
class Side:
    """One way to compute the steps."""

    net: RelaxedSupernet
    x: Tensor
    y: Tensor
    plain: bool = False
    """Whether all gradients are computed in both phases."""
    freezes: bool = False
    """Whether weights get no gradients in the phase of the architecture."""
    handwritten: bool = True
    autocast: torch.dtype | None = None
    """In which precision, where it is not float32."""
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights, self.architecture = [*self.net.model.parameters()], [*self.net.architecture.parameters()]

    def step(self) -> None:
        """One of the architecture and one of the weights."""
        every = [*self.weights, *self.architecture]
        with frozen(self.weights, really=self.freezes):
            self.net.architecture.mix()
            self._gradients(every if self.plain else self.architecture)
        with torch.enable_grad() if self.plain else torch.no_grad():
            self.net.architecture.mix()
        self._gradients(every if self.plain else self.weights)

    def _gradients(self, parameters: list[nn.Parameter]) -> None:
        with torch.autocast(self.x.device.type, self.autocast, enabled=self.autocast is not None):
            loss = functional.cross_entropy(self.net.model(self.x), self.y)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        for parameter in parameters:
            parameter.grad = None

    def run(self) -> None:
        """A step; by the loop, if it is that of a loop."""
        with mock.patch("nas.oneshot.relaxed.mixtures.weighted_sum", loop) if self.handwritten else nullcontext():
            self.step()

    def measure(self) -> None:
        """Takes the time of a step."""
        start = now(self.x.device)
        self.run()
        self.seconds.append(now(self.x.device) - start)


def sides_of(case: Case, names: Sequence[str], device: str) -> dict[str, Side]:
    """Ways to compute the steps of a space, by name, each with a supernet of its own."""
    torch.manual_seed(0)
    x, y = torch.randn(case.shape, device=device), torch.randint(0, 10, case.shape[:1], device=device)
    made: dict[str, Side] = {}
    for name in names:
        net = RelaxedSupernet(ModelSpace(case.factory))
        net.model.to(device).train()
        net.architecture.to(device)
        speed = SPEEDS[name]
        if speed is not None:
            compile_whole(net, speed, optimise(net, (x[:2],), speed))
            made[name] = Side(net=net, x=x, y=y, freezes=True, handwritten=False)
            continue
        last = name == "careful loop"
        if last:
            net.model.to(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        made[name] = Side(net=net, x=x.contiguous(memory_format=layout), y=y, plain=not last)
    return made


WARM_UP = 6
"""Steps until kernels are compiled and CUDA graphs recorded."""
SPEEDS: dict[str, Speed | None] = {
    "plain loop": None,
    "careful loop": None,
    "ours": Speed(),
    "without CUDA graphs": Speed(cuda_graphs=False),
    "without folding": Speed(fold=False),
    "without sharing": Speed(share=False),
    "all merged": Speed(merge=True),
    "checkpoints": Speed(checkpoint_cells=True),
    "compiled": Speed(compile=True),
    "CUDA graphs": Speed(cuda_graphs=True),
    "compiled, CUDA graphs": Speed(compile=True, cuda_graphs=True),
}
"""The loops: contiguous and with all gradients; channels last, and with the gradients alone that a phase needs."""


def now(device: torch.device) -> float:
    """Seconds of the processor; of the clock, when it has done its work, for a CUDA device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
