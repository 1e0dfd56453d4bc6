"""Any path through the shared store is the architecture that would be built alone with the same weights."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas import InputChoice, Integer, LayerChoice, ModelSpace, NasTypeError, NasValueError, Repeat, Sample, ValueChoice
from nas.model_zoo import SPACES, list_spaces, space
from nas.oneshot import PathSupernet

pytestmark = pytest.mark.long


def batch_for(name: str, size: int = 4) -> Tensor:
    entry, generator = SPACES[name], torch.Generator().manual_seed(0)
    shape = (size, *entry.input_shape)
    if entry.tokens is None:
        return torch.rand(shape, generator=generator)
    return torch.randint(entry.tokens, shape, generator=generator)


def assert_same_step(supernet: PathSupernet, sample: Sample, x: Tensor, *, train: bool) -> None:
    """Outputs, gradients and batch statistics of a path are those of its architecture."""
    supernet.train(train)
    supernet.select(sample)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    alone = supernet.extract(sample)
    supernet.zero_grad()
    outputs = []
    for model in (supernet, alone):
        torch.manual_seed(0)
        outputs.append(model(x))
        outputs[-1].square().mean().backward()
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    after = supernet.extract(sample)
    for (name, buffer), found in zip(alone.named_buffers(), after.buffers(), strict=True):
        torch.testing.assert_close(found, buffer, rtol=1e-5, atol=1e-5, msg=name)
    # The gradients: what one step of plain descent changes.
    with torch.no_grad():
        for parameter in [*alone.parameters(), *supernet.parameters()]:
            if parameter.grad is not None:
                parameter -= parameter.grad
    stepped = supernet.extract(sample)
    for (name, parameter), found in zip(alone.named_parameters(), stepped.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, rtol=1e-4, atol=1e-5, msg=name)
    active = set(supernet.active())
    assert all(parameter.grad is None for name, parameter in supernet.named_parameters() if name not in active)
    supernet.load_state_dict(before)


LARGE = (
    "amoebanet",
    "darts",
    "enas_micro",
    "lenet",
    "mobilenet_v3",
    "nasbench101",
    "nasnet",
    "nasnet_simple",
    "nats_bench_size",
    "pnas",
)
"""Among the slow tests; those of one cell show the same in a second or two."""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(pytest.param(n, {}, marks=pytest.mark.slow if n in LARGE else (), id=n) for n in list_spaces()),
        pytest.param("enas_micro", {"cells": 1}, id="enas_micro of one cell"),
        pytest.param("pnas", {"cells": 1}, id="pnas of one cell", marks=pytest.mark.slow),
    ],
)
def test_paths_of_the_zoo_are_their_architectures(name: str, arguments: dict[str, Any]) -> None:
    zoo_space, x = space(name, **{**SPACES[name].tiny, **arguments}), batch_for(name)
    supernet = PathSupernet(zoo_space, example_input=(x,))
    for seed in range(2):
        assert_same_step(supernet, zoo_space.sample(seed), x, train=seed % 2 == 1)


class Block(nn.Module):
    """Every kind of choice of a shape."""

    def __init__(self, width: int, index: int) -> None:
        super().__init__()
        hidden = ValueChoice([4, 8], label=f"hidden{index}")
        kernel = ValueChoice([1, 3, 5], label=f"kernel{index}")
        self.widen = nn.Conv2d(width, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.filter = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.act = LayerChoice(
            {"relu": nn.ReLU, "prelu": lambda: nn.PReLU(hidden), "gate": lambda: Gate(hidden)}, label=f"act{index}"
        )
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=ValueChoice([1, 2, 4], label=f"groups{index}"))
        self.into = nn.Conv2d(hidden, 8, 1)
        self.narrow = nn.Conv2d(8, width, 1)
        self.skip = InputChoice(2, 1, label=f"skip{index}")

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.filter(self.norm(self.widen(x))))
        y = self.narrow(self.grouped(self.into(y)))
        around = self.skip([x, None])
        z: Tensor = y if around is None else y + around
        return z


class Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.sigmoid()


class Network(nn.Module):
    """A depth by Repeat and one by a loop, attention with chosen heads, tied, frozen and missing parameters."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice(Integer(8, 16, step=4), label="width")
        self.stem = nn.Conv2d(3, width, ValueChoice([3, 5], label="stem"), padding="same")
        self.stem.weight.requires_grad_(False)
        self.blocks = Repeat(lambda i: Block(width, i), (0, 2), label="depth")
        self.tail = nn.ModuleList()
        for i in range(ValueChoice([0, 1, 3], label="tail")):
            self.tail.append(nn.Sequential(nn.Conv2d(width, width, 1), nn.GroupNorm(4, width), nn.ReLU()))
            if i == 2:
                self.tail[2][0].weight = self.tail[1][0].weight
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width,
            ValueChoice([1, 2, 4], label="heads"),
            batch_first=True,
            dropout=ValueChoice([0.0, 0.5], label="drop"),
        )
        self.recurrent = nn.LSTM(width, ValueChoice([3, 5], label="state"), batch_first=True, bidirectional=True)
        self.norm_only = nn.BatchNorm1d(width, affine=False)
        self.head = nn.Linear(width, 5, bias=ValueChoice([True, False], label="bias"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        for layer in self.tail:
            x = layer(x)
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        state = self.recurrent(x)[0].mean()
        y: Tensor = self.head(self.norm_only(x.mean(1))) + state
        return y


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network() -> ModelSpace:
    return ModelSpace(Network)


@pytest.fixture(scope="module")
def as_built(network: ModelSpace, x: Tensor) -> PathSupernet:
    """Of the default seed, 0; looking through the space takes longer than most of the tests."""
    return PathSupernet(network, example_input=(x,))


@pytest.fixture
def supernet(as_built: PathSupernet) -> PathSupernet:
    return copy.deepcopy(as_built)


@pytest.fixture(scope="module")
def of_seed_1(network: ModelSpace, x: Tensor) -> PathSupernet:
    return PathSupernet(network, seed=1, example_input=(x,))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), train=st.booleans())
