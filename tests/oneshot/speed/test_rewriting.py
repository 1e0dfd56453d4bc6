"""Rewrites are exact: outputs, all gradients and batch statistics are those of the supernet as it was."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import Cell, InputChoice, LayerChoice, ModelSpace, NasTypeError, NasValueError, Repeat, ValueChoice, Zero
from nas.model_zoo import NASBench201, darts
from nas.oneshot import RelaxedSupernet, Report, Rule, Speed, optimise, softmax

EVERYTHING = Speed(merge=True, channels_last=True)
NOTHING = Speed(fold=False, share=False, merge=False, channels_last=False)


def conv(kernel: int, groups: int = 1, **options: Any) -> nn.Module:
    return nn.Conv2d(4, 4, kernel, padding=options.pop("padding", kernel // 2), groups=groups, **options)


def conv_of(channels: int) -> nn.Module:
    return nn.Conv2d(channels, 4, 1, groups=2)


def norm(kernel: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), conv(kernel, bias=False), nn.BatchNorm2d(4))


class Zeros(Zero):
    """With a gradient of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def choice(label: str = "op", **candidates: Callable[[], nn.Module]) -> nn.Module:
    return LayerChoice(candidates, label=label)


class Edges(nn.Module):
    """Two mixtures on one tensor, and one on what they yield."""

    def __init__(self, **candidates: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = choice("first", **candidates), choice("second", **candidates)
        self.third = choice("third", **candidates)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x) + self.second(x)
        z: Tensor = self.third(y)
        return z


def pool_norm() -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(4, affine=False))


def separable(kernel: int, dilation: int = 1, stride: int = 1) -> nn.Module:
    reach = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(4, 4, kernel, stride, reach, dilation, groups=4, bias=False),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.BatchNorm2d(4),
    )


SPACES: dict[str, Callable[[], nn.Module]] = {
    "kernels": lambda: choice(one=lambda: conv(1), three=lambda: conv(3, bias=False), five=lambda: conv(5)),
    "holes, groups and averages": lambda: choice(
        wide=lambda: conv(3, dilation=2, padding=2),
        grouped=lambda: conv(3, 2),
        each=lambda: conv(5, 4),
        same=nn.Identity,
        zero=Zeros,
        average=lambda: nn.AvgPool2d(3, 1, 1),
        text=lambda: nn.Conv2d(4, 4, 3, padding="same"),
    ),
    "strides": lambda: choice(
        one=lambda: nn.Conv2d(4, 6, 1, stride=2), three=lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1)
    ),
    "depthwise": lambda: choice(three=lambda: conv(3, 4), five=lambda: conv(5, 4), same=nn.Identity),
    "depthwise and pointwise": lambda: choice(
        dense=lambda: conv(3),
        apart=lambda: nn.Sequential(conv(3, 4), conv(1)),
        grouped=lambda: nn.Sequential(conv(3, 4, bias=False), conv(1, 2)),
        plain=lambda: nn.Sequential(conv(3, 4), conv(1, bias=False)),
    ),
    "behind one ReLU": lambda: choice(
        three=lambda: nn.Sequential(nn.ReLU(), conv(3)),
        five=lambda: nn.Sequential(nn.ReLU(), conv(5)),
        tanh=lambda: nn.Sequential(nn.Tanh(), conv(5)),
        norm=lambda: norm(3),
    ),
    "linear": lambda: nn.Sequential(
        nn.Flatten(),
        choice(
            one=lambda: nn.Linear(256, 256),
            two=lambda: nn.Linear(256, 256, bias=False),
            same=nn.Identity,
            tanh=nn.Tanh,
        ),
    ),
    "shared": lambda: Edges(norm=lambda: norm(3), pool=pool_norm, average=lambda: nn.AvgPool2d(3, 1, 1), zero=Zeros),
    "side by side": lambda: Edges(
        one=lambda: norm(1),
        three=lambda: norm(3),
        biased=lambda: nn.Sequential(conv(3), nn.BatchNorm2d(4, affine=False), nn.ReLU()),
        apart=lambda: separable(3),
        dilated=lambda: separable(5, 2),
    ),
    "groups side by side": lambda: Edges(
        wide=lambda: nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8), conv_of(8)),
        whole=lambda: nn.Sequential(conv(3, 2), nn.Tanh()),
    ),
    "strided side by side": lambda: Edges(
        one=lambda: separable(3, stride=2), dilated=lambda: separable(5, 2, 2), pool=lambda: nn.MaxPool2d(3, 2, 1)
    ),
    "a cell": lambda: Cell(
        {"conv": lambda i: norm(3), "sep": lambda i: separable(5), "skip": lambda i: nn.Identity()},
        nodes=3,
        label="cell",
        distinct=True,
        output="all",
    ),
    "inputs and depths": lambda: nn.Sequential(
        Repeat(lambda i: choice(f"op{i}", three=lambda: norm(3), same=nn.Identity), (1, 3), label="depth"),
        Widths(),
    ),
    "darts": lambda: darts(channels=4, cells=3, none=True),
    "nasbench201": lambda: NASBench201(channels=4, cells=1),
}


