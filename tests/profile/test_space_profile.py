"""What all samples of a space cost: exactly what building each of them says, with bounds, constraints, expectations."""

import itertools
import random
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas import (
    Cell,
    Constraint,
    InputChoice,
    Integer,
    LayerChoice,
    ModelSpace,
    NasTypeError,
    NasValueError,
    Real,
    Repeat,
    Sample,
    ValueChoice,
    model_space,
)
from nas.model_zoo import SPACES
from nas.profile import Cost, SpaceProfile, latency_table, profile


class Block(nn.Module):
    """A residual block whose inner width and layer are chosen, the latter with a choice of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = ValueChoice([2, 4, 8], label=None)
        self.inner = nn.Sequential(
            nn.Linear(width, hidden),
            LayerChoice(
                {
                    "relu": nn.ReLU,
                    "gate": lambda: nn.Sequential(nn.Linear(hidden, ValueChoice([2, 6])), nn.LazyLinear(hidden)),
                },
            ),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x)
        return y


@model_space
class Net(nn.Module):
    """A shared width that multiplies with others, elastic depth, nested conditions, inputs that change shapes."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 8, 16], label="width")
        self.stem = nn.Linear(3, width)
        self.blocks = Repeat(lambda i: Block(width), (0, 2), label="depth")
        self.joined = InputChoice(2, None, reduction="concat", label="joined")
        self.dropout = nn.Dropout(ValueChoice(Real(0.0, 0.5), label="dropout"))
        self.head = nn.LazyLinear(5)
        self(torch.zeros(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        y = self.joined([stem, self.blocks(stem)])
        z: Tensor = self.head(self.dropout(stem if y is None else y))
        return z


pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")]


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace(Net)


@pytest.fixture(scope="module")
def costs(space: ModelSpace) -> SpaceProfile:
    return profile(space, (1, 3))


@model_space
class Small(nn.Module):
    """The same without the interval of reals, so that it can be listed: 3 x 4 x (1 + 9 + 81) samples."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 8, 16], label="width")
        self.stem = nn.Linear(3, width)
        self.blocks = Repeat(lambda i: Block(width), (0, 2), label="depth")
        self.joined = InputChoice(2, None, reduction="concat", label="joined")
        self.head = nn.LazyLinear(5)
        self(torch.zeros(1, 3))

    forward = Net.forward
    dropout = staticmethod(lambda x: x)


@pytest.fixture(scope="module")
def small() -> ModelSpace:
    return ModelSpace(Small)


@pytest.fixture(scope="module")
def listed(small: ModelSpace) -> SpaceProfile:
    return profile(small, (1, 3))


def built(space: ModelSpace, sample: Sample, example: Tensor) -> tuple[int, int]:
    """Flops by torch's counter, and parameters."""
    model = space.build(sample, device="meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example.to("meta"))
    return int(counter.get_total_flops()), sum(parameter.numel() for parameter in model.parameters())


def check_exact(space: ModelSpace, costs: SpaceProfile, example: Tensor, number: int) -> None:
    for seed in range(number):
        sample = space.sample(10_000 + seed)
        flops, parameters = costs.flops(sample), costs.parameters(sample)  # before the sample itself is looked at
        assert (flops, parameters) == built(space, sample, example)
        if seed % 10 == 0:
            assert costs.activations(sample) == profile(space, example, sample=sample).activations


@pytest.mark.slow
def test_costs_of_200_samples_are_those_of_their_models(space: ModelSpace, costs: SpaceProfile) -> None:
    check_exact(space, costs, torch.zeros(1, 3), 200)


def zoo(name: str) -> tuple[ModelSpace, Tensor]:
    entry = SPACES[name]
    space = ModelSpace(entry.source, **entry.tiny)
    space = space if entry.where is None else space.where(entry.where)
    return space, torch.zeros((1, *entry.input_shape), dtype=torch.float32 if entry.tokens is None else torch.long)


@pytest.mark.parametrize("name", [name for name in ("lenet", "general", "vision_transformer") if name in SPACES])
def test_costs_of_zoo_samples(name: str) -> None:
    space, example = zoo(name)
    check_exact(space, profile(space, example), example, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SPACES))
def test_costs_of_200_samples_of_every_zoo_space(name: str) -> None:
    space, example = zoo(name)
    check_exact(space, profile(space, example), example, 200)


def test_interactions_are_kept(costs: SpaceProfile) -> None:
    assert any({"width", "repeat"} & set(labels) and len(labels) >= 3 for labels in costs.flops.interactions)
    assert not any("dropout" in labels for labels in costs.flops.interactions)


class LooseEnds(nn.Module):
    """A cell whose output is what no node reads: its width depends on 518,400 joint answers."""

    def __init__(self) -> None:
        super().__init__()
        operations = {"linear": lambda i: nn.Linear(4, 4), "relu": lambda i: nn.ReLU()}
        self.cell = Cell(operations, nodes=5, label="cell")
        self.head = nn.Linear(4 * len(self.cell.outputs), 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.cell(x, x))
        return y


@pytest.mark.slow
def test_loose_ends_depend_on_what_is_used_and_on_nothing_else() -> None:
    space, example = ModelSpace(LooseEnds), torch.zeros(1, 4)
    costs = profile(space, example)
    check_exact(space, costs, example, 60)
    (joint,) = (labels for labels in costs.flops.interactions if len(labels) > 2)
    assert joint == ("cell takes 2", "cell takes 3", "cell takes 4", "cell takes 5")
    before = costs.tables.builds
    for seed in range(100):
        costs.flops(space.sample(seed))
    assert costs.tables.builds - before < 10


def test_known_tables_build_nothing(small: ModelSpace, listed: SpaceProfile) -> None:
    bounds = listed.flops.bounds()
    before = listed.tables.builds
    assert all(bounds.least <= listed.flops(sample) <= bounds.greatest for sample in small.grid())
    assert listed.tables.builds == before < small.size / 4


@pytest.mark.parametrize("name", ["flops", "multiply_adds", "parameters", "activations"])
def test_bounds_are_attained(name: str, small: ModelSpace, listed: SpaceProfile) -> None:
    cost: Cost = getattr(listed, name)
    found = [cost(sample) for sample in small.grid()]
    bounds = cost.bounds()
    assert (bounds.least, bounds.greatest, bounds.exact, bounds.share) == (min(found), max(found), True, 1.0)


def test_bounds_under_a_constraint(small: ModelSpace, listed: SpaceProfile) -> None:
    where = (listed.flops < 1500) & (listed.parameters > 150)
    kept = [sample for sample in small.grid() if where.allows(sample)]
    flops = [listed.flops(sample) for sample in kept]
    bounds = listed.flops.bounds(where)
    assert (bounds.least, bounds.greatest, bounds.exact) == (min(flops), max(flops), True)
    drawn = sum(where.allows(small.sample(seed)) for seed in range(3000)) / 3000
    assert bounds.share == pytest.approx(drawn, abs=0.03)
    assert bounds.share_error == 0
    assert listed.flops.bounds(lambda sample: sample["width"] == 4).greatest < listed.flops.bounds().greatest


def test_shares_of_large_spaces_are_estimated(space: ModelSpace, costs: SpaceProfile) -> None:
    bounds = costs.flops.bounds(costs.flops <= 700)
    drawn = sum(costs.flops(space.sample(seed)) <= 700 for seed in range(2000)) / 2000
    assert 0 < bounds.share_error < 0.02
    assert bounds.share == pytest.approx(drawn, abs=4 * bounds.share_error + 0.03)
    assert (bounds.greatest, bounds.exact) == (700, False)


def test_constraints_sample_and_join(space: ModelSpace, costs: SpaceProfile) -> None:
    low, high = 300, 900
    where = (costs.flops > low) & (costs.flops <= high)
    assert isinstance(where, Constraint)
    narrow = space.where(where)
    for seed in range(30):
        assert low < costs.flops(narrow.sample(seed)) <= high
    sample = narrow.sample(0)
    assert low < costs.flops(narrow.mutate(sample, 1)) <= high
    assert space.sample(5, where=costs.parameters < 100) == space.sample(5, where=costs.parameters < 100)
    assert repr(costs.flops < 3e8) == "flops < 300000000"
    assert {repr(c) for c in (costs.flops >= 5, costs.flops > 5)} == {"flops >= 5", "flops > 5"}


def test_impossible_constraints_are_refused_at_once_with_the_bounds(space: ModelSpace, costs: SpaceProfile) -> None:
    bounds = costs.flops.bounds()
    for where in (costs.flops < bounds.least, costs.flops > bounds.greatest):
        with pytest.raises(NasValueError, match=f"lie between {bounds.least:,.0f} and {bounds.greatest:,.0f}"):
            space.where(where)
    space.where(costs.flops <= bounds.least)
    space.where(costs.flops >= bounds.greatest)


def test_misuse_is_answered(space: ModelSpace, costs: SpaceProfile) -> None:
    with pytest.raises(NasTypeError, match="join two with `&`"):
        assert 1 < costs.flops < 2
    with pytest.raises(NasTypeError, match="the limit must be a number"):
        _ = costs.flops < "3e8"  # type: ignore[operator]
    with pytest.raises(NasValueError, match="label 'width'"):
        costs.flops({**space.default(), "width": 5})
    sample = space.sample(0)
    assert costs.flops({**sample, "learning_rate": 0.1}) == costs.flops(sample)


def test_an_interval_of_reals_that_changes_a_cost_is_refused() -> None:
    space = ModelSpace(lambda: nn.Linear(4, int(8 * ValueChoice(Real(1.0, 4.0), label="ratio"))))
    with pytest.raises(NasValueError, match="label 'ratio'.*interval of reals.*give it a step"):
        profile(space, (1, 4))
    stepped = ModelSpace(lambda: nn.Linear(4, int(8 * ValueChoice(Real(1.0, 4.0, step=0.5), label="ratio"))))
    assert profile(stepped, (1, 4)).multiply_adds({"ratio": 2.5}) == 80


def test_choices_behind_plain_conditions_are_counted() -> None:
    def plain_loop() -> nn.Module:
        depth = ValueChoice([1, 2], label="depth")
        layers = [nn.Linear(4, 4) for _ in range(depth)]
        if depth == 2:
            layers.append(nn.Linear(4, ValueChoice([3, 4], label="odd")))
        return nn.Sequential(*layers)

    costs = profile(ModelSpace(plain_loop), (1, 4))
    assert costs.parameters({"depth": 1}) == 20
    assert costs.parameters({"depth": 2, "odd": 3}) == 20 + 20 + 15


def test_spaces_of_which_not_all_samples_can_be_built() -> None:
    def build() -> nn.Module:
        first, second = (ValueChoice([1, 2, 3, 4], label=label) for label in ("first", "second"))
        if first + second > 6:
            raise NasValueError("too wide")
        return nn.Sequential(nn.Linear(4, first), nn.Linear(first, second))

    space = ModelSpace(build)
    with pytest.raises(NasValueError, match="too wide"):
        profile(space, (1, 4))
    costs = profile(space.where(lambda sample: sample["first"] + sample["second"] <= 6), (1, 4))
    assert costs.multiply_adds({"first": 3, "second": 2}) == 18
    assert costs.flops({"first": 2, "second": 4}) == 32
    assert not costs.flops.bounds().exact
    with pytest.raises(NasValueError, match="too wide"):
        costs.flops({"first": 4, "second": 4})


def wide(numbers: int) -> ModelSpace:
    """Two wide domains that multiply: a table too large to be filled, beside a small one."""

    def build() -> nn.Module:
        first = ValueChoice(Integer(1, numbers), label="first")
        second = ValueChoice(Integer(1, numbers), label="second")
        return nn.Sequential(nn.Linear(4, first), nn.Linear(first, second, bias=False))

    return ModelSpace(build)


def test_large_tables_stay_lazy_and_their_bounds_outer() -> None:
    space = wide(200)
    costs = profile(space, (1, 4))
    assert costs.multiply_adds({"first": 123, "second": 7}) == 123 * (4 + 7)
    bounds = costs.multiply_adds.bounds()
    assert not bounds.exact
    assert bounds.least <= 5
    assert bounds.greatest >= 200 * 204
    with pytest.raises(NasValueError, match="too many ways to be listed"):
        costs.multiply_adds.expected({})


def even(space: ModelSpace, rng: random.Random) -> dict[str, Tensor]:
    """Random probabilities for every label."""
    found = {}
    for label, domain in space.search_space.domains.items():
        weights = torch.tensor([rng.random() + 0.1 for _ in domain.values()], dtype=torch.float64)
        found[label] = weights / weights.sum()
    return found


def by_hand(space: ModelSpace, cost: Cost, probabilities: Mapping[str, Tensor]) -> float:
    total = 0.0
    for sample in space.grid():
        chance = 1.0
        for label, answer in sample.items():
            chance *= float(probabilities[label][list(space.search_space.domains[label].values()).index(answer)])
        total += chance * cost(sample)
    return total


@pytest.mark.parametrize("name", ["flops", "parameters", "activations"])
def test_expectation_is_the_mean_over_all_samples(name: str, small: ModelSpace, listed: SpaceProfile) -> None:
    cost: Cost = getattr(listed, name)
    for seed in range(3):
        probabilities = even(small, random.Random(seed))
        assert float(cost.expected(probabilities)) == pytest.approx(by_hand(small, cost, probabilities), rel=1e-9)
    sample = small.sample(3)
    certain = {
        label: torch.tensor([float(answer == sample.get(label, answer)) for answer in domain.values()])
        for label, domain in small.search_space.domains.items()
    }
    assert float(cost.expected(certain)) == cost(sample)


def test_gradient_of_the_expectation(small: ModelSpace, listed: SpaceProfile) -> None:
    labels = list(small.search_space.domains)
    rng = torch.Generator().manual_seed(0)
    logits = [
        torch.randn(int(small.search_space.domains[n].size), dtype=torch.float64, generator=rng).requires_grad_()
        for n in labels
    ]

    def penalty(*logits: Tensor) -> Tensor:
        given = {name: logit.softmax(0) for name, logit in zip(labels, logits, strict=True)}
        return listed.flops.expected(given) / 1000

    assert torch.autograd.gradcheck(penalty, logits)


def test_expectation_says_what_it_lacks(listed: SpaceProfile) -> None:
    with pytest.raises(NasValueError, match="labels .*'width'.*vector"):
        listed.flops.expected({"depth": torch.ones(3) / 3})


def test_profiles_are_shown_and_repeatable(small: ModelSpace, listed: SpaceProfile) -> None:
    text = str(listed)
    assert "Small" in text
    assert f"{listed.flops.bounds().greatest:,.0f}" in text
    again = profile(small, (1, 3))
    assert [again.flops(s) for s in itertools.islice(small.grid(), 50)] == [
        listed.flops(s) for s in itertools.islice(small.grid(), 50)
    ]


class Looped(nn.Module):
    """A depth and a kind in plain Python."""

    def __init__(self) -> None:
        super().__init__()
        width = 4
        self.layers = nn.ModuleList()
        for i in range(ValueChoice([1, 2, 3], label="depth")):
            chosen = ValueChoice([4, 8], label=f"width{i}")
            self.layers.append(nn.Linear(width, chosen))
            width = chosen
        if ValueChoice(["plain", "gated"], label="kind") == "gated":
            self.layers.append(LayerChoice([lambda: nn.Linear(width, width), nn.Tanh], label="gate"))
        else:  # One label with other answers in each branch.
            between = ValueChoice([1, 2], label="between") if width == 4 else ValueChoice([2, 3, 5], label="between")
            self.layers += [nn.Linear(width, between), nn.Linear(between, width)]
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return torch.as_tensor(self.head(x))


def test_choices_behind_values_are_counted() -> None:
    looped, example = ModelSpace(Looped), torch.zeros(1, 4)
    costs = profile(looped, example)
    for sample in looped.grid():
        assert (costs.flops(sample), costs.parameters(sample)) == built(looped, sample, example)
    small = looped.where(costs.parameters < 100)
    found = list(small.grid())
    assert 0 < len(found) < looped.size
    assert all(costs.parameters(sample) < 100 for sample in found)
    bounds = costs.parameters.bounds()
    every = [costs.parameters(sample) for sample in looped.grid()]
    assert (bounds.least, bounds.greatest) == (min(every), max(every))


class Heads(nn.Module):
    """Heads that do not divide the width cannot be built: torch's own assertion fails."""

    built: list[tuple[int, int]]

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 6, 8, 12], label="width")
        heads = ValueChoice([1, 2, 3, 4], label="heads")
        type(self).built.append((int(width), int(heads)))
        self.embed = nn.Linear(3, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layers = Repeat(lambda i: nn.Linear(width, width), (1, 3), label="depth")
        self.head = nn.Linear(width, ValueChoice([2, 5], label="classes"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        return torch.as_tensor(self.head(self.layers(y)))


def divides(sample: Mapping[str, object]) -> bool:
    return int(str(sample["width"])) % int(str(sample["heads"])) == 0


@pytest.mark.slow
def test_what_a_constraint_forbids_is_never_built() -> None:
    Heads.built = []
    space, example = ModelSpace(Heads), torch.zeros(1, 5, 3)
    narrow = space.where(divides)
    Heads.built.clear()
    costs = profile(narrow, example)
    allowed = list(narrow.grid())
    for sample in allowed:
        one = profile(narrow, example, sample=sample)
        assert (costs.flops(sample), costs.parameters(sample)) == (one.flops, one.parameters)
    bounds = costs.flops.bounds()
    found = [costs.flops(sample) for sample in allowed]
    assert bounds.least <= min(found) <= max(found) <= bounds.greatest
    assert not bounds.exact
    assert costs.tables.builds < len(allowed)
    limit = sorted(found)[len(found) // 2]
    inside = costs.flops.bounds(costs.flops < limit)
    kept = [flops for flops in found if flops < limit]
    assert (inside.least, inside.greatest, inside.exact) == (min(kept), max(kept), True)
    assert all(costs.flops(narrow.where(costs.flops < limit).sample(seed)) < limit for seed in range(5))
    table = latency_table(narrow, example, repeats=1, warmup=0).cost()
    assert all(table(sample) > 0 for sample in allowed)
    assert Heads.built
    assert all(width % heads == 0 for width, heads in Heads.built)


def test_expectations_are_over_what_a_constraint_allows() -> None:
    Heads.built = []
    narrow = ModelSpace(Heads).where(divides)
    costs = profile(narrow, torch.zeros(1, 5, 3))
    domains = narrow.search_space.domains
    for sample in narrow.grid():
        certain = {
            label: torch.tensor([float(answer == sample[label]) for answer in domain.values()])
            for label, domain in domains.items()
        }
        assert float(costs.flops.expected(certain)) == costs.flops(sample)
    even = {label: torch.full((int(domain.size),), 1 / int(domain.size)) for label, domain in domains.items()}
    found = [costs.flops(sample) for sample in narrow.grid()]
    assert min(found) <= float(costs.flops.expected(even)) <= max(found)


@pytest.mark.slow
def test_latencies_of_spaces_without_parts_are_those_of_whole_builds() -> None:
    space, example = zoo("nasbench101")
    table = latency_table(space, example, repeats=1, warmup=0)
    found = table.cost()
    for seed in range(3):
        sample = space.sample(seed)
        assert found(sample) == pytest.approx(table(sample), abs=1e-6)


def test_a_latency_may_depend_on_an_interval_of_reals() -> None:
    space = ModelSpace(lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(ValueChoice(Real(0.0, 0.5), label="rate"))))
    table = latency_table(space, (1, 4), repeats=1, warmup=0)
    sample = space.sample(0)
    assert table.cost()(sample) == pytest.approx(table(sample), abs=1e-7)