def test_any_path_is_its_architecture(
    seed: int, train: bool, network: ModelSpace, supernet: PathSupernet, x: Tensor
) -> None:
    assert_same_step(supernet, network.sample(seed), x, train=train)


def test_the_store_has_one_parameter_for_each_place(supernet: PathSupernet) -> None:
    shapes = {name: tuple(p.shape) for name, p in supernet.store.named_parameters()}
    assert shapes["stem.weight"] == (16, 3, 5, 5)
    assert shapes["blocks.1.widen.weight"] == (8, 16, 1, 1)
    assert shapes["blocks.0.act.[1].weight"] == (8,)
    assert shapes["blocks.0.act.[2].scale"] == (8, 1, 1)
    assert shapes["blocks.0.grouped.weight"] == (8, 8, 3, 3)
    assert shapes["attention.in_proj_weight"] == (48, 16)
    assert "tail.2.0.weight" not in shapes  # tied to that before it


def test_frozen_parameters_stay_frozen(supernet: PathSupernet, network: ModelSpace) -> None:
    assert not supernet.store.get_parameter("stem.weight").requires_grad
    assert not supernet.extract(network.default()).get_parameter("stem.weight").requires_grad


def test_tied_parameters_stay_tied(supernet: PathSupernet, network: ModelSpace) -> None:
    model = supernet.extract(network.complete({"tail": 3}))
    assert model.get_parameter("tail.2.0.weight") is model.get_parameter("tail.1.0.weight")


def test_extracted_models_share_no_storage(supernet: PathSupernet, network: ModelSpace) -> None:
    sample = network.complete({"depth": 2, "tail": 3})
    models = [supernet, supernet.extract(sample), supernet.extract(sample)]
    places = [{t.untyped_storage().data_ptr() for t in [*m.parameters(), *m.buffers()]} for m in models]
    assert not places[0] & places[1]
    assert not places[0] & places[2]
    assert not places[1] & places[2]
    assert vars(models[1])["nas_architecture"]["sample"] == sample


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1), torch.optim.AdamW])
def test_parameters_off_the_path_are_left_alone(
    make: Callable[[Any], torch.optim.Optimizer], supernet: PathSupernet, network: ModelSpace, x: Tensor
) -> None:
    optimizer = make(supernet.parameters())
    for sample in (network.complete({"depth": 2, "act0": "prelu"}), network.complete({"depth": 1, "act0": "gate"})):
        supernet.select(sample)
        before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
        momentum = {name: copy.deepcopy(optimizer.state.get(p)) for name, p in supernet.named_parameters()}
        optimizer.zero_grad()
        supernet(x).square().sum().backward()
        optimizer.step()
        active = set(supernet.active())
        off = [(name, p) for name, p in supernet.named_parameters() if name not in active]
        assert off
        for name, parameter in off:
            assert parameter.grad is None
            assert torch.equal(parameter, before[name])
            assert str(optimizer.state.get(parameter)) == str(momentum[name])
        assert not torch.equal(supernet.store.get_parameter("head.weight"), before["head.weight"])


