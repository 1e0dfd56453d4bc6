"""The relaxed supernet: it equals every architecture it contains, in all the ways in which a model is used."""

import copy
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel

from nas import (
    Cell,
    InputChoice,
    LayerChoice,
    ModelSpace,
    Mutator,
    NasTypeError,
    NasValueError,
    Repeat,
    ValueChoice,
    Zero,
    replace_module,
)
from nas.model_zoo import SPACES, TransformerRanges, space
from nas.oneshot import RelaxedSupernet, Speed, optimise

pytestmark = pytest.mark.long

ONE_WIDTH = TransformerRanges(widths=(16,), heads=(1, 2), mlp_ratios=(1, 2.5), depth=(1, 2), head_width=4)
CLAIMS: dict[str, tuple[str, dict[str, Any]]] = {
    "darts": ("darts", {"none": True}),
    "darts without none": ("darts", {}),
    "general": ("general", {}),
    "mobilenet_v3": ("mobilenet_v3", {}),
    "nasbench201": ("nasbench201", {}),
    "pnas": ("pnas", {"cells": 1}),
    "proxylessnas": ("proxylessnas", {"blocks": (2, 1, 1, 1, 1, 1)}),
    "shufflenet_v2": ("shufflenet_v2", {"blocks": (1, 2), "widths": (32, 64), "search_channels": True}),
    "transformer_lm of one width": ("transformer_lm", {"ranges": ONE_WIDTH}),
    "vision_transformer of one width": ("vision_transformer", {"ranges": ONE_WIDTH}),
}
"""The zoo spaces that can be relaxed, with arguments beside those of the registry, some to make them small."""

REFUSALS: dict[str, str] = {
    "amoebanet": "Cell '(normal|reduce)': the loose ends of a cell cannot be relaxed",
    "enas_micro": "Cell '(normal|reduce)': the loose ends of a cell cannot be relaxed",
    "lenet": r"InputChoice 'features/0/pooled': only outputs of one shape can be mixed, but input 0 yields "
    r"\(1, 16, 32, 32\) and input 1 \(1, 16, 16, 16\)",
    "nasbench101": r"ValueChoice 'edge_0_1': for 0, all others at their defaults, nothing can be built \(NAS-Bench",
    "nasnet": "Cell '(normal|reduce)': the loose ends of a cell cannot be relaxed",
    "nasnet_simple": "Cell '(normal|reduce)': the loose ends of a cell cannot be relaxed",
    "nats_bench_size": "ValueChoice 'channels_1': for 64 there is Sequential at 'layers.2.edges.0_3' where else is",
    "resnet": "ValueChoice 'pool': for 3 MaxPool2d 'pool' has another kernel_size, which is no shape of a parameter",
    "transformer_lm": "ValueChoice 'width': for 16 LayerNorm .* works across the dimension that normalized_shape decid",
    "vision_transformer": "ValueChoice 'width': for 16 LayerNorm .* works across the dimension that normalized_shape d",
}


ONE_CELL = {"cells": 1}
SMALLER: dict[str, dict[str, Any]] = dict.fromkeys(("amoebanet", "enas_micro", "nasnet", "nasnet_simple"), ONE_CELL)
"""Arguments of spaces that are refused, where those of the registry take long to look through."""


def zoo_supernet(name: str, **options: Any) -> RelaxedSupernet:
    entry, arguments = CLAIMS.get(name, (name, SMALLER.get(name, {})))
    return RelaxedSupernet(space(entry, **{**SPACES[entry].tiny, **arguments}), **options)


