"""Depthwise convolutions together are those of torch, by its convolutions, by Triton's interpreter and on a device."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.oneshot.speed.depthwise import Shape, Window, depthwise_together

CHECK = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from test_together import cast, check, twice
from nas.oneshot.speed.depthwise import kernels
for stride in (1, 2):
    for shared in (True, False):
        for last in (True, False):
            check(3, (2, 2, 1, 3), stride=stride, shared=shared, last=last, device=sys.argv[1])
        check(5, (1, 2, 3, 1), stride=stride, shared=shared, dtype=torch.float64, device=sys.argv[1])
check(40, (2, 1), shared=True, device=sys.argv[1])
check(1, (2, 1), shared=True, device=sys.argv[1])
check(3, (2,), shared=False, size=(1, 1), device=sys.argv[1])
for dtype in (torch.bfloat16, torch.float16):
    check(4, (1, 2), shared=True, dtype=dtype, device=sys.argv[1], tolerance=0.1)
kernels._FAR = 0
check(3, (2, 1), stride=2, shared=False, device=sys.argv[1])
twice(sys.argv[1])
cast(sys.argv[1])
print("all alike")
"""

COMPILE = """
import sys, torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from nas.oneshot.speed.depthwise import Shape, Window
from nas.oneshot.speed.depthwise import kernels

class Device:
    # What a kernel is compiled for; there is none to run it.
    def get_current_device(self):
        return 0
    def get_current_stream(self, device):
        return 0
    def get_current_target(self):
        return GPUTarget("cuda", int(sys.argv[1]), 32)

compiled, run = [], JITFunction.run

def compile_only(self, *args, warmup, **options):
    kernel = run(self, *args, warmup=True, **options)
    assert kernel.asm["cubin"]
    compiled.append(kernel)
    return kernel

JITFunction.run = compile_only
driver.set_active(Device())
for far, dtype in zip((2**30, 0), map(vars(torch).get, sys.argv[2:])):
    kernels._FAR = far
    for stride, shared in ((1, True), (2, False)):
        windows = tuple(
            Window(chains=2, kernel=(k, k), padding=(k - 1, k - 1), dilation=(2, 2)) for k in (3, 5)
        )
        shape = Shape(channels=16, stride=(stride, stride), shared=shared, windows=windows)
        weights = [torch.empty(32, 1, *window.kernel, dtype=dtype) for window in windows]
        whole = torch.empty(2, 80, 8, 8, dtype=dtype, memory_format=torch.channels_last)
        x = whole[:, :16] if shared else whole[:, 16:]
        y = kernels.forward(x, weights, shape)
        kernels.to_source(y, x, weights, shape)
        kernels.to_weights(y, x, weights, shape)
print(len(compiled), "compiled")
"""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def naive(x: Tensor, weights: list[Tensor], shape: Shape) -> Tensor:
    outputs, first = [], 0
    for weight, window in zip(weights, shape.windows, strict=True):
        for own in weight.split(shape.channels):
            read = x if shape.shared else x[:, first : first + shape.channels]
            first += shape.channels
            outputs.append(
                functional.conv2d(read, own, None, shape.stride, window.padding, window.dilation, shape.channels)
            )
    return torch.cat(outputs, dim=1)


def check(
    channels: int,
    chains: tuple[int, ...],
    *,
    stride: int = 1,
    shared: bool,
    last: bool = True,
    size: tuple[int, int] = (7, 6),
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    tolerance: float = 1e-4,
) -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    kinds = [(3, 1), (5, 1), (3, 2), (5, 2)]
    windows = tuple(
        Window(chains=number, kernel=(k, k), padding=(d * (k - 1) // 2,) * 2, dilation=(d, d))
        for number, (k, d) in zip(chains, kinds, strict=False)
    )
    shape = Shape(channels=channels, stride=(stride, stride), shared=shared, windows=windows)
    read = channels if shared else sum(chains) * channels
    whole = random(2, read + 2, *size)
    whole = whole.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    x = whole[:, 1 : read + 1]  # a part of what lies there
    weights = [random(w.chains * channels, 1, *w.kernel).requires_grad_() for w in windows]
    ours, theirs = depthwise_together(x, weights, shape), naive(x, weights, shape)
    by_kernels = last and read > 1 and (device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")
    assert ("Together" in str(ours.grad_fn)) == by_kernels
    toward = torch.randn(theirs.shape, generator=generator).to(device, dtype)
    found = [torch.autograd.grad((y * toward).sum(), [whole, *weights], retain_graph=True) for y in (ours, theirs)]
    for a, b in zip((ours, *found[0]), (theirs, *found[1]), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(b.detach().abs().max())))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_they_are_those_of_torch(shared: bool, last: bool, stride: int) -> None:
    check(3, (2, 2, 1, 3), shared=shared, last=last, stride=stride, dtype=torch.float64, tolerance=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_they_are_differentiated_twice(shared: bool) -> None:
    twice("cpu", shared)


def twice(device: str, shared: bool = True) -> None:
    windows = tuple(Window(chains=number, kernel=(3, 3), padding=(1, 1), dilation=(1, 1)) for number in (2, 1))
    shape = Shape(channels=2, stride=(1, 1), shared=shared, windows=windows)
    x = torch.randn(1, 2 if shared else 6, 3, 3, dtype=torch.double, device=device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = [torch.randn(n, 1, 3, 3, dtype=torch.double, device=device, requires_grad=True) for n in (4, 2)]
    assert torch.autograd.gradgradcheck(
        lambda x, *weights: depthwise_together(x, weights, shape),
        (x, *weights),
    )


def test_an_autocast_casts_what_they_read() -> None:
    cast("cpu")


def cast(device: str) -> None:
    windows = (Window(chains=1, kernel=(3, 3), padding=(1, 1), dilation=(1, 1)),)
    shape = Shape(channels=2, stride=(1, 1), shared=True, windows=windows)
    x = torch.randn(1, 2, 3, 3, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(2, 1, 3, 3, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        y = depthwise_together(x, [weight], shape)
    assert y.dtype == torch.bfloat16
    assert [gradient.dtype for gradient in torch.autograd.grad(y.sum(), [x, weight])] == [torch.float32] * 2


def run(device: str, *arguments: str, script: str = CHECK, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, device, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@needs_triton
def test_the_interpreter_agrees() -> None:
    assert "all alike" in run("cpu", str(Path(__file__).parent), TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_device_agrees() -> None:
    assert "all alike" in run("cuda", str(Path(__file__).parent), NVIDIA_TF32_OVERRIDE="0")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "types"), [("80", ("float32", "bfloat16")), ("90", ("float64", "float16"))], ids=["sm_80", "sm_90"]
)
def test_they_compile_for_a_device(target: str, types: tuple[str, ...], tmp_path: Path) -> None:
    """The interpreter takes what the compiler does not."""
    found = run(target, *types, script=COMPILE, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert found.strip() == "12 compiled"
