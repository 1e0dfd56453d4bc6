"""The kernels for CUDA: run by Triton's interpreter against the naive loop, and on a device where there is one; and
compiled for devices, which takes none."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.long

CHECK = """
import itertools, sys, torch
from nas.oneshot.relaxed.sums import kernels
device = sys.argv[1]

def check(outputs, weights, tolerance):
    kind = outputs[0].dtype
    wide = [o.double() for o in outputs]
    expected = sum(w * o for w, o in zip(weights.double(), wide))
    total = kernels.forward(outputs, weights, kind)
    assert total.dtype == kind and total.shape == outputs[0].shape
    assert torch.allclose(total.double(), expected, **tolerance), (total.double() - expected).abs().max()
    gradient = torch.randn_like(outputs[0].contiguous())
    for needed in ([True] * len(outputs) + [True], [False] * len(outputs) + [True], [True] * len(outputs) + [False]):
        *made, of_weights = kernels.backward(gradient, outputs, weights, needed)
        if needed[0]:
            for m, w in zip(made, weights):
                assert torch.allclose(m.double(), w.double() * gradient.double(), **tolerance)
        if needed[-1]:
            dots = torch.stack([(gradient.double() * o).sum() for o in wide])
            scale = dots.abs().max().clamp(min=1)
            assert torch.allclose(of_weights.double() / scale, dots / scale, **tolerance)

torch.manual_seed(0)
tight, loose = {"rtol": 1e-5, "atol": 1e-5}, {"rtol": 2e-2, "atol": 2e-2}
for shape in [(1,), (5,), (1025,), (2, 3, 5, 7), (3, 16, 1, 1), (0, 3)]:
    for number in (1, 3, 8):
        check([torch.randn(shape, device=device) for _ in range(number)], torch.rand(number, device=device), tight)
tiny = {"rtol": 1e-12, "atol": 1e-12}
for dtype, tolerance in [(torch.float64, tiny), (torch.bfloat16, loose), (torch.float16, loose)]:
    check([torch.randn(2, 3, 5, 7, device=device).to(dtype) for _ in range(3)],
          torch.rand(3, device=device, dtype=torch.float32 if dtype.itemsize == 2 else dtype), tolerance)
x = torch.randn(2, 12, 5, 3, device=device)
last = x.contiguous(memory_format=torch.channels_last)
weights = torch.tensor([0.5, 0.0, 2.0], device=device)
check([x[:, :4], x[:, 4:8], x[:, 8:]], weights, tight)
check([last[:, :4], last[:, 4:8], last[:, 8:]], weights, tight)
check([last, x, x.transpose(0, 1).contiguous().transpose(0, 1)], weights, tight)
check([x[:, ::2], x[:, 1::2], x[:, :6]], weights, tight)
check([x.new_ones(()).expand(2, 3)] * 3, weights, tight)
rows = kernels._rows(torch.empty_like(last[:, :4]), [last[:, 4:8]])
assert rows[1][0].data_ptr() == last[:, 4:8].data_ptr(), "a slice of channels is read where it is"
assert torch.equal(kernels.forward([x * torch.inf, x], weights[1:], x.dtype), 2 * x)
assert torch.equal(kernels.backward(x * torch.inf, [x], weights[1:2], [True, False])[0], torch.zeros_like(x))
# Sums of many small numbers in half precision, as single precision has them.
ones = [torch.ones(5000, dtype=torch.bfloat16, device=device) for _ in range(3)]
assert torch.equal(kernels.backward(ones[0], ones, weights, [True] * 4)[-1], torch.full((3,), 5000.0, device=device))
# The operator takes them.
from nas.oneshot import weighted_sum
leaves = [x[:, :4].detach().requires_grad_(), x[:, 4:8].detach().requires_grad_()]
alphas = torch.rand(2, device=device, requires_grad=True)
ours = torch.autograd.grad(weighted_sum(leaves, alphas).square().sum(), [*leaves, alphas])
theirs = torch.autograd.grad((leaves[0] * alphas[0] + leaves[1] * alphas[1]).square().sum(), [*leaves, alphas])
assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(ours, theirs))
# Several sums of blocks of the same tensors, at once.
from nas.oneshot.relaxed.sums import Plan, total, weighted_sums
terms = ((0, 0, 0, 0), (0, 1, 1, 4), (0, 2, 0, 1), (0, 3, 1, 5), (1, 0, 0, 2), (1, 1, 1, 6), (2, 0, 0, 3), (2, 0, 1, 7),
         (3, 0, 1, 9))