def test_every_space_of_the_zoo_is_claimed_or_refused() -> None:
    assert {entry for entry, _ in CLAIMS.values()} | {*REFUSALS} == {*SPACES}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in ("darts without none", "pnas", "shufflenet_v2") else ())
        for n in CLAIMS
    ],
)
def test_a_zoo_space_equals_its_architectures(name: str) -> None:
    net = zoo_supernet(name)
    entry, generator = SPACES[CLAIMS[name][0]], torch.Generator().manual_seed(0)
    shape = (2, *entry.input_shape)
    images = torch.randn(shape, generator=generator)
    if entry.tokens is not None:
        images = torch.randint(entry.tokens, shape, generator=generator)
    net.check(images)
    for sample in net.discretise(2):
        assert net.space.contains(sample)
    sample = net.space.sample(7)
    built = net.extract(sample).train()
    net.architecture.one_hot(sample)
    net.model.train()
    for module in [*net.model.modules(), *built.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected = built(images)
    assert (net.model(images) - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in ("amoebanet", "nasnet") else ()) for n in REFUSALS]
)
def test_a_zoo_space_that_cannot_be_relaxed_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(NasValueError, match=REFUSALS[name]):
        zoo_supernet(name)


class Random(nn.Module):
    """A small network of choices drawn by a list of numbers."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width")
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.parts = nn.ModuleList(self._part(i, number, width) for i, number in enumerate(numbers))
        self.skips = nn.ModuleList(
            InputChoice(i + 2, (None, 1, 2)[number % 3], reduction=("sum", "mean")[number % 2], label=f"skip{i}")
            for i, number in enumerate(numbers)
        )
        self.head = nn.Linear(width, 2)

    @staticmethod
    def _part(i: int, number: int, width: int) -> nn.Module:
        def conv() -> nn.Module:
            kernel = ValueChoice([1, 3], label=f"kernel{i}")
            return nn.Sequential(nn.Conv2d(width, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width))

        def operations(state: int) -> nn.Module:
            return LayerChoice([conv, nn.Tanh], label=f"op{i}_{state}")

        kinds: list[Callable[[], nn.Module]] = [
            lambda: LayerChoice({"conv": conv, "same": nn.Identity, "pool": lambda: nn.AvgPool2d(3, 1, 1)}),
            lambda: Repeat(lambda j: nn.Sequential(conv(), nn.ReLU(inplace=True)), (0, 2), label=f"depth{i}"),
            lambda: Repeat(lambda j: operations(j), ValueChoice([1, 2], label=f"depth{i}")),
            lambda: _Distinct(InputChoice(3, 2, replace=False, each=operations, label=f"inputs{i}")),
            lambda: _Distinct(InputChoice(3, 1, each=operations, label=f"inputs{i}")),
        ]
        return kinds[number % len(kinds)]()

    def forward(self, x: Tensor) -> Tensor:
        states = [self.stem(x)]
        for part, skip in zip(self.parts, self.skips, strict=True):
            states.append(part(states[-1]))
            chosen = skip(states)
            states.append(states[-1] if chosen is None else chosen)
            del states[-2]
        y: Tensor = self.head(states[-1].mean((2, 3)))
        return y


class _Distinct(nn.Module):
    def __init__(self, inputs: nn.Module) -> None:
        super().__init__()
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inputs([x, 2 * x, -x])
        return y


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(numbers=st.lists(st.integers(0, 29), min_size=1, max_size=3), seed=st.integers(0, 10**6))
def test_random_spaces_equal_their_architectures(numbers: list[int], seed: int) -> None:
    model_space = ModelSpace(Random, numbers)
    net = RelaxedSupernet(model_space, seed=seed)
    net.check((2, 1, 4, 4), [model_space.sample(seed + i) for i in range(4)])
    net.architecture.mix()
    net.model(torch.randn(2, 1, 4, 4)).square().sum().backward()
    for label in net.architecture.labels:
        assert net.architecture.parameter(label).grad is not None, label
    for sample in net.discretise(3):
        assert model_space.contains(sample)


def test_building_is_reproducible_and_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (zoo_supernet("nasbench201", seed=seed) for seed in (1, 1, 2))
    for supernet in (first, second, other):
        supernet.check((2, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [list(supernet.model.parameters()) for supernet in (first, second, other)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_a_check_leaves_everything_as_it_was() -> None:
    net = zoo_supernet("nasbench201")
    net.architecture.mix(lambda label, logits: torch.tensor([0.0, 0, 0, 1, 0]))
    net.model.layers[0].eval()  # type: ignore[index, union-attr]  # a Sequential
    before = {name: tensor.clone() for name, tensor in net.model.state_dict().items()}
    modes = [module.training for module in net.model.modules()]
    net.check((2, 3, 8, 8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.model.state_dict().items())
    assert [module.training for module in net.model.modules()] == modes
    assert net.architecture.weights["edge_0_1"].tolist() == [0, 0, 0, 1, 0]


class Small(nn.Module):
    """Layers, a depth and a width."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 8], label="width")
        self.stem = nn.Linear(3, width)
        self.op = LayerChoice({"tanh": nn.Tanh, "linear": lambda: nn.Linear(width, width)}, label="op")
        self.blocks = Repeat(lambda i: nn.Linear(width, width), (0, 2), label="depth")
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.op(self.stem(x))))
        return y


