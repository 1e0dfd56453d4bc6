"""Model spaces: from programs with choices to samples and modules, and back."""

import itertools
import json
import pickle
import random
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import nas
from nas import (
    ChosenInputs,
    InputChoice,
    LayerChoice,
    ModelSpace,
    Mutator,
    NasError,
    Repeat,
    ValueChoice,
    load_sample,
    model_space,
    replace_module,
    save_sample,
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.act = LayerChoice({"relu": nn.ReLU, "prelu": lambda: nn.PReLU(init=ValueChoice([0.1, 0.2]))})
        self.skip = InputChoice(2, label="skip")

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x))
        around = self.skip([x, None])
        return y if around is None else y + around


@model_space
class DigitNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        width = ValueChoice([4, 8], label="width")
        self.stem = nn.Conv2d(1, width, ValueChoice([3, 5], label="kernel"), padding="same")
        self.other = nn.Conv2d(1, width, 1)
        self.which = InputChoice(2, 1, label="which")
        self.blocks = Repeat(lambda i: Block(width), depth=(1, 2), label="depth")
        self.head = nn.Linear(width * 2, classes)  # arithmetic is plain Python
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.which([self.stem(x), self.other(x)])).mean((2, 3))
        return self.head(torch.cat([y, y], 1))


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace(DigitNet(5))


def test_size_is_exact_over_conditions(space: ModelSpace) -> None:
    block = 1 + 2  # relu, or prelu with one of two slopes
    assert space.size == 2 * 2 * 2 * 2 * (block + block**2) == len({json.dumps(s) for s in space.grid()})


def test_the_base_model_runs_and_remembers_its_arguments() -> None:
    net = DigitNet(3)
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert ModelSpace(net).build(ModelSpace(net).default()).head.out_features == 3


@given(st.integers())
@settings(max_examples=25, deadline=None)
def test_every_sample_validates_builds_runs_and_survives_json(seed: int) -> None:
    space = ModelSpace(DigitNet, 5)
    sample = space.sample(seed)
    assert space.validate(sample) == sample == space.validate(json.loads(json.dumps(sample)))
    model = space.build(sample)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 5)
    assert vars(model)["nas_architecture"]["sample"] == sample
    child = space.mutate(sample, seed, 0.3)
    assert space.contains(child)


def test_randomness_is_explicit(space: ModelSpace) -> None:
    assert space.sample(3) == space.sample(numpy.int64(3)) == space.sample(random.Random(3))  # type: ignore[arg-type]
    with pytest.raises(NasError, match="seed must be an int, or a random.Random; received None"):
        space.sample(None)  # type: ignore[arg-type]


def test_mutation_changes_exactly_one_choice_and_respects_conditions(space: ModelSpace) -> None:
    rng = random.Random(0)
    for seed in range(50):
        parent = space.sample(seed)
        child = space.mutate(parent, rng)
        changed = [label for label in parent if label in child and parent[label] != child[label]]
        assert len(changed) == 1
        assert space.contains(child)


def test_a_built_model_is_made_of_ordinary_modules(space: ModelSpace) -> None:
    model = space.build(space.sample(0))
    ours = {type(m) for m in model.modules() if type(m).__module__.startswith("nas")}
    assert ours <= {ChosenInputs}
    assert type(model.stem.out_channels) is int
    copy = pickle.loads(pickle.dumps(model))
    assert copy.state_dict().keys() == model.state_dict().keys()


def test_two_builds_share_no_storage(space: ModelSpace) -> None:
    one, two = space.build(space.sample(0)), space.build(space.sample(0))
    assert not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in two.parameters()}
    base = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    class Swap(Mutator):
        def mutate(self, model: nn.Module) -> None:
            replace_module(model, "1", LayerChoice([nn.ReLU, nn.Tanh], label="act"))

    copies = [ModelSpace(base, mutators=[Swap()]).build({"act": 1}) for _ in range(2)]
    assert torch.equal(copies[0][0].weight, base[0].weight)
    assert len({m[0].weight.data_ptr() for m in (*copies, base)}) == 3
    assert isinstance(base[1], nn.ReLU)