def test_gradients_add_up_over_paths(supernet: PathSupernet, network: ModelSpace, x: Tensor) -> None:
    samples = [network.complete({"width": 8, "drop": 0.0}), network.complete({"width": 16, "drop": 0.0})]
    expected = None
    for sample in samples:
        supernet.zero_grad()
        supernet.select(sample)
        supernet(x).sum().backward()
        gradient = supernet.store.get_parameter("head.weight").grad
        assert gradient is not None
        expected = gradient.clone() if expected is None else expected + gradient
    supernet.zero_grad()
    for sample in samples:
        supernet.select(sample)
        supernet(x).sum().backward()
    torch.testing.assert_close(supernet.store.get_parameter("head.weight").grad, expected)


def test_the_store_is_loaded_strictly(
    supernet: PathSupernet, of_seed_1: PathSupernet, network: ModelSpace, x: Tensor
) -> None:
    first, second = supernet.eval(), copy.deepcopy(of_seed_1).eval()
    sample = network.sample(3)
    for each in (first, second):
        each.select(sample)
    assert not torch.equal(first(x), second(x))
    state = first.state_dict()
    for assign in (False, True):
        second.load_state_dict(state, assign=assign)
        assert torch.equal(first(x), second(x))
    state.pop("head.weight")
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "head.weight"'):
        second.load_state_dict(state)


def test_the_seed_makes_the_weights(
    supernet: PathSupernet, of_seed_1: PathSupernet, network: ModelSpace, x: Tensor
) -> None:
    again = PathSupernet(network, seed=0, example_input=(x,))
    first, same, other = (each.state_dict() for each in (supernet, again, of_seed_1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_the_global_random_states_are_left_alone(network: ModelSpace, x: Tensor) -> None:
    def states() -> tuple[object, str, bytes]:
        return random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().numpy().tobytes()

    before = states()
    supernet = PathSupernet(network, example_input=(x,))
    samples = [network.complete({**network.sample(seed), "drop": 0.0}) for seed in range(4)]
    supernet.prepare(samples[:2])
    for sample in samples:
        supernet.select(sample)
        supernet(x).sum().backward()
        supernet.extract(sample)
    supernet.check((x,), samples)
    assert states() == before


def test_the_check_leaves_everything_as_it_was(supernet: PathSupernet, network: ModelSpace, x: Tensor) -> None:
    supernet.select(network.default())
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.check((x,), [network.sample(seed) for seed in range(3)])
    assert supernet.sample == network.default()
    assert supernet.training
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())


def test_what_is_no_function_of_the_weights_is_found() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2, bias=ValueChoice([False, True], label="bias"))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(x)
            return y + float(isinstance(self.linear.weight, nn.Parameter) and self.linear.weight.grad is not None)

    odd = ModelSpace(Odd)
    supernet = PathSupernet(odd, example_input=(torch.ones(1, 2),))
    supernet(torch.ones(1, 2)).sum().backward()
    with pytest.raises(NasValueError, match="labels 'bias': the path computes something else than its architecture"):
        supernet.check((torch.ones(1, 2),), [{"bias": True}])


def test_subnets_are_cached_and_prepared(network: ModelSpace, x: Tensor) -> None:
    supernet = PathSupernet(network, example_input=(x,), cache=2)
    samples = [network.sample(seed) for seed in range(3)]
    supernet.prepare(samples[:2])
    supernet.select(samples[0])
    first = supernet._selected
    supernet.select(samples[1])
    supernet.select(dict(reversed(samples[0].items())))
    assert supernet._selected is first
    supernet.select(samples[2])
    supernet.select(samples[1])
    supernet.select(samples[0])
    assert supernet._selected is not first


def test_a_copy_trains_apart(supernet: PathSupernet, network: ModelSpace, x: Tensor) -> None:
    sample = network.complete({"drop": 0.0})
    supernet.prepare([sample])
    supernet.select(sample)
    supernet.eval()
    expected = supernet(x)
    twin = copy.deepcopy(supernet)
    assert torch.equal(twin(x), expected)
    with torch.no_grad():
        twin.store.get_parameter("head.weight").zero_()
    assert torch.equal(supernet(x), expected)
    assert not torch.equal(twin(x), expected)


