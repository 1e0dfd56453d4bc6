"""Measures what a step of a relaxed supernet costs beside loops over the candidates; prints the table of its page.

`python docs/mixed_operations.py` runs all of it, `--only NAME` one space. The sides of each ratio take turns within one
run, and the median of their ratios is printed. What is counted is the time of the processor, with one thread, so that
others on the machine disturb little; where there is a CUDA device, `--device cuda` takes the time of the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

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
    seconds: list[float] = field(default_factory=list)

    def step(self) -> None:
        """One of the architecture and one of the weights."""
        weights, architecture = list(self.net.model.parameters()), list(self.net.architecture.parameters())
        every = [*weights, *architecture]
        with frozen(self.net.model.parameters(), really=self.freezes):
            self.net.architecture.mix()
            self._gradients(every if self.plain else architecture)
        with torch.enable_grad() if self.plain else torch.no_grad():
            self.net.architecture.mix()
        self._gradients(every if self.plain else weights)

    def _gradients(self, parameters: list[nn.Parameter]) -> None:
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
    "without folding": Speed(fold=False),
    "without sharing": Speed(share=False),
    "all merged": Speed(merge=True),
    "checkpoints": Speed(checkpoint_cells=True),
    "compiled": Speed(compile=True),
    "CUDA graphs": Speed(cuda_graphs=True),
    "compiled, CUDA graphs": Speed(compile=True, cuda_graphs=True),
}
"""The loops: contiguous and with all gradients; channels last, and with the gradients alone that a phase needs."""


class Operations(TorchDispatchMode):
    """Counts operations, and the bytes that they read and write; views left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not (func.is_view or any(word in str(func) for word in ("empty", "_unsafe_view"))):
            self.number += 1
            for leaf in tree_leaves((args, out)):
                if isinstance(leaf, Tensor):
                    self.bytes += leaf.numel() * leaf.element_size()
        return out


LAUNCHES = ("LaunchKernel", "GraphLaunch", "MemcpyAsync", "MemsetAsync")


def launches(side: Side) -> int:
    """What is launched on the device in a step; without one, the operations of a step."""
    if not side.x.is_cuda:
        counted = Operations()
        with counted:
            side.run()
        return counted.number
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        side.run()
    return sum(event.count for event in found.key_averages() if any(name in event.key for name in LAUNCHES))


def floors(side: Side) -> tuple[float, float]:
    """Seconds of a step by its arithmetic at the rate of one large convolution, and by its bytes at that of a copy."""
    with FlopCounterMode(display=False) as flops:
        side.step()
    counted = Operations()
    with counted:
        side.step()
    device = side.x.device
    images = 512 if side.x.is_cuda else 16
    x = torch.randn(images, 64, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    large = nn.Conv2d(64, 64, 3, padding=1, bias=False).to(device)
    one = _fastest(lambda: large(x), device)
    rate = 2 * images * 32 * 32 * 9 * 64 * 64 / one
    copied = torch.randn(images << 18, device=device)
    target = torch.empty_like(copied)
    bandwidth = 2 * 4 * copied.numel() / _fastest(lambda: target.copy_(copied), device)
    return flops.get_total_flops() / rate, counted.bytes / bandwidth


def now(device: torch.device) -> float:
    """Seconds of the processor; of the clock, when it has done its work, for a CUDA device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(20):
        start = now(device)
        run()
        times.append(now(device) - start)
    return min(times[2:])


def peak_megabytes(name: str, side: str, device: str) -> float:
    """Of one step, in a process of its own: above what the supernet takes itself."""
    command = [sys.executable, __file__, "--only", name, "--memory", side, "--device", device]
    return float(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


def print_memory(name: str, side: str, device: str) -> None:
    made = sides_of(CASES[name], [side], device)[side]
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        for _ in range(WARM_UP):
            made.run()
        print((torch.cuda.max_memory_allocated() - held) / 2**20)
        return
    process, before, peak, done = psutil.Process(), psutil.Process().memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    made.measure()
    done.set()
    watcher.join()
    print((peak - before) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--sides", nargs="+", choices=list(SPEEDS), default=["plain loop", "careful loop", "ours"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--memory", choices=list(SPEEDS), help="print the memory that one side takes, and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print_memory(given.only, given.memory, given.device)
        return
    counted = "launches" if given.device == "cuda" else "operations"
    print(
        f"| space | how | seconds | of the plain loop | of the careful loop | memory, of the plain loop | {counted} |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in [given.only] if given.only else CASES:
        sides = sides_of(CASES[name], given.sides, given.device)
        for side in sides.values():
            for _ in range(WARM_UP if given.device == "cuda" else 1):
                side.run()
        for _ in range(given.repeats):
            for side in sides.values():
                side.measure()
        memory = {key: peak_megabytes(name, key, given.device) for key in sides}
        for key, side in sides.items():
            ratios = [
                statistics.median(a / b for a, b in zip(side.seconds, sides[of].seconds, strict=True))
                if of in sides
                else 0
                for of in ("plain loop", "careful loop")
            ]
            share = memory[key] / memory.get("plain loop", memory[key])
            seconds = statistics.median(side.seconds)
            cells = [f"{seconds:.3f}", *(f"{r:.2f}" for r in ratios), f"{share:.2f}", str(launches(side))]
            print(f"| {name} | {key} | " + " | ".join(cells) + " |", flush=True)
        if "ours" in sides:
            arithmetic, moved = floors(sides["ours"])
            own = statistics.median(sides["ours"].seconds)
            print(
                f"| {name} | floor of ours: arithmetic, bytes | {arithmetic:.3f}, {moved:.3f} "
                f"| {arithmetic / own:.2f}, {moved / own:.2f} of ours | | | |",
                flush=True,
            )


if __name__ == "__main__":
    main()