def test_building_touches_no_random_state_but_torchs_initialisation(space: ModelSpace) -> None:
    sample = space.sample(0)
    torch.manual_seed(7)
    before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    ModelSpace(DigitNet)
    space.sample(3)
    space.complete({})
    assert torch.equal(torch.get_rng_state(), before[2])
    one = space.build(sample)
    torch.manual_seed(7)
    two = space.build(sample)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before[:2]


def test_built_models_compile_and_export_whole(space: ModelSpace) -> None:
    x = torch.randn(2, 1, 8, 8)
    for which in (0, 1):
        model = space.build({**space.default(), "which": which}).eval()
        expected = model(x)
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), expected)
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)


def test_meta_builds_allocate_nothing(space: ModelSpace) -> None:
    assert {p.device.type for p in space.build(space.sample(0), device="meta").parameters()} == {"meta"}


class Stack(nn.Sequential):
    def __init__(self) -> None:
        depth = ValueChoice([1, 2, 3], label="n")
        super().__init__(*[LayerChoice({"a": nn.ReLU, "b": nn.Tanh}, label=f"op{i}") for i in range(depth)])


def test_choices_met_through_a_value_are_completed() -> None:
    space = ModelSpace(Stack)
    model = space.build({"n": 3, "op0": "b"})
    assert [type(m) for m in model] == [nn.Tanh, nn.ReLU, nn.ReLU]
    assert vars(model)["nas_architecture"]["sample"] == {"n": 3, "op0": "b", "op1": "a", "op2": "a"}
    drawn = {json.dumps(space.complete({"n": 3}, seed=seed)) for seed in range(40)}
    assert len(drawn) == 8
    whole = space.complete({"n": 3, "op2": "b"})
    assert space.validate(whole) == whole
    assert space.contains(space.mutate(whole, 0))
    for wrong in ({"n": 2, "op0": "a", "op1": "a", "op2": "a"}, {**whole, "op1": "c"}):
        assert not space.contains(wrong)
        with pytest.raises(NasError, match="op1|op2"):
            space.build(wrong)


def test_a_constructor_that_needs_real_numbers_is_run_on_the_cpu() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            rates = torch.linspace(0, 0.5, 3).tolist()
            self.drops = nn.ModuleList(nn.Dropout(rate) for rate in rates)
            self.linear = nn.Linear(2, ValueChoice([2, 4], label="w"))

    assert ModelSpace(Net).size == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 16}, "label 'width': the answer must be one of 4, 8; received 16"),
        ({"widht": 4}, "label 'widht': no choice of this space has this label; did you mean 'width'"),
        ({"depth/1/act": "relu"}, "not asked under these answers; it needs depth >= 2"),
    ],
)
def test_samples_outside_the_space_are_refused(space: ModelSpace, change: dict[str, object], message: str) -> None:
    sample = {**space.default(), **change}
    assert not space.contains(sample)
    for use in (space.validate, space.build):
        with pytest.raises(ValueError, match=message) as caught:
            use(sample)
        assert isinstance(caught.value, NasError)