def test_other_number_types_and_autocast(supernet: PathSupernet, network: ModelSpace, x: Tensor) -> None:
    supernet.select(network.complete({"width": 8}))
    supernet.eval()
    expected = supernet(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(supernet(x).float(), expected, rtol=0.1, atol=0.1)
    assert torch.allclose(supernet.double()(x.double()).float(), expected, atol=1e-5)


def test_parameters_in_statistics_that_are_assigned() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(ValueChoice([2, 3], label="width")))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + 1
            return x + self.seen.sum()

    supernet = PathSupernet(ModelSpace(Counter), example_input=(torch.zeros(1),))
    for width in (2, 3, 2):
        supernet.select({"width": width})
        supernet(torch.zeros(1))
    assert supernet.store.get_buffer("seen").tolist() == [3, 3, 1]


def test_what_candidates_are_called_is_in_no_name() -> None:
    """Who looks for "norm" in names means their own; and a dot would end a name."""
    answers = {"norm.b": lambda: nn.Linear(1, 1), "c/d": lambda: nn.Linear(1, 1), "": lambda: nn.Linear(1, 1)}
    supernet = PathSupernet(ModelSpace(lambda: LayerChoice(answers, label="op")), example_input=(torch.zeros(1, 1),))
    assert set(supernet.state_dict()) == {f"[{number}].{local}" for number in range(3) for local in ("weight", "bias")}


def test_layers_of_two_kinds_at_one_place_are_refused() -> None:
    def build() -> nn.Module:
        wide = ValueChoice([False, True], label="wide")
        return nn.Sequential(nn.Conv1d(4, 4, 1) if wide else nn.Linear(4, 4), nn.Dropout(ValueChoice([0.1, 0.2])))

    with pytest.raises(
        NasValueError, match=r"labels 'wide': the parameter '0.weight' belongs to .*To mend: .* with a LayerChoice"
    ):
        PathSupernet(ModelSpace(build), example_input=(torch.zeros(1, 4, 4),))


def test_bad_arguments_are_explained(supernet: PathSupernet, network: ModelSpace, x: Tensor) -> None:
    with pytest.raises(NasValueError, match="PathSupernet: cache must be an int from 1 on; received 0"):
        PathSupernet(network, example_input=(x,), cache=0)
    with pytest.raises(NasValueError, match="missing"):
        supernet.select({"width": 8})
    with pytest.raises(NasTypeError, match="a sample must be a dict"):
        supernet.select(3)  # type: ignore[arg-type]


class Looped(nn.Module):
    """A depth and a kind in plain Python: what is asked depends on their values."""

    def __init__(self) -> None:
        super().__init__()
        width = 4
        self.layers = nn.ModuleList()
        for i in range(ValueChoice([1, 2, 3], label="depth")):
            chosen = ValueChoice([4, 8], label=f"width{i}")
            self.layers.append(nn.Linear(width, chosen))
            width = chosen
        if ValueChoice(["plain", "gated"], label="kind") == "gated":
            self.gate = LayerChoice([nn.Sigmoid, nn.Tanh], label="gate")
        else:  # One label with other answers in each branch.
            between = ValueChoice([1, 2], label="between") if width == 4 else ValueChoice([2, 3, 5], label="between")
            self.layers += [nn.Linear(width, between), nn.Linear(between, width)]
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return torch.as_tensor(self.head(self.gate(x) * x if hasattr(self, "gate") else x))


def test_choices_behind_values_are_paths_too() -> None:
    looped = ModelSpace(Looped)
    assert looped.size == (1 + 2 + 4) * (2 + 2) + (1 + 2 + 4) * (2 + 3)
    x = torch.rand(3, 4)
    supernet = PathSupernet(looped, example_input=(x,))
    for sample in looped.grid():
        assert_same_step(supernet, sample, x, train=True)


