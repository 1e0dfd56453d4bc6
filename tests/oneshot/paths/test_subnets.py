"""Paths of models as people write them: called by keyword, random, with checkpoints, in any precision."""

import copy
import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nas import InputChoice, LayerChoice, ModelSpace, Sample, ValueChoice
from nas.oneshot import PathSupernet


class Encoder(nn.Module):
    """Concatenates what it makes, so that it matters what lies where in the channels."""

    def __init__(self) -> None:
        super().__init__()
        width, other = ValueChoice([2, 4], label="width"), ValueChoice([2, 3], label="other")
        self.left, self.right = nn.Linear(3, width), nn.Linear(3, other)
        self.act = LayerChoice({"relu": nn.ReLU, "prelu": nn.PReLU}, label="act")
        self.head = nn.Linear(width + other, 2)

    def encoded(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], -1)
        return torch.as_tensor(self.head(self.act(x if mask is None else x * mask)))


class ByKeyword(Encoder):
    def forward(self, *, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.encoded(x, mask)


class ByBoth(Encoder):
    def forward(self, x: Tensor, nothing: None, mask: Tensor) -> Tensor:
        assert nothing is None
        return self.encoded(x, mask)


class DictBatch(Encoder):
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"scores": self.encoded(batch["x"], batch["mask"]), "kind": batch["kind"]}


@dataclasses.dataclass
class Batch:
    x: Tensor
    mask: Tensor | None = None


class DataclassBatch(Encoder):
    def forward(self, batch: Batch) -> Batch:
        return Batch(self.encoded(batch.x, batch.mask))


class ListBatch(Encoder):
    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return [self.encoded(item, None) for item in items]


X, MASK = torch.rand(4, 3), torch.ones(4, 1)
CALLS: dict[str, tuple[type[Encoder], Any, tuple[Any, ...], dict[str, Any]]] = {
    "keywords": (ByKeyword, {"x": X, "mask": MASK}, (), {"x": X, "mask": MASK}),
    "some keywords": (ByKeyword, {"x": X}, (), {"x": X}),
    "None": (ByBoth, (X, None, MASK), (X, None, MASK), {}),
    "a mask by keyword": (ByBoth, {"x": X, "nothing": None, "mask": MASK}, (X, None), {"mask": MASK}),
    "a dict": (DictBatch, {"x": X, "mask": None, "kind": "a"}, ({"x": X, "mask": None, "kind": "a"},), {}),
    "a dict in a tuple": (DictBatch, ({"x": X, "mask": MASK, "kind": 3},), ({"x": X, "mask": MASK, "kind": 3},), {}),
    "a dataclass": (DataclassBatch, Batch(X, MASK), (Batch(X, MASK),), {}),
    "a list": (ListBatch, ([X, X],), ([X, X],), {}),
}


def numbers(output: Any) -> Any:
    if isinstance(output, dict):
        return output["scores"]
    return output.x if isinstance(output, Batch) else output