@pytest.fixture
def small() -> RelaxedSupernet:
    return RelaxedSupernet(ModelSpace(Small))


def test_a_copy_of_the_model_has_its_own_weights_and_reads_the_same_architecture(small: RelaxedSupernet) -> None:
    twin, x = copy.deepcopy(small.model), torch.randn(2, 3)
    assert torch.equal(twin(x), small.model(x))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(x).abs().sum() == 0 < small.model(x).abs().sum()
    small.architecture.one_hot({"width": 4, "op": "tanh", "depth": 0})
    copied = copy.deepcopy(small.model)
    assert torch.equal(copied(x), small.extract({"width": 4, "op": "tanh", "depth": 0})(x))


def test_second_order_gradients_flow_through_other_weights(small: RelaxedSupernet) -> None:
    model, architecture = small.model.double(), small.architecture.double()
    x, y = torch.randn(8, 3, dtype=torch.double), torch.randn(8, 1, dtype=torch.double)
    weights = dict(model.named_parameters())

    def loss(values: dict[str, Tensor]) -> Tensor:
        return (functional_call(model, values, (x,)) - y).square().mean()

    def unrolled() -> Tensor:
        architecture.mix()
        gradients = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=True, allow_unused=True)
        stepped = {
            name: value if gradient is None else value - 0.1 * gradient
            for (name, value), gradient in zip(weights.items(), gradients, strict=True)
        }
        return loss(stepped)

    logits = architecture.parameter("op")
    (gradient,) = torch.autograd.grad(unrolled(), logits)
    step = torch.tensor([1e-5, 0.0], dtype=torch.double)
    with torch.no_grad():
        logits += step
    above = unrolled().item()
    with torch.no_grad():
        logits -= 2 * step
    below = unrolled().item()
    assert gradient[0].item() == pytest.approx((above - below) / 2e-5, rel=1e-4)


def test_it_runs_in_mixed_precision() -> None:
    net = zoo_supernet("darts")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = net.model(torch.randn(2, 3, 8, 8))
    assert scores.dtype == torch.bfloat16
    scores.float().square().sum().backward()
    for label in net.architecture.labels:
        gradient = net.architecture.parameter(label).grad
        assert gradient is not None, label
        assert gradient.isfinite().all(), label


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own look
def test_it_can_be_compiled(small: RelaxedSupernet) -> None:
    x = torch.randn(2, 3)
    small.architecture.mix()
    expected = small.model(x)
    compiled = torch.compile(small.model, backend="eager")
    assert torch.allclose(compiled(x), expected)
    small.architecture.one_hot({"width": 4, "op": "linear", "depth": 1})
    assert torch.allclose(compiled(x), small.model(x))
    small.architecture.mix()
    compiled(x).sum().backward()
    assert small.architecture.parameter("width").grad is not None