class Widths(nn.Module):
    """A masked layer, and mixtures on inputs that are chosen."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width")
        self.into, self.out = nn.Conv2d(4, width, 1), nn.Conv2d(width, 4, 1)
        self.pick = InputChoice(
            2, 1, each=lambda i: choice("inner", three=lambda: norm(3), five=lambda: norm(5)), label="in"
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pick([x, self.out(self.into(x))])
        return y


def hard(label: str, logits: Tensor) -> tuple[Tensor, list[int]]:
    """Two candidates, one of which passes."""
    pair = logits[-2:].softmax(-1)
    one = torch.tensor([0.0, 1.0], dtype=pair.dtype)
    weights = torch.zeros_like(logits).index_put(
        (torch.arange(len(logits) - 2, len(logits)),), one + pair - pair.detach()
    )
    return weights, [len(logits) - 2, len(logits) - 1]


def make(name: str, dtype: torch.dtype) -> RelaxedSupernet:
    net = RelaxedSupernet(ModelSpace(SPACES[name]))
    net.model.to(dtype).train()
    net.architecture.to(dtype)
    return net


def inputs(name: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    channels = 3 if name in ("darts", "nasbench201") else 4
    generator = torch.Generator().manual_seed(1)
    number = 2 if name == "a cell" else 1
    return tuple(
        torch.randn(4, channels, 8, 8, generator=generator, dtype=torch.double).to(dtype) for _ in range(number)
    )


def observe(net: RelaxedSupernet, xs: tuple[Tensor, ...], rule: Rule = softmax) -> dict[str, Tensor]:
    """Output, gradients and buffers after one step."""
    xs = tuple(x.clone().requires_grad_() for x in xs)
    net.architecture.mix(rule)
    y = net.model(*xs)
    toward = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.double).to(y.dtype)
    wanted = {f"input {i}": x for i, x in enumerate(xs)}
    wanted |= dict(net.model.named_parameters()) | dict(net.architecture.named_parameters())
    found = torch.autograd.grad((y * toward).sum(), [*wanted.values()], allow_unused=True)
    gradients = {f"gradient of {k}": g for k, g in zip(wanted, found, strict=True) if g is not None}
    return {"output": y.detach()} | gradients | {k: b.clone() for k, b in net.model.named_buffers()}


def check_alike(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
        assert torch.allclose(ours[name], expected, rtol=0, atol=tolerance * scale), name


@pytest.mark.parametrize("rule", [softmax, hard])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", SPACES)
def test_a_rewritten_supernet_computes_the_same(name: str, dtype: torch.dtype, tolerance: float, rule: Rule) -> None:
    if name in ("darts", "nasbench201") and (rule is hard or dtype == torch.float32):
        return  # the same candidates, once more
    net, plain, xs = make(name, dtype), make(name, dtype), inputs(name, dtype)
    optimise(net, xs, EVERYTHING)
    for _ in range(2):  # the second step starts from changed statistics
        check_alike(observe(net, xs, rule), observe(plain, xs, rule), tolerance)
    assert net.model.state_dict().keys() == plain.model.state_dict().keys()


@pytest.mark.parametrize("only", ["fold", "share", "merge", "channels_last", "nothing"])
@pytest.mark.parametrize("name", ["behind one ReLU", "side by side", "a cell"])
def test_each_can_be_had_alone(name: str, only: str) -> None:
    names = ("fold", "share", "merge", "channels_last")
    net, plain, xs = make(name, torch.float64), make(name, torch.float64), inputs(name, torch.float64)
    report = optimise(net, xs, Speed(**{key: key == only for key in names}))  # type: ignore[arg-type]
    assert bool(report.folded) <= (only == "fold")
    assert bool(report.shared) == (only == "share")
    assert bool(report.merged) <= (only == "merge")
    assert bool(report.whole) == (only == "channels_last")
    check_alike(observe(net, xs), observe(plain, xs), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["holes, groups and averages", "a cell", "inputs and depths", "darts"])
def test_one_architecture_of_it_equals_the_one_built_alone(name: str) -> None:
    net, xs = make(name, torch.float32), inputs(name, torch.float32)
    optimise(net, xs, EVERYTHING)
    net.check(xs, [net.space.sample(seed) for seed in range(4)])


def test_second_gradients_are_the_same() -> None:
    """Of the training loss at weights one step ahead, as the second order of DARTS needs them."""
    found = []
    for rewritten in (True, False):
        net, xs = make("side by side", torch.float64), inputs("side by side", torch.float64)
        if rewritten:
            optimise(net, xs, EVERYTHING)
        net.architecture.mix()
        weights = dict(net.model.named_parameters())
        loss = net.model(*xs).square().mean()
        gradients = torch.autograd.grad(loss, [*weights.values()], create_graph=True, allow_unused=True)
        ahead = {k: w if g is None else w - 0.1 * g for (k, w), g in zip(weights.items(), gradients, strict=True)}
        after = torch.func.functional_call(net.model, ahead, xs).square().mean()
        found.append(torch.autograd.grad(after, [*net.architecture.parameters()]))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def reported(name: str, speed: Speed | None = None) -> Report:
    return optimise(make(name, torch.float32), inputs(name, torch.float32), speed)


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("kernels", ["LayerChoice 'op': one, three, five as one 5x5 convolution"]),
        ("strides", ["LayerChoice 'op': one, three as one 3x3 convolution"]),
        ("depthwise", ["LayerChoice 'op': three, five, same as one 5x5 convolution of 4 groups"]),
        ("behind one ReLU", ["LayerChoice 'op': three, five as one 5x5 convolution behind ReLU"]),
        ("linear", ["LayerChoice 'op': one, two, same as one linear layer"]),
        ("nasbench201", []),
    ],
)
def test_the_report_says_what_was_folded(name: str, folded: list[str]) -> None:
    assert reported(name).folded == folded


def test_the_report_says_why_something_was_not() -> None:
    text = str(reported("behind one ReLU"))
    assert "Folded into one:\n  LayerChoice 'op': three, five as" in text
    assert "'tanh' is not folded: no other candidate is linear behind the same steps" in text
    assert "'norm' is not folded: a batch norm is linear only once its statistics are known" in text
    assert "2 times Conv2d, BatchNorm2d, Conv2d" in reported("groups side by side", EVERYTHING).merged
    report = reported("nasbench201", EVERYTHING)
    assert "AvgPool2d for 3 candidates of 3 mixtures" in report.shared
    assert "3 times ReLU, Conv2d, BatchNorm2d" in report.merged


def test_what_costs_more_together_is_left_apart() -> None:
    """A dense 7x7 convolution instead of a 1x1 and a 7x7 of each channel would be a bad bargain."""
    net = RelaxedSupernet(
        ModelSpace(lambda: choice(a=lambda: nn.Conv2d(64, 64, 1), b=lambda: nn.Conv2d(64, 64, 7, padding=3, groups=64)))
    )
    assert optimise(net, (torch.zeros(1, 64, 4, 4),)).folded == []


class Called(nn.Module):
    """Calls its mixture as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.op = choice(three=lambda: conv(3), five=lambda: conv(5))
        self.other = choice("other", three=lambda: conv(3), five=lambda: conv(5))
        self.how = "once"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.op(x)
        if self.how == "twice":
            y = self.op(y)
        return y + self.other(x) if self.how == "both" else y