@pytest.mark.parametrize(("kind", "example", "args", "kwargs"), CALLS.values(), ids=CALLS)
def test_models_are_called_as_they_want(
    kind: type[Encoder], example: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    space = ModelSpace(kind)
    supernet = PathSupernet(space, example_input=example)
    assert supernet.head.weight.shape == (2, 7)
    supernet.check(example, list(space.grid()))
    for sample in space.grid():
        supernet.select(sample)
        model = supernet.extract(sample)
        torch.testing.assert_close(numbers(supernet(*args, **kwargs)), numbers(model(*args, **kwargs)))
    # What lies behind the concatenation is aligned: the right part is not where the left one ends.
    whole = supernet.head.weight
    model = supernet.extract({"width": 2, "other": 3, "act": "relu"})
    assert torch.equal(model.get_parameter("head.weight"), whole[:, [0, 1, 4, 5, 6]])


# Models that are random whatever the mode is.


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Dropped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Depth(nn.Module):
    """Stochastic depth that is always on, by the generators of Python and numpy."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(random.random() < 0.5) + float(numpy.random.rand())


@pytest.mark.parametrize("kind", [Noise, Dropped, Depth])
def test_random_models_are_compared_under_one_seed(kind: type[nn.Module]) -> None:
    def build() -> nn.Module:
        width = ValueChoice([2, 4], label="width")
        return nn.Sequential(nn.Linear(3, width), kind(), LayerChoice([nn.ReLU, kind], label="op"), nn.Linear(width, 2))

    space = ModelSpace(build)
    supernet = PathSupernet(space, example_input=(4, 3))
    before = torch.get_rng_state(), random.getstate()
    supernet.check((4, 3), list(space.grid()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


# Checkpoints of activations.


class Checkpointed(nn.Module):
    """Of chosen widths behind a concatenation, with layers that are used twice; batch normalisation among them."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        width, other = ValueChoice([2, 4], label="width"), ValueChoice([2, 3], label="other")
        self.reentrant = reentrant
        self.left, self.right = nn.Linear(3, width), nn.Linear(3, other)
        self.norm = nn.BatchNorm1d(width + other, momentum=None)
        self.middle = nn.Linear(width + other, 4)
        self.op = LayerChoice({"tanh": nn.Tanh, "linear": lambda: nn.Linear(4, 4)}, label="op")
        self.skip = InputChoice(2, 1, label="skip")
        self.head = nn.Linear(4, 2)

    def block(self, x: Tensor) -> Tensor:
        y: Tensor = self.op(self.middle(self.norm(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], -1)
        y, z = (checkpoint(self.block, each, use_reentrant=self.reentrant) for each in (x, 2 * x))
        return torch.as_tensor(self.head(self.skip([y, y + z])))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_of_activations_have_right_gradients(reentrant: bool) -> None:
    space, x = ModelSpace(Checkpointed, reentrant), torch.rand(6, 3)
    supernet = PathSupernet(space, example_input=x)
    samples: list[Sample] = [space.sample(seed) for seed in range(5)]
    for sample in samples:
        supernet.select(sample)
        model = supernet.extract(sample)
        for each in (supernet, model):
            each.zero_grad()
            each(x).square().sum().backward()
            with torch.no_grad():
                for parameter in each.parameters():
                    if parameter.grad is not None:
                        parameter -= parameter.grad
        torch.testing.assert_close(supernet.extract(sample).state_dict(), model.state_dict())


def test_paths_between_forward_and_backward() -> None:
    """The gradients of a path are its own, whatever was run before its backward pass, which runs it again."""
    space, x = ModelSpace(Checkpointed, False), torch.rand(6, 3)
    supernet = PathSupernet(space, example_input=x)
    first, second = (space.complete({"width": width}) for width in (2, 4))
    expected = []
    for sample in (first, second):
        model = supernet.extract(sample)
        model(x).square().sum().backward()
        expected.append(model.get_parameter("middle.weight").grad)
    losses = []
    for sample in (first, second):
        supernet.select(sample)
        losses.append(supernet(x).square().sum())
    losses[0].backward()
    torch.testing.assert_close(supernet.middle.weight.grad[:, [0, 1, 4, 5]], expected[0])
    supernet.zero_grad()
    losses[1].backward()
    torch.testing.assert_close(supernet.middle.weight.grad[:, :6], expected[1])


# Number types.


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 6], label="width")
        self.conv, self.norm = (
            nn.Conv2d(3, width, ValueChoice([1, 3], label="kernel"), padding="same"),
            nn.BatchNorm2d(width),
        )
        self.head = nn.Linear(2 * width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return torch.as_tensor(self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))


def double(supernet: PathSupernet) -> None:
    supernet.double()


def by_to(supernet: PathSupernet) -> None:
    supernet.to(torch.bfloat16)


@pytest.mark.parametrize(("convert", "kind"), [(double, torch.float64), (by_to, torch.bfloat16)])
@pytest.mark.parametrize("default", [False, True], ids=["", "and as the default"])
def test_conversion_after_construction(
    convert: Callable[[PathSupernet], None], kind: torch.dtype, default: bool
) -> None:
    space, x = ModelSpace(Image), torch.rand(4, 3, 5, 5)
    supernet = PathSupernet(space, example_input=x)
    supernet(x)
    supernet.prepare([space.sample(0)])
    convert(supernet)
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind if default else before)  # as Lightning does around a step
    try:
        supernet.prepare([space.sample(1)])
        supernet.check(x, list(space.grid()))
        for sample in space.grid():
            supernet.train()
            supernet.select(sample)
            output = supernet(x.to(kind))
            assert output.dtype == kind
            output.sum().backward()
            model = supernet.extract(sample)
            kinds = {t.dtype for t in [*model.parameters(), *model.buffers()] if t.is_floating_point()}
            assert kinds == {kind}
            reference = space.build(sample).to(kind)
            reference.load_state_dict(model.state_dict())
            for each in (supernet, model, reference):
                each.eval()
            tolerance = 10 * torch.finfo(kind).eps
            for each in (model, reference):
                torch.testing.assert_close(supernet(x.to(kind)), each(x.to(kind)), rtol=tolerance, atol=tolerance)
    finally:
        torch.set_default_dtype(before)
    assert supernet.head.weight.grad.dtype == kind
    assert copy.deepcopy(supernet)(x.to(kind)).dtype == kind