class TiedLanguageModel(nn.Module):
    """Its head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 6], label="width")
        self.embedding, self.act = nn.Embedding(9, width), LayerChoice([nn.ReLU, nn.Tanh], label="act")
        self.head = nn.Linear(width, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.act(self.embedding(x))))


def test_tied_tensors_are_one_in_the_store() -> None:
    tied = ModelSpace(TiedLanguageModel)
    x = torch.randint(0, 9, (3, 4))
    supernet = PathSupernet(tied, example_input=(x,))
    assert sum(p.numel() for p in supernet.parameters()) == 9 * 6
    for sample in tied.grid():
        assert_same_step(supernet, sample, x, train=True)


class Shared(nn.Module):
    """Branches share a width: the fewer are on, the wider is each; each by itself is one sample of many."""

    def __init__(self, branches: int = 9) -> None:
        super().__init__()
        on = [ValueChoice([1, 0], label=f"on{i}") for i in range(branches)]
        width = 24 // max(1, sum(on))
        self.branches = nn.ModuleDict({str(i): nn.Linear(3, width) for i, each in enumerate(on) if each})

    def forward(self, x: Tensor) -> Tensor:
        return sum((branch(x).sum(1) for branch in self.branches.values()), start=x.sum(1))


class Joint(nn.Module):
    """Widths that several answers decide together, deeper and deeper."""

    def __init__(self) -> None:
        super().__init__()
        first = ValueChoice([1, 2, 4, 8], label="first")
        divisor = ValueChoice([1, 2, 4], label="divisor")
        more = ValueChoice([False, True], label="more")
        width = 8 * first // divisor
        self.wide = nn.Linear(3, width)
        self.narrow = nn.Linear(width, 2 * width if more and divisor == 4 else 2)
        if more and first == 2 and divisor == 1:
            self.rare = nn.Linear(3, first + 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.narrow(self.wide(x)).sum(1)
        return found + self.rare(x).sum(1) if hasattr(self, "rare") else found


@pytest.mark.filterwarnings("ignore:The search space of Shared is not exact")
def test_the_largest_is_found_where_several_answers_decide_a_width() -> None:
    shared = PathSupernet(ModelSpace(Shared), example_input=(torch.zeros(1, 3),))
    assert [tuple(shared.store.get_parameter(f"branches.{i}.weight").shape) for i in range(9)] == [(24, 3)] * 9
    joint = PathSupernet(ModelSpace(Joint), example_input=(torch.zeros(1, 3),))
    found = {name: tuple(parameter.shape) for name, parameter in joint.store.named_parameters()}
    assert found["wide.weight"] == (64, 3)
    assert found["narrow.weight"] == (32, 64)
    assert found["rare.weight"] == (3, 3)
    for sample in joint.space.grid():
        joint.select(sample)
        assert torch.isfinite(joint(torch.ones(2, 3))).all()


def test_what_the_program_refuses_is_no_neighbour() -> None:
    def build() -> nn.Module:
        one, other = ValueChoice([0, 1, 2], label="one"), ValueChoice([2, 1, 0], label="other")
        if one == 2 and other == 0:
            raise ValueError("these two do not go together")
        return nn.Linear(3, 4 * one + other + 1)

    sound = ModelSpace(build).where(lambda sample: (sample["one"], sample["other"]) != (2, 0))
    supernet = PathSupernet(sound, example_input=(torch.zeros(1, 3),))
    assert supernet.store.get_parameter("weight").shape == (11, 3)


class Rare(nn.Module):
    """A width that one sample of 65,536 has, with nothing near it that is wider than the rest."""

    def __init__(self) -> None:
        super().__init__()
        on = [ValueChoice([0, 1], label=f"on{i}") for i in range(16)]
        self.layer = nn.Linear(3, 4 if sum(abs(each - i % 2) for i, each in enumerate(on)) else 8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


@pytest.mark.filterwarnings("ignore:The search space of Rare is not exact")
def test_what_was_not_found_is_left_out() -> None:
    supernet = PathSupernet(ModelSpace(Rare), example_input=(torch.zeros(1, 3),))
    rare = {f"on{i}": i % 2 for i in range(16)}
    assert not supernet.covered.contains(rare)
    assert supernet.covered.contains({**rare, "on3": 0})
    assert supernet.covered.mutate({**rare, "on3": 0}, 0) != rare
    with pytest.raises(NasValueError, match="was not found as large"):
        supernet.select(rare)


@pytest.mark.slow
def test_every_graph_of_nasbench101_is_a_path() -> None:
    benchmark = space("nasbench101", **SPACES["nasbench101"].tiny)
    supernet = PathSupernet(benchmark, example_input=(batch_for("nasbench101", 1),))
    for seed in range(500):
        supernet.select(supernet.covered.sample(seed))
    assert len(supernet.uncovered) <= 5
