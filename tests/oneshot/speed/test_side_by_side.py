"""What is launched in a step of the DARTS space: counted, so that it does not creep back."""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from nas import LayerChoice, ModelSpace
from nas.model_zoo import NASBench201, darts
from nas.oneshot import RelaxedSupernet, Speed, frozen, optimise
from nas.oneshot.speed.joined import join

LAST = torch.channels_last


def lies_last(tensor: Tensor) -> bool:
    """Whether cuDNN takes it for one whose channels lie together: by its strides, be they those of a part."""
    least = 0
    for side in (1, 3, 2, 0):
        if tensor.stride(side) < least or (side == 0 and least == tensor.stride(1)):
            return False
        least = tensor.stride(side) * tensor.shape[side]
    return tensor.stride(1) > 0


class Operations(TorchDispatchMode):
    """Counts operations by name, views left out, and what is moved before it can be computed with.

    On the meta device convolutions yield here what cuDNN yields: channels together where those of what it reads are.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()
        self.conversions: list[str] = []
        """Of a whole tensor to another memory format."""
        self.copies: list[str] = []
        """Of parts, as they lie apart in what they are parts of."""
        self.casts: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1]
        if func.is_view or any(word in name for word in ("empty", "_unsafe_view", "detach", "alias")):
            return out
        self.found[name] += 1
        if name in ("convolution", "convolution_backward"):
            read = args[: 3 if "backward" in name else 2]
            layout = LAST if any(map(lies_last, read[-2:])) else torch.contiguous_format
            for what, tensor in zip(("weight", "input", "gradient"), reversed(read), strict=False):
                self._moved(f"{what} of {name} {tuple(tensor.shape)}", tensor, layout)
            made = out if isinstance(out, tuple) else (out,)
            laid = [t if t is None or t.dim() < 4 else t.contiguous(memory_format=layout) for t in made]
            return tuple(laid) if isinstance(out, tuple) else laid[0]
        if "batch_norm" in name:
            for tensor in args[: 2 if "backward" in name else 1]:
                self._moved(f"what {name} reads {tuple(tensor.shape)}", tensor, LAST)
        if name == "_to_copy" and args[0].dtype != out.dtype:
            self.casts.append(tuple(out.shape))
        elif name in ("clone", "_to_copy", "copy_") and out.dim() == 4:
            self.copies.append(f"{name} {tuple(out.shape)}")
        return out

    def _moved(self, what: str, tensor: Tensor, layout: torch.memory_format) -> None:
        if not tensor.is_contiguous(memory_format=layout):
            dense = torch.ops.aten.is_non_overlapping_and_dense.default(tensor)
            (self.conversions if dense else self.copies).append(what)


def space(cells: int) -> Callable[[], nn.Module]:
    return lambda: darts(channels=4, cells=cells, none=True)


class Plain(nn.Module):
    """Two mixtures on one tensor, of candidates that begin alike and go on differently, and one on their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            LayerChoice({**separables(), "pool": lambda: nn.MaxPool2d(3, 1, 1), "same": nn.Identity}, label=label)
            for label in ("first", "second", "third")
        )
        self.stem = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.third(self.first(x) + self.second(x))
        return y.mean((2, 3))


def separables() -> dict[str, Callable[[], nn.Module]]:
    def once(kernel: int, dilation: int) -> list[nn.Module]:
        reach = dilation * (kernel - 1) // 2
        each = nn.Conv2d(8, 8, kernel, padding=reach, dilation=dilation, groups=8, bias=False)
        return [nn.ReLU(), each, nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)]

    return {
        "3": lambda: nn.Sequential(*once(3, 1), *once(3, 1)),
        "5": lambda: nn.Sequential(*once(5, 1), *once(5, 1)),
        "dilated 3": lambda: nn.Sequential(*once(3, 2)),
        "dilated 5": lambda: nn.Sequential(*once(5, 2)),
    }


def operations(
    speed: Speed, factory: Callable[[], nn.Module], device: str = "meta", autocast: torch.dtype | None = None
) -> Operations:
    """Of a step of the architecture and one of the weights; on the meta device, where nothing is done as on a CPU."""
    net = RelaxedSupernet(ModelSpace(factory))
    net.model.train()
    optimise(net, (torch.zeros(2, 3, 8, 8),), speed)
    net.model.to(device)
    net.architecture.to(device)
    x, y = torch.zeros(2, 3, 8, 8, device=device), torch.zeros(2, dtype=torch.long, device=device)
    counted = Operations()
    with counted:
        step(net, x, y, autocast)
    return counted


def step(net: RelaxedSupernet, x: Tensor, y: Tensor, autocast: torch.dtype | None) -> None:
    """One of the architecture and one of the weights."""
    for first in (True, False):
        with frozen(net.model.parameters(), really=first), torch.set_grad_enabled(first):
            net.architecture.mix()
        with (
            frozen(net.model.parameters(), really=first),
            torch.autocast("cpu", autocast, enabled=autocast is not None),
        ):
            loss = functional.cross_entropy(net.model(x), y)
        asked = net.architecture if first else net.model
        torch.autograd.grad(loss, list(asked.parameters()), allow_unused=True)


@pytest.mark.slow
def test_a_step_of_darts_launches_few_operations() -> None:
    """Each candidate by itself takes 5,100; side by side, but each part joined and parted by itself, 3,900."""
    ours, apart = operations(Speed(merge=True), space(3)).found, operations(Speed(merge=False), space(3)).found
    assert sum(ours.values()) <= 1775 < 0.35 * sum(apart.values())
    assert ours["convolution"] + ours["depthwise"] <= 0.3 * apart["convolution"]
    # One for the kernels of all candidates on a tensor, one for their norms, one for gradients where they part.
    assert ours["cat"] <= 190
    assert ours["native_batch_norm"] <= 110
    assert ours["weighted_sums"] == ours["weighted_sums_backward"] == 30