def test_it_runs_distributed(small: RelaxedSupernet, tmp_path: os.PathLike[str]) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(small.model, find_unused_parameters=True)
        x = torch.randn(2, 3)
        for sample in small.space.grid():
            small.architecture.one_hot(sample)
            parallel(x).sum().backward()
        small.architecture.mix()
        parallel(x).sum().backward()
        assert all(parameter.grad is not None for parameter in small.model.parameters())
        assert small.architecture.parameter("width").grad is not None
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_edge_normalisation_and_partial_channels_of_pc_darts() -> None:
    net = zoo_supernet("darts", edges="softmax", partial_channels=2)
    full = zoo_supernet("darts")
    assert len(net.architecture.labels) == len(full.architecture.labels) + 8
    images = torch.randn(2, 3, 8, 8)
    net.check(images)
    assert net.model(images).shape == full.model(images).shape
    net.model(images).square().sum().backward()
    assert all(net.architecture.parameter(label).grad is not None for label in net.architecture.labels)
    count, usual = (sum(p.numel() for p in model.parameters()) for model in (net.model, full.model))
    assert count < 0.7 * usual
    assert net.space.contains(net.discretise()[0])
    with pytest.raises(NasValueError, match="a supernet of partial channels has no weights for whole ones"):
        net.extract(net.discretise()[0])


def test_partial_channels_pass_a_part_and_shuffle() -> None:
    operations = {"negative": lambda i: _Scaled(), "same": lambda i: nn.Identity()}
    cell = ModelSpace(lambda: Cell(operations, nodes=1, label="cell", distinct=True, output="all"))
    net = RelaxedSupernet(cell, partial_channels=2)
    net.architecture.mix(lambda label, logits: torch.tensor([1.0, 0.0]))
    image = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    assert net.model(image, 0 * image).flatten().tolist() == [-1, 3, -2, 4]


class _Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x


def test_partial_channels_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(NasValueError, match="partial channels are those of the layers on edges, but no InputChoice"):
        zoo_supernet("nasbench201", partial_channels=4)
    with pytest.raises(NasValueError, match="partial_channels=3 must divide the channels of every edge"):
        zoo_supernet("darts", partial_channels=3)
    linear = {"linear": lambda i: nn.Linear(4, 4), "same": lambda i: nn.Identity()}
    cell = ModelSpace(lambda: Cell(linear, nodes=1, label="cell", distinct=True, output="all"))
    with pytest.raises(
        NasValueError, match="candidate 'linear' of LayerChoice 'cell/node0/op0': partial channels make"
    ):
        RelaxedSupernet(cell, partial_channels=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"edges": "all"}, 'edges must be "sum" or "softmax"'), ({"partial_channels": 0}, "must be an int from 1 on")],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NasValueError, match=message):
        RelaxedSupernet(ModelSpace(Small), **options)


def test_the_same_label_inside_its_own_candidate_is_answered() -> None:
    def inner() -> nn.Module:
        return LayerChoice({"a": nn.Tanh, "b": nn.ReLU}, label="op")

    net = RelaxedSupernet(ModelSpace(lambda: LayerChoice({"a": inner, "b": inner}, label="op")))
    x = torch.randn(3)
    shares = net.architecture.probabilities("op")
    assert torch.allclose(net.model(x), shares[0] * x.tanh() + shares[1] * x.relu())
    net.check(x)


def test_a_model_from_elsewhere_keeps_its_weights_under_mutators() -> None:
    class Widen(Mutator):
        def mutate(self, model: nn.Module) -> None:
            old = model.get_submodule("1")
            replace_module(model, "1", LayerChoice({"old": lambda: old, "new": nn.Tanh}, label="activation"))
            replace_module(model, "2", nn.Linear(4, width := ValueChoice([2, 3], label="width")))
            replace_module(model, "3", nn.Linear(width, 1))

    base = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Linear(2, 1))
    net = RelaxedSupernet(ModelSpace(base, mutators=[Widen()]))
    net.check((2, 3))
    assert torch.equal(net.extract({"activation": "old", "width": 2}).get_parameter("0.weight"), base[0].weight)


def test_lazy_layers_are_refused_before_their_first_pass() -> None:
    with pytest.raises(NasValueError, match="lazy layers have no weights to share before a first forward pass"):
        RelaxedSupernet(ModelSpace(lambda: LayerChoice([lambda: nn.LazyLinear(2), nn.Identity], label="op")))