def test_all_problems_of_a_sample_are_reported_at_once(space: ModelSpace) -> None:
    with pytest.raises(NasError, match="6 problems") as caught:
        space.validate({"kernel": 7})
    assert "label 'width': the answer is missing; it must be one of 4, 8" in str(caught.value)
    assert not space.contains(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (nn.Linear(2, 2), "needs at least one choice, but Linear asks none"),
        (lambda: 3, "must build an nn.Module; received 3"),
        (3, "is a module, a module class or a function"),
    ],
)
def test_bad_sources_are_refused(source: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        ModelSpace(source)


def test_only_a_class_of_modules_is_decorated() -> None:
    with pytest.raises(NasError, match="decorates an nn.Module class"):
        model_space(3)  # type: ignore[type-var]


def test_mutators_in_a_row_share_choices_with_the_space_by_label() -> None:
    class Wider(Mutator):
        def mutate(self, model: nn.Module) -> nn.Module:
            return nn.Sequential(model, nn.Linear(5, ValueChoice([4, 8], label="width")))

    class Longer(Mutator):
        def mutate(self, model: nn.Module) -> None:
            model.append(LayerChoice([nn.ReLU, nn.Tanh]))  # type: ignore[operator]

    space = ModelSpace(DigitNet(5), mutators=[Wider(), Longer()])
    model = space.build({**space.default(), "width": 8})
    assert model[1].out_features == model[0].stem.out_channels == 8  # type: ignore[index]
    assert "Longer/model" in space.search_space.domains
    with pytest.raises(NasError, match="has no submodule 'stem.cnv'"):
        replace_module(DigitNet(), "stem.cnv", nn.ReLU())


def test_drawing(space: ModelSpace) -> None:
    text = str(space)
    assert text.splitlines()[0] == "DigitNet"
    assert "├── width: one of 4, 8" in text
    assert "when depth >= 2" in text
    assert "when depth/0/act = 'prelu'" in text
    assert text.endswith(f"9 choices, {space.size} architectures")
    assert "<code>depth &gt;= 2</code>" in space._repr_html_()


def test_sample_files(space: ModelSpace, tmp_path: Path) -> None:
    sample = {"a": (3, (1, 2)), "b": None, "c": True, "d": 0.1, "e": [0, 1], "f": "ü"}
    assert load_sample(save_sample(sample, tmp_path / "deep/best.json")) == sample
    for name, text in (("torn", '{"width": 4, "ker'), ("list", "[1, 2]"), ("text", "width")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"in .*{name}: a sample must be") as caught:
            load_sample(tmp_path / name)
        assert isinstance(caught.value, NasError)
    with pytest.raises(NasError, match="must be readable"):
        load_sample(tmp_path / "absent.json")
    with pytest.raises(NasError, match="JSON can hold"):
        save_sample({"a": nn.ReLU()}, tmp_path / "x.json")


# Random programs: nested candidates, labels shared under different conditions.

Program = list[tuple[str, int, dict[int, "Program"]]]


@st.composite
def programs(draw: st.DrawFn, depth: int = 2) -> Program:
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        label = draw(st.sampled_from("abcd"))
        number = {"a": 2, "b": 3, "c": 2, "d": 1}[label]
        inner = {}
        if depth:
            for answer in draw(st.sets(st.integers(0, number - 1), max_size=2)):
                inner[answer] = draw(programs(depth - 1))
        steps.append((label, number, inner))
    return steps


def run_program(program: Program) -> nn.Module:
    def candidate(inner: Program | None) -> nn.Module:
        return nn.Identity() if inner is None else run_program(inner)

    return nn.Sequential(
        *(
            LayerChoice([partial(candidate, inner.get(answer)) for answer in range(number)], label=label)
            for label, number, inner in program
        )
    )


def executions(program: Program, answers: dict[str, int]) -> set[str]:
    """Every different sample, by running the program under every answer to every label."""

    def run(steps: Program, found: dict[str, int]) -> None:
        for label, _, inner in steps:
            found[label] = answers[label]
            run(inner.get(answers[label], []), found)

    found: dict[str, int] = {}
    run(program, found)
    return {json.dumps(found, sort_keys=True)}


@given(programs())
@settings(max_examples=60, deadline=None)
def test_the_tree_spans_exactly_the_executions_of_the_program(program: Program) -> None:
    expected: set[str] = set()
    for a, b, c in itertools.product(range(2), range(3), range(2)):
        expected |= executions(program, {"a": a, "b": b, "c": c, "d": 0})
    space = ModelSpace(lambda: run_program(program))
    grid = [json.dumps(sample, sort_keys=True) for sample in space.grid()]
    assert sorted(grid) == sorted(expected)
    assert space.size == len(expected)
    sample = space.sample(0)
    assert json.dumps(sample, sort_keys=True) in expected
    assert vars(space.build(sample))["nas_architecture"]["sample"] == sample


def test_a_grid_starts_at_once_and_keeps_product_order() -> None:
    space = ModelSpace(lambda: nn.Sequential(*(LayerChoice([nn.ReLU] * 10, label=f"{i}") for i in range(25))))
    assert space.size == 10**25
    first, second = itertools.islice(space.grid(), 2)
    assert set(first.values()) == {"ReLU"}
    assert second == {**first, "24": 1}
    assert nas.SearchSpace.of({}).size == 1
