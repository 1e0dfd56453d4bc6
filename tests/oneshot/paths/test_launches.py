"""A step of a path does what a step of its architecture does: no operation more, but for the gradients of slices."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from nas import LayerChoice, ModelSpace, Repeat, ValueChoice
from nas.model_zoo import NASBench201, darts
from nas.oneshot import PathSupernet


class Operations(TorchDispatchMode):
    """Counts operations; views left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (func.is_view or any(word in str(func) for word in ("empty", "_unsafe_view", "detach"))):
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(model: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """Of a step, when the optimizer has its state."""
    optimizer = torch.optim.SGD(model.train().parameters(), 0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    step()
    with Operations() as counted:
        step()
    return counted.counts


def network(*, width: bool = False, kernel: bool = False, depth: bool = False) -> nn.Module:
    channels = ValueChoice([4, 8, 6], label="width") if width else 6

    def block(i: int) -> nn.Module:
        size = ValueChoice([3, 5], label=f"kernel {i}") if kernel else 3
        return nn.Sequential(nn.Conv2d(channels, channels, size, padding="same"), nn.BatchNorm2d(channels), nn.ReLU())

    blocks = Repeat(block, (1, 4) if depth else 3, label="depth")
    return nn.Sequential(
        nn.Conv2d(3, channels, 1), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)
    )


SPACES = {
    "darts": ModelSpace(lambda: darts(channels=4, cells=1, none=True)),
    "nas-bench-201": ModelSpace(lambda: NASBench201(channels=4, cells=1)),
    "layers": ModelSpace(
        lambda: nn.Sequential(
            LayerChoice([lambda k=k: nn.Conv2d(3, 4, k) for k in (1, 3)], label="layer"),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 10),
        )
    ),
    "depths": ModelSpace(network, depth=True),
    "widths": ModelSpace(network, width=True),
    "kernels": ModelSpace(network, kernel=True),
    "all of them": ModelSpace(network, width=True, kernel=True, depth=True),
}


@pytest.mark.parametrize("name", SPACES)
def test_operations_of_a_step(name: str) -> None:
    space = SPACES[name]
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8, 8), torch.randint(10, (2,))
    supernet = PathSupernet(space, example_input=x)
    for seed in range(2):
        sample = space.sample(seed)
        supernet.select(sample)
        ours, alone = operations(supernet, x, y), operations(supernet.extract(sample), x, y)
        more = ours - alone
        assert alone - ours == Counter()
        # The gradients of slices: their memory is zeroed at once, and written by lists.
        assert more.total() <= (0 if name in ("darts", "nas-bench-201", "layers", "depths") else 3)
        assert set(more) <= {"aten.new_zeros.default", "aten._foreach_copy_.default"}


@pytest.fixture
def sliced() -> PathSupernet:
    space = SPACES["all of them"]
    supernet = PathSupernet(space, example_input=torch.zeros(1, 3, 8, 8))
    supernet.select(space.complete({"width": 4, "depth": 2}))
    return supernet


def test_gradients_of_slices_that_are_differentiated_again(sliced: PathSupernet) -> None:
    """As for the gradients of the norms of gradients; in the store and alone."""
    found = []
    alone = sliced.extract(dict(sliced.sample or {}))
    for model in (sliced.double(), alone.double()):
        torch.manual_seed(0)
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        used = [parameter for parameter in model.parameters() if parameter.requires_grad]
        loss = model.train()(x).square().sum()
        first = torch.autograd.grad(loss, used, create_graph=True, allow_unused=True)
        norm = sum(gradient.square().sum() for gradient in first if gradient is not None)
        assert isinstance(norm, Tensor)
        second = torch.autograd.grad(norm, used, allow_unused=True)
        found.append(
            [float(sum(g.detach().square().sum() for g in grads if g is not None)) for grads in (first, second)]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own forward mode
def test_tangents_of_slices(sliced: PathSupernet) -> None:
    """Forward mode."""
    alone = sliced.extract(dict(sliced.sample or {}))
    x, weight, small = torch.randn(2, 3, 8, 8), sliced.get_parameter("0.weight"), alone.get_parameter("0.weight")
    found = []
    for model, parameter in ((sliced.eval(), weight), (alone.eval(), small)):
        holder: Any = model[0]
        with forward_ad.dual_level():
            holder._parameters["weight"] = forward_ad.make_dual(parameter, torch.ones_like(parameter))
            try:
                found.append(forward_ad.unpack_dual(model(x)).tangent)
            finally:
                holder._parameters["weight"] = parameter
    torch.testing.assert_close(found[0], found[1])


def test_gradients_of_slices_may_be_clipped_and_added_to(sliced: PathSupernet) -> None:
    """They lie in one tensor, and do not disturb each other."""
    x = torch.randn(2, 3, 8, 8)
    sliced(x).sum().backward()
    first = {name: p.grad.clone() for name, p in sliced.named_parameters() if p.grad is not None}
    for number, parameter in enumerate(sliced.parameters()):
        if parameter.grad is not None:
            parameter.grad.mul_(number)
    for number, (name, parameter) in enumerate(sliced.named_parameters()):
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, first[name] * number)
            assert parameter.grad.stride() == parameter.stride()
            assert parameter.grad.shape == parameter.shape