@pytest.mark.parametrize(
    ("how", "reason"), [("twice", "'op': it is called more than once"), ("once", "'other': it was not called")]
)
def test_mixtures_that_are_called_otherwise_are_left_alone(how: str, reason: str) -> None:
    net = RelaxedSupernet(ModelSpace(Called))
    net.model.how = how  # type: ignore[assignment]
    assert reason in str(optimise(net, (torch.zeros(1, 4, 8, 8),)))


def test_a_call_that_is_left_out_later_is_told() -> None:
    net = RelaxedSupernet(ModelSpace(Called))
    net.model.how = "both"  # type: ignore[assignment]
    x = torch.randn(1, 4, 8, 8)
    optimise(net, (x,), Speed(fold=False, merge=True))
    net.architecture.mix()
    net.model(x)
    net.model.how = "once"  # type: ignore[assignment]
    with pytest.raises(
        NasValueError, match=r"one of them was not called.*mend: Speed\(merge=False\)|Speed\(merge=False\)"
    ):
        net.model(x)


def test_candidates_that_somebody_listens_to_are_called() -> None:
    net = make("kernels", torch.float32)
    calls = []
    candidate = net.model.candidates[0]  # type: ignore[index, union-attr]
    candidate.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    optimise(net, inputs("kernels", torch.float32))
    calls.clear()
    observe(net, inputs("kernels", torch.float32))
    assert calls == [1]