for layout in (torch.channels_last, torch.contiguous_format):
    wide, own, other = torch.randn(2, 18, 4, 5), torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5, device=device)
    wide, own = (t.to(device).contiguous(memory_format=layout) for t in (wide, own))
    leaves = [t.requires_grad_() for t in (wide[:, :12], wide[:, 12:], own, other)]
    alphas = torch.rand(10, device=device)
    alphas[2] = 0
    alphas.requires_grad_()
    ours = weighted_sums(leaves, alphas, Plan(sums=2, terms=terms), 3)
    theirs = [0, 0]
    for source, block, target, weight in terms:
        theirs[target] = theirs[target] + alphas[weight] * leaves[source][:, block * 3 : block * 3 + 3]
    assert all(torch.allclose(a, b, **tight) for a, b in zip(ours, theirs))
    toward = [torch.randn_like(sum) for sum in theirs]
    for used in ((0, 1), (1,)):
        found = [torch.autograd.grad(sum((sums[i] * toward[i]).sum() for i in used), [*leaves, alphas],
                                     retain_graph=True) for sums in (ours, theirs)]
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*found))
nothing, wrong = torch.tensor([0.0, 1.0], device=device), torch.full((2, 2), torch.nan, device=device)
first, = weighted_sums([wrong, own[:, :2, 0, 0]], nothing, Plan(sums=1, terms=((0, 0, 0, 0), (1, 0, 0, 1))), 2)
assert torch.equal(first, own[:, :2, 0, 0])
parts = [torch.randn(2, 3, device=device).requires_grad_() for _ in range(3)]
assert torch.allclose(total(parts), sum(parts), **tight)
assert all((gradient == 1).all() for gradient in torch.autograd.grad(total(parts).sum(), parts))
# More than one launch takes, and places of 64 bits.
check([torch.randn(3, 7, device=device) for _ in range(100)], torch.rand(100, device=device), tight)
kernels.is_long = lambda tensor: True
check([last[:, :4], last[:, 4:8], last[:, 8:]], weights, tight)
check([torch.randn(3000, device=device) for _ in range(2)], torch.rand(2, device=device), tight)
print("all alike")
"""

COMPILE = """
import sys, torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from nas.oneshot.relaxed.sums import kernels, spread_kernels

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
for dtype in map(vars(torch).get, sys.argv[2:]):
    weights = torch.rand(3, dtype=dtype if dtype.itemsize > 2 else torch.float32)
    x = torch.empty(2, 12, 5, 3, dtype=dtype)
    whole = [torch.empty(2, 4, 5, 3, dtype=dtype) for _ in range(3)]
    for outputs in (whole, [x[:, :4], x[:, 4:8], x[:, 8:]]):
        kernels.forward(outputs, weights, dtype)
        for needed in ([True] * 4, [False, True, False, True], [True] * 3 + [False]):
            kernels.backward(whole[0], outputs, weights, needed)
    # Several sums at once.
    blocks, gradients = [x.contiguous(memory_format=torch.channels_last), whole[0]], whole[:2]
    terms = ((0, 0, 0, 0), (0, 1, 1, 1), (0, 2, 1, 3), (1, 0, 0, 2), (1, 0, 1, 4))
    shares = torch.rand(5, dtype=weights.dtype)
    for sources in (blocks, [x, whole[0]]):
        spread_kernels.forward(sources, shares, terms, 2, 4, dtype)
        for needed in ([True, True, True], [False, True, False]):
            spread_kernels.backward(gradients, sources, shares, terms, needed)
    kernels.total(whole, dtype)
kernels.is_long = lambda tensor: True
kernels.forward(whole, weights, dtype)
kernels.backward(whole[0], whole, weights, [True] * 4)
print(len(compiled), "compiled")
"""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


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
def test_the_interpreter_agrees_with_the_naive_loop() -> None:
    assert "all alike" in run("cpu", TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_device_agrees_with_the_naive_loop() -> None:
    assert "all alike" in run("cuda")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("types", [("float32", "bfloat16"), ("float64", "float16")], ids=" ".join)
def test_they_compile_for_a_device(types: tuple[str, ...], tmp_path: Path) -> None:
    """The interpreter takes what the compiler does not: an annotation, say."""
    found = run("80", *types, script=COMPILE, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert found.strip() == "32 compiled"