def test_a_model_whose_output_has_a_chosen_shape_is_refused() -> None:
    net = RelaxedSupernet(ModelSpace(lambda: nn.Linear(2, ValueChoice([3, 2], label="classes"))))
    with pytest.raises(NasValueError, match="label 'classes': the relaxed supernet .* their outputs have other shapes"):
        net.check((1, 2))


def test_blocks_that_are_called_one_by_one_are_found_out() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = Repeat(lambda i: nn.Linear(2, 2), (1, 3), label="depth")

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    with pytest.raises(NasValueError, match="label 'depth': the relaxed supernet computes something else"):
        RelaxedSupernet(ModelSpace(Loop)).check((2, 2))


def test_it_holds_plain_numbers_only(small: RelaxedSupernet) -> None:
    for module in small.model.modules():
        for value in vars(module).values():
            assert type(value).__name__ != "ChosenInt"


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        depth = ValueChoice([1, 2, 3], label="depth")
        self.layers = nn.ModuleList(LayerChoice([nn.ReLU, nn.Tanh], label=f"op{i}") for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_values_that_decide_what_there_is_are_refused_with_the_mend() -> None:
    with pytest.raises(NasValueError, match=r"ValueChoice 'depth': for [23] there is .*ask a Repeat for a depth"):
        RelaxedSupernet(ModelSpace(Looped))


def test_a_label_with_other_answers_in_each_branch_is_refused_with_the_mend() -> None:
    def net() -> nn.Module:
        narrow = partial(nn.Linear, 4, 4, bias=False)
        return LayerChoice(
            {
                "one": lambda: nn.Sequential(LayerChoice([nn.ReLU, nn.Tanh], label="act"), narrow()),
                "two": lambda: nn.Sequential(narrow(), LayerChoice([nn.GELU, nn.Tanh], label="act")),
            },
            label="kind",
        )

    space = ModelSpace(net)
    assert space.size == 4
    with pytest.raises(NasValueError, match=r"label 'act': a supernet of mixtures needs one domain for each label"):
        RelaxedSupernet(space)


class Walked(nn.Module):
    """A network of which people walk the parts."""

    def __init__(self, *, masks: bool) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width") if masks else 4
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 4, 1))
        self.one, self.two = self._choice("one"), self._choice("two")
        self.node = InputChoice(2, 2, replace=False, each=lambda i: self._choice(f"edge{i}"), label="node")
        self.head = nn.Linear(4, 2)

    @staticmethod
    def _choice(label: str) -> nn.Module:
        def block() -> nn.Module:
            return nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

        kernels = {f"c{k}": lambda k=k: nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
        return LayerChoice({"a": block, "b": block, **kernels, "same": nn.Identity, "none": Zero}, label=label)

    def forward(self, x: Tensor) -> Tensor:
        x = self.backbone(x)
        y: Tensor = self.head(self.node([self.one(x) + self.two(x), x]).mean((2, 3)))
        return y


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[(masks, speed) for masks in (False, True) for speed in (None, Speed(), Speed(merge=True))])
def walked(request: pytest.FixtureRequest) -> RelaxedSupernet:
    masks, speed = request.param
    net = RelaxedSupernet(ModelSpace(Walked, masks=masks))
    if speed is not None:
        optimise(net, IMAGES, speed)
    net.model.train()
    return net


def test_people_find_the_parts_of_their_model_in_a_supernet(walked: RelaxedSupernet) -> None:
    model = walked.model
    assert isinstance(model, Walked)
    names = dict(model.named_parameters())
    built = walked.extract({**walked.space.default(), "one": "a"})
    assert {name.split(".")[0] for name in names} == {name.split(".")[0] for name, _ in built.named_parameters()}
    assert {"backbone.0.weight", "head.bias", "one.candidates.0.1.weight", "node.each.0.candidates.0.2.bias"} <= {
        *names
    }
    assert model.state_dict().keys() == RelaxedSupernet(walked.space).model.state_dict().keys()

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.25)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)

    model.apply(initialise)
    walked.check(IMAGES)
    for seed in range(3):
        for module in walked.extract(walked.space.sample(seed)).modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                assert (module.weight == (0.25 if isinstance(module, nn.Conv2d) else 0.5)).all()