def test_a_candidate_that_writes_into_what_is_shared_does_not_harm_the_others() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    net = RelaxedSupernet(
        ModelSpace(lambda: choice(a=lambda: nn.Sequential(nn.ReLU(), Writes()), b=nn.ReLU, c=nn.ReLU))
    )
    x = torch.randn(2, 4, 3, 3)
    optimise(net, (x,))
    net.architecture.mix(lambda label, logits: torch.ones(3))
    assert torch.allclose(net.model(x), 4 * x.relu())


def test_it_can_be_undone_and_copied() -> None:
    name, dtype = "side by side", torch.float64
    net, plain, xs = make(name, dtype), make(name, dtype), inputs(name, dtype)
    report = optimise(net, xs, EVERYTHING)
    twin = copy.deepcopy(net.model)
    net.architecture.mix()
    plain.architecture.mix()
    expected = plain.model(*xs)
    assert torch.allclose(twin(*xs), expected, atol=1e-12)
    assert all(p.grad is None for p in net.model.parameters())
    twin(*xs).sum().backward()
    assert all(p.grad is None for p in net.model.parameters()), "a copy computes with its own weights"
    report.undo()
    assert torch.allclose(net.model(*xs), expected, atol=1e-12)


def test_nothing_is_kept_after_a_forward_pass() -> None:
    net, xs = make("shared", torch.float32), inputs("shared", torch.float32)
    optimise(net, xs, EVERYTHING)
    before = copy.deepcopy(net.model.state_dict())
    x = xs[0].clone()
    for _ in range(2):  # twice with one tensor, of whose graph nothing may be left
        net.architecture.mix()
        net.model(x).sum().backward()
    assert before.keys() == net.model.state_dict().keys()
    copy.deepcopy(net.model)  # which tensors of a graph would refuse


def test_weights_that_are_frozen_get_no_gradients_and_the_others_do() -> None:
    net, xs = make("a cell", torch.float32), inputs("a cell", torch.float32)
    optimise(net, xs)
    from nas.oneshot import frozen

    first = next(net.model.parameters())
    first.requires_grad_(False)
    with frozen(net.model.parameters()):
        net.architecture.mix()
        net.model(*xs).sum().backward()
    assert all(parameter.grad is None for parameter in net.model.parameters())
    assert all(parameter.grad is not None for parameter in net.architecture.parameters())
    assert [p.requires_grad for p in itertools.islice(net.model.parameters(), 2)] == [False, True]


@pytest.mark.parametrize("field", ["fold", "merge", "compile"])
def test_switches_are_true_or_false(field: str) -> None:
    with pytest.raises(NasTypeError, match=f"{field} must be True or False"):
        Speed(**{field: "yes"})  # type: ignore[arg-type]


class WritesIntoIt(nn.Module):
    """As many layers of others do, when they are told to work in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2).add_(1)


@pytest.mark.parametrize("speed", [Speed(), Speed(merge=True)])
def test_who_writes_into_what_is_shared_writes_into_a_copy(speed: Speed) -> None:
    candidates = {
        "pool": lambda: nn.AvgPool2d(3, 1, 1),
        "writes": lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), WritesIntoIt(), nn.BatchNorm2d(2)),
        "reads": lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Tanh()),
    }
    x = torch.randn(2, 2, 4, 4)
    found = []
    for quick in (True, False):
        net = RelaxedSupernet(ModelSpace(lambda: LayerChoice(candidates, label="a")))
        net.model.train()
        if quick:
            optimise(net, (x,), speed)
        for _ in range(2):
            net.architecture.mix()
            y = net.model(x.clone())
        gradients = torch.autograd.grad(y.square().sum(), list(net.architecture.parameters()))
        found.append([y.detach(), *gradients])
    torch.testing.assert_close(*found)