@pytest.mark.parametrize("factory", [Plain, lambda: NASBench201(channels=4, cells=1)], ids=["separable", "dense"])
def test_nothing_is_moved_between_convolutions(factory: Callable[[], nn.Module]) -> None:
    """Without joined kernels 12 gradients and 6 inputs of the separable convolutions were copied, being parts."""
    counted = operations(Speed(), factory)
    assert counted.conversions == []
    # The images come with their channels apart; of each sort of candidate it is seen once that it writes into nothing.
    assert {copy for copy in counted.copies if not copy.startswith("clone")} == set()
    assert len(counted.copies) <= 8


@pytest.mark.slow
def test_only_layers_of_the_model_itself_have_parts_copied() -> None:
    """A factorised reduction reads every other pixel, and its two convolutions lie side by side in what it yields."""
    counted = operations(Speed(), space(3))
    assert counted.conversions == []
    reductions = sum(hasattr(module, "odd") for module in RelaxedSupernet(ModelSpace(space(3))).model.modules())
    assert len(counted.copies) <= 2 * (4 * reductions + 5)  # and the gradients of the last cell, once for each node
    for copy in counted.copies:
        assert "convolution" in copy or copy.startswith("clone")


def test_what_is_cast_is_cast_once() -> None:
    """In bfloat16 all that lies between layers is; joined parameters and their gradients are cast together."""
    counted = operations(Speed(merge=True), Plain, "cpu", torch.bfloat16)
    images, stem, bias, logits = [(2, 3, 8, 8)] * 2, [(8, 3, 3, 3)] * 3, [(8,)] * 3, [(2, 8)] * 4
    assert Counter(counted.casts) == Counter([*images, *stem, *bias, *logits])
    assert counted.found["_foreach_copy_"] == 2 * 2 + 2  # parameters in both phases, their gradients in one


@pytest.mark.parametrize("again", [False, True])
def test_parameters_are_cast_as_they_are_joined(again: bool) -> None:
    layers = [nn.Conv2d(2, 3, 3, bias=False) for _ in range(2)], [nn.Conv2d(2, 2, 1, bias=False).to(memory_format=LAST)]
    weights = [layer.weight for group in layers for layer in group]
    with torch.autocast("cpu", torch.bfloat16):
        ours = join([(group, "weight") for group in layers], casts=True)
    theirs = [torch.cat([layer.weight for layer in group]).bfloat16() for group in layers]
    found = []
    for joined in (ours, theirs):
        total = torch.stack([tensor.pow(3).sum() for tensor in joined if tensor is not None]).sum()
        found.append(torch.autograd.grad(total, weights, create_graph=again))
        if again:
            found[-1] = torch.autograd.grad(torch.stack([g.square().sum() for g in found[-1]]).sum(), weights)
    for a, b in zip([*ours, *found[0]], [*theirs, *found[1]], strict=True):
        assert a is not None
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


class Pools(nn.Module):
    """Mixtures on one tensor, of poolings with norms without weights, and of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        candidates: dict[str, Callable[[], nn.Module]] = {
            "max": lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(3, affine=False)),
            "average": lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(3, affine=False)),
            "convolution": lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
        }
        self.edges = nn.ModuleList(LayerChoice(candidates, label=f"edge {i}") for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = sum(edge(x) for edge in self.edges)
        return y.mean((2, 3))


def test_norms_of_one_tensor_count_together() -> None:
    found = operations(Speed(merge=True), Pools).found
    assert found["_foreach_lerp_"] == found["_foreach_add_"] == 2 * 2  # side by side, and behind the poolings
    assert "lerp_" not in found
    assert "add_" not in found


def agree(device: str) -> None:
    """By the kernels of a device a supernet computes what it is made of, statistics and second gradients too."""
    found = []
    for speed in (Speed(merge=True), None):
        torch.manual_seed(0)
        net = RelaxedSupernet(ModelSpace(Plain))
        net.model.double().train()
        net.architecture.double()
        x = torch.randn(2, 3, 6, 5, dtype=torch.double)
        if speed is not None:
            optimise(net, (x,), speed)
        net.model.to(device)
        net.architecture.to(device)
        net.architecture.mix()
        y = net.model(x.to(device))
        assert by_our_operator(y) == (speed is not None)
        wanted = [*net.model.parameters(), *net.architecture.parameters()]
        first = torch.autograd.grad(y.square().sum(), wanted, retain_graph=True)
        again = torch.autograd.grad(y.square().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in again]).sum(), wanted)
        found.append([y, *first, *again, *second, *net.model.buffers()])
    assert len(found[0]) == len(found[1])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours.double(), theirs.double(), rtol=1e-9, atol=1e-9)


def by_our_operator(y: Tensor) -> bool:
    """Whether depthwise convolutions that were computed together are among what has made a tensor."""
    left, seen = [y.grad_fn], set()
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return any("Together" in node.name() for node in seen)


needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
@pytest.mark.slow
def test_by_the_interpreter_it_computes_the_same() -> None:
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_side_by_side as t; "
    done = subprocess.run(
        [sys.executable, "-c", script + "t.agree('cpu'); print('all alike')"],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        timeout=600,
        check=False,
    )
    assert "all alike" in done.stdout, done.stderr


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_device_it_computes_the_same() -> None:
    agree("cuda")
