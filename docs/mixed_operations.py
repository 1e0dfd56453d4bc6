"""Measures what a step of a relaxed supernet costs beside loops over the candidates; prints the table of its page.

`python docs/mixed_operations.py` runs all of it, `--only NAME` one space. The sides of each ratio take turns within one
run, and the median of their ratios is printed. What is counted is the time of the processor, with one thread, so that
others on the machine disturb little. `--device cuda` takes the figures of a CUDA device instead, beside what was aimed
at; with `--only NAME` too it is the table of that space there, by the clock, with memory and launches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psutil
import torch
from device_figures import print_figures
from mixed_sides import CASES, SPEEDS, WARM_UP, Side, now, sides_of
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


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
    if given.device == "cuda" and not given.only:
        print_figures("cuda")
        return
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