def test_what_is_frozen_learns_nothing(walked: RelaxedSupernet) -> None:
    model = walked.model
    assert isinstance(model, Walked)
    frozen = [*model.backbone.requires_grad_(False).parameters(), *model.one.requires_grad_(False).parameters()]
    walked.architecture.mix()
    model(IMAGES).square().sum().backward()
    assert all(parameter.grad is None for parameter in frozen)
    assert all(parameter.grad is not None for part in (model.two, model.head) for parameter in part.parameters())


def test_copies_and_averages_compute_the_same_with_their_own_weights(walked: RelaxedSupernet) -> None:
    model = walked.model
    walked.architecture.mix()
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    twin = copy.deepcopy(model)
    expected = model(IMAGES)
    assert torch.equal(twin(IMAGES), expected)
    assert torch.equal(averaged(IMAGES), expected)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    changed = model(IMAGES)
    assert torch.equal(twin(IMAGES), expected)
    assert not torch.allclose(changed, expected)
    averaged.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 / 3)  # the mean of 1 and 3 times what it was
    assert torch.allclose(averaged(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


def test_hooks_on_the_parts_are_called_whenever_they_came(walked: RelaxedSupernet) -> None:
    walked.architecture.mix()
    expected, called = walked.model(IMAGES), dict[str, int]()

    def counting(name: str) -> Callable[..., None]:
        return lambda *_: called.update({name: called.get(name, 0) + 1})

    parts = {name: module for name, module in walked.model.named_modules() if name}
    parts = {name: part for name, part in parts.items() if not isinstance(part, nn.ModuleList | nn.ModuleDict)}
    handles = [module.register_forward_hook(counting(name)) for name, module in parts.items()]
    assert torch.allclose(walked.model(IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert called == dict.fromkeys(parts, 1)
    for handle in handles:
        handle.remove()
    assert torch.equal(walked.model(IMAGES), expected)
    assert called == dict.fromkeys(parts, 1)


class Keywords(nn.Module):
    """Called in all the ways in which people call models, and with choices that are."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width")
        self.into, self.out = nn.Linear(4, width), nn.Linear(width, 4)
        self.masked = LayerChoice([lambda: Masked(1.0), lambda: Masked(2.0)], label="masked")
        self.plain = LayerChoice({"same": nn.Identity, "relu": nn.ReLU, "linear": lambda: nn.Linear(4, 4)}, label="op")
        self.nothing = LayerChoice([nn.Identity, nn.Identity], label="nothing")
        self.skip = InputChoice(3, 1, label="skip")

    def forward(self, tokens: Tensor, mask: Tensor | None = None, *, parts: Any = ()) -> dict[str, Any]:
        h = self.masked(x=self.out(self.into(tokens)), mask=mask)
        h = self.plain(h) + self.plain(tokens)
        assert self.nothing(None) is None
        found = self.skip(inputs=[h, tokens, sum(parts) if parts else h.sin()])
        return {"logits": found, "length": len(tokens)}


class Masked(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.linear, self.factor = nn.Linear(4, 4), factor

    def forward(self, x: Tensor, *, mask: Tensor | None) -> Tensor:
        y: Tensor = self.factor * self.linear(x)
        return y if mask is None else y * mask


@dataclass
class Graph:
    """A batch that torch knows nothing of."""

    tokens: Tensor
    mask: Tensor | None = None


class OfBatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = Keywords()

    def forward(self, batch: Any) -> Any:
        if isinstance(batch, Graph):
            return self.network(batch.tokens, mask=batch.mask)
        if isinstance(batch, list):
            return self.network(batch[0], parts=batch[1:])
        return self.network(batch["tokens"], mask=batch.get("mask"))


TOKENS, MASK = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0], [0.0], [1.0]])
CALLS: dict[str, tuple[type[nn.Module], Any]] = {
    "by position": (Keywords, (TOKENS, MASK)),
    "with None": (Keywords, (TOKENS, None)),
    "by keyword": (Keywords, {"mask": MASK, "tokens": TOKENS}),
    "None by keyword": (Keywords, {"tokens": TOKENS, "mask": None, "parts": [TOKENS, MASK]}),
    "a dict": (OfBatches, {"tokens": TOKENS, "mask": MASK}),
    "a dataclass": (OfBatches, (Graph(TOKENS, MASK),)),
    "a list": (OfBatches, ([TOKENS, TOKENS, MASK],)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("speed", [None, Speed(), Speed(merge=True, checkpoint_cells=True)])
def test_models_are_called_as_people_call_theirs(call: str, speed: Speed | None) -> None:
    factory, example = CALLS[call]
    net = RelaxedSupernet(ModelSpace(factory))
    net.check(example)
    if speed is not None:
        optimise(net, example, speed)
        net.check(example)
    inputs: Any = example
    if factory is OfBatches and isinstance(example, dict):
        inputs = (example,)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    for sample in net.space.grid():
        net.architecture.one_hot(sample)
        built = net.extract(sample).eval()
        ours, theirs = net.model.eval()(*args, **kwargs), built(*args, **kwargs)
        assert ours["length"] == theirs["length"] == 3
        assert torch.allclose(ours["logits"], theirs["logits"], atol=1e-5)


def test_a_root_that_is_a_choice_is_called_as_its_candidates_are() -> None:
    class Logits(OfBatches):
        def forward(self, batch: Any) -> Any:
            return super().forward(batch)["logits"]

    net = RelaxedSupernet(ModelSpace(lambda: LayerChoice([Logits, Logits], label="root")))
    net.check({"tokens": TOKENS, "mask": MASK})
    optimise(net, {"tokens": TOKENS, "mask": MASK})


def test_candidates_of_which_some_yield_nothing_are_refused() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    net = RelaxedSupernet(ModelSpace(lambda: LayerChoice({"nothing": Nothing, "same": nn.Identity}, label="op")))
    with pytest.raises(NasTypeError, match="LayerChoice 'op': .*candidate 'nothing' yields None where others yield"):
        net.check((1, 2))


class Noisy(nn.Module):
    """Draws in evaluation too, noise of as many channels as there are."""

    def __init__(self, *, width: bool, wrong: bool = False) -> None:
        super().__init__()
        channels = ValueChoice([2, 8], label="width") if width else 8
        self.into, self.out = nn.Linear(4, channels), nn.Linear(channels, 4)
        self.op = LayerChoice([nn.ReLU, nn.Tanh, lambda: Shuffled()], label="op")
        self.scale = channels if wrong else 1

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(self.into(x), 0.5, training=True)
        h = self.scale * (h + torch.randn_like(h))
        y: Tensor = self.op(self.out(h))
        return y + random.random() + float(np.random.rand())


class Shuffled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[torch.randperm(len(x))]


@pytest.mark.parametrize("width", [False, True])
def test_what_is_random_in_evaluation_is_compared_without_its_chance(width: bool) -> None:
    before = torch.get_rng_state()
    net = RelaxedSupernet(ModelSpace(Noisy, width=width))
    net.check(TOKENS)
    optimise(net, TOKENS)
    net.check(TOKENS)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(NasValueError, match="label 'width'.*the relaxed supernet computes something else"):
        RelaxedSupernet(ModelSpace(Noisy, width=True, wrong=True)).check(TOKENS)


def test_what_is_not_a_number_in_one_of_the_two_is_a_difference() -> None:
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(ValueChoice([1, 3], label="width")))

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.weight.log() * self.weight).sum()

    with pytest.raises(NasValueError, match="label 'width'.*differ by nan"):
        RelaxedSupernet(ModelSpace(Log)).check((2, 2))
