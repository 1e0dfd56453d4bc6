"""Who walks a supernet of paths finds the modules and parameters of its architectures; what is done to them counts."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nas import InputChoice, LayerChoice, ModelSpace, NasTypeError, NasValueError, Repeat, Sample, ValueChoice
from nas.oneshot import PathSupernet


class Norm(nn.BatchNorm2d):
    """A norm of somebody's own."""


class Block(nn.Module):
    def __init__(self, width: int, index: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, ValueChoice([1, 3], label=f"kernel{index}"), padding="same", bias=False)
        self.norm = Norm(width)
        self.act = LayerChoice(
            {"bn": lambda: nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)), "relu": nn.ReLU},
            label=f"act{index}",
        )
        self.drop = nn.Dropout(0.25)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.act(self.norm(self.conv(x))))
        return y


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 8], label="width")
        self.token = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width))
        self.blocks = Repeat(lambda i: Block(width, i), (1, 3), label="depth")
        self.skip = InputChoice(2, 1, label="skip")
        self.extra = nn.Linear(width, width) if ValueChoice([False, True], label="extra") else None
        self.head = nn.Linear(width, 5)
        self.scale = 1.0

    def no_weight_decay(self) -> set[str]:
        return {"token"}

    def features(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x) + self.token
        x = self.skip([self.blocks(x), x]).mean((2, 3))
        if self.extra is not None:
            x = self.extra(x)
        return self.scale * torch.as_tensor(self.head(x))


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace(Net)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def as_built(space: ModelSpace, x: Tensor) -> PathSupernet:
    return PathSupernet(space, example_input=x)


@pytest.fixture
def supernet(as_built: PathSupernet) -> PathSupernet:
    return copy.deepcopy(as_built)


def assert_path_is(supernet: PathSupernet, model: nn.Module, sample: Sample, x: Tensor) -> None:
    """A path computes what a model computes, whatever the modes are, batch statistics included."""
    supernet.select(sample)
    with torch.no_grad():
        outputs = []
        for each in (supernet, model):
            torch.manual_seed(0)
            outputs.append(each(x))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(supernet.extract(sample).state_dict(), model.state_dict(), rtol=1e-5, atol=1e-6)


SAMPLES = range(4)


def plain_name(name: str) -> str:
    """Without the numbers of candidates."""
    return ".".join(key for key in name.split(".") if not key.startswith("["))


GROUPS: dict[str, Callable[[nn.Module], set[str]]] = {
    "types": lambda model: {
        f"{name}.{local}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for local, _ in module.named_parameters(recurse=False)
    },
    "own types": lambda model: {n for n, m in model.named_modules() if type(m) is Norm or type(m) is Block},
    "prefixes": lambda model: {n for n, _ in model.named_parameters() if n.startswith(("stem.", "head.", "blocks.0."))},
    "suffixes": lambda model: {n for n, _ in model.named_parameters() if n.endswith("bias")},
    "parts": lambda model: {n for n, _ in model.named_parameters() if "norm" in n},
    "no bn": lambda model: {n for n, _ in model.named_parameters() if "bn" in n},
    "dimensions": lambda model: {n for n, p in model.named_parameters() if p.ndim <= 1},
    "methods": lambda model: set(model.no_weight_decay()),  # type: ignore[operator]
    "children": lambda model: {name for name, _ in model.named_children()},
    "the model": lambda model: {
        n for n, m in model.named_modules() if isinstance(m, Net) for n, _ in m.named_parameters(recurse=False)
    },
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_groups_are_those_of_the_architectures(
    group: Callable[[nn.Module], set[str]], supernet: PathSupernet, space: ModelSpace
) -> None:
    found = {plain_name(name) for name in group(supernet)}
    each = [group(space.build(space.sample(seed))) for seed in range(40)]
    everything = {name for model in each for name in model}
    assert found == everything


def test_groups_of_each_architecture(supernet: PathSupernet, space: ModelSpace) -> None:
    """The parameters of each architecture fall into the groups that they fall into in the supernet."""
    for seed in SAMPLES:
        sample = space.sample(seed)
        supernet.select(sample)
        active = set(supernet.active())
        for group in list(GROUPS.values())[2:7]:
            assert sorted(map(plain_name, active & group(supernet))) == sorted(group(space.build(sample)))


def test_parts_are_reached_by_attributes(supernet: PathSupernet) -> None:
    assert isinstance(supernet, Net)
    assert isinstance(supernet, PathSupernet)
    assert not isinstance(supernet, Block)
    assert type(supernet.stem) is nn.Sequential
    assert supernet.head.weight is dict(supernet.named_parameters())["head.weight"]
    assert supernet.head.weight.shape == (5, 8)
    assert supernet.head.in_features == 8
    assert len(supernet.blocks) == 3
    assert isinstance(supernet.blocks[2].norm, Norm)
    assert supernet.blocks[0].conv.kernel_size == (3, 3)
    assert len(list(supernet.parameters())) == len(dict(supernet.named_parameters()))
    with pytest.raises(AttributeError, match="a LayerChoice stands here"):
        supernet.blocks[0].act.weight  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        supernet.nothing  # noqa: B018


def by_replacing_data(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        module.weight.data = torch.full_like(module.weight, 0.1)
    elif isinstance(module, nn.BatchNorm2d):
        module.weight.data = torch.full_like(module.weight, 0.5)
        module.running_mean.data = torch.full_like(module.running_mean, 0.25)  # type: ignore[union-attr,arg-type]


def in_place(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.constant_(module.weight, 0.3)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Net):
        nn.init.ones_(module.token)
    elif type(module) is Norm:
        module.reset_running_stats()
        nn.init.constant_(module.bias, 0.2)


def by_new_parameters(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.bias = nn.Parameter(torch.full_like(module.bias, -1.0))


@pytest.mark.parametrize("init", [by_replacing_data, in_place, by_new_parameters])
@pytest.mark.parametrize("before", [False, True], ids=["at first", "after a run"])
def test_initialisation_reaches_every_path(
    init: Callable[[nn.Module], None], before: bool, supernet: PathSupernet, space: ModelSpace, x: Tensor
) -> None:
    for seed in SAMPLES:
        sample = space.sample(seed)
        if before:
            supernet.select(sample)
            supernet(x)
        expected = supernet.extract(sample).apply(init)
        supernet.apply(init)
        assert_path_is(supernet, expected, sample, x)


def settings(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum, module.eps = 0.5, 0.1
        if isinstance(module, nn.Dropout):
            module.p = 0.75
    model.scale = 2.0


def frozen_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def doubled(model: nn.Module) -> None:
    model.head.register_forward_hook(lambda module, inputs, output: 2 * output)
    model.get_submodule("blocks.0").register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    model.blocks[0].act.register_forward_hook(lambda module, inputs, output: output - 1)  # type: ignore[union-attr,index]


@pytest.mark.parametrize("change", [settings, frozen_statistics, doubled])
def test_what_is_done_to_modules_every_path_does(
    change: Callable[[nn.Module], None], supernet: PathSupernet, space: ModelSpace, x: Tensor
) -> None:
    for repeat in range(2):
        for seed in SAMPLES:
            twin = copy.deepcopy(supernet)
            sample = space.sample(seed)
            if repeat:
                twin.select(sample)
                twin(x)
            expected = twin.extract(sample)
            change(expected)
            change(twin)
            assert_path_is(twin, expected, sample, x)
            twin.check(x, [sample])


def test_settings_are_in_what_is_extracted(supernet: PathSupernet, space: ModelSpace) -> None:
    settings(supernet)
    model = supernet.extract(space.default())
    assert supernet.extract(space.default(), settings=False).scale == 1.0
    assert (model.stem[1].eps, model.scale, model.blocks[0].drop.p) == (0.1, 2.0, 0.75)  # type: ignore[index,union-attr]


def test_hooks_see_the_parts_of_the_path_and_can_be_removed(
    supernet: PathSupernet, space: ModelSpace, x: Tensor
) -> None:
    shapes: list[tuple[int, ...]] = []
    gradients: list[Any] = []
    handle = supernet.stem.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    back = supernet.head.register_full_backward_hook(lambda module, into, out: gradients.append(out[0].shape))
    on_all = supernet.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    for width in (4, 8):
        supernet.select(space.complete({"width": width}))
        supernet(x).sum().backward()
    assert shapes == [(4, 4, 5, 5), (4, 5), (4, 8, 5, 5), (4, 5)]
    assert len(gradients) == 2
    for each in (handle, back, on_all):
        each.remove()
    supernet(x)
    assert len(shapes) == 4


def test_frozen_parts_stay_frozen(supernet: PathSupernet, space: ModelSpace, x: Tensor) -> None:
    supernet.stem.requires_grad_(False)
    supernet.head.bias.requires_grad_(False)
    for seed in SAMPLES:
        sample = space.sample(seed)
        supernet.select(sample)
        supernet(x).sum().backward()
        model = supernet.extract(sample)
        model(x).sum().backward()
        trained = {n for n, p in model.named_parameters() if p.grad is not None}
        got = {n for n, p in supernet.named_parameters() if p.grad is not None}
        assert sorted(map(plain_name, got)) == sorted(trained)
        assert "stem.0.weight" not in got
        assert "head.bias" not in got
        supernet.zero_grad()


def test_modes_of_parts(supernet: PathSupernet, space: ModelSpace, x: Tensor) -> None:
    supernet.select(space.default())
    supernet.eval()
    assert not supernet.training
    assert not any(module.training for module in supernet.modules())
    supernet.stem.train()
    model = supernet.extract(space.default())
    assert [model.training, model.stem.training, model.head.training] == [False, True, False]  # type: ignore[union-attr]
    assert_path_is(supernet, model, space.default(), x)


def other_head(model: Any) -> None:
    model.head = nn.Linear(8, 2)


def no_activation(model: Any) -> None:
    model.blocks[0].act = nn.Identity()


def one_more(model: Any) -> None:
    model.register_parameter("more", nn.Parameter(torch.zeros(1)))


def pruned(model: Any) -> None:
    from torch.nn.utils import prune

    prune.random_unstructured(model.head, "weight", 0.5)


def parametrised(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.head)


def other_forward(model: Any) -> None:
    model.head.forward = lambda x: x


@pytest.mark.parametrize("change", [other_head, no_activation, one_more, pruned, parametrised, other_forward])
def test_what_paths_cannot_have_is_refused(change: Callable[[Any], None], supernet: PathSupernet, x: Tensor) -> None:
    change(supernet)
    with pytest.raises(NasValueError, match="paths are built by the program of the space"):
        supernet.check(x, [supernet.space.default()])
    with pytest.raises(NasValueError, match=r"a Mutator of the space"):
        supernet(x)


def test_settings_that_architectures_choose_are_refused() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.Dropout(ValueChoice([0.2, 0.4], label="rate")))

    supernet = PathSupernet(ModelSpace(build), example_input=(1, 2))
    supernet[1].p /= 2
    with pytest.raises(NasValueError, match=r"module '1': .* its attribute 'p' was set, but not all"):
        supernet.check((1, 2), [{"rate": 0.2}, {"rate": 0.4}])


def test_a_supernet_goes_through_a_file(tmp_path: Path, supernet: PathSupernet, space: ModelSpace, x: Tensor) -> None:
    sample = space.complete({"width": 4, "depth": 2})
    supernet.select(sample)
    supernet.stem.register_forward_hook(negative)
    settings(supernet)
    torch.save(supernet.eval(), tmp_path / "supernet.pt")
    again = torch.load(tmp_path / "supernet.pt", weights_only=False)
    assert again.sample == sample
    assert torch.equal(again(x), supernet(x))
    again.select(space.default())
    assert supernet.sample == sample
    again.check(x, [space.sample(seed) for seed in SAMPLES])


def negative(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return -output


def test_parts_are_not_called(supernet: PathSupernet, x: Tensor) -> None:
    with pytest.raises(NasTypeError, match="a part of a supernet of paths cannot be called by itself.*received 'stem"):
        supernet.stem(x)
    with pytest.raises(NasTypeError, match="cannot be called by itself"):
        supernet.features(x)


def test_a_copy_follows_until_it_selects(supernet: PathSupernet, space: ModelSpace, x: Tensor) -> None:
    first, second = space.complete({"width": 4}), space.complete({"width": 8, "depth": 2})
    supernet.eval()
    supernet.select(first)
    average = AveragedModel(supernet)
    twin = copy.deepcopy(supernet)
    assert torch.equal(average(x), supernet(x))
    supernet.select(second)
    assert torch.equal(average(x), supernet(x))
    assert torch.equal(twin(x), supernet(x))
    twin.select(first)
    assert supernet.sample == second
    assert torch.equal(twin(x), twin.extract(first)(x))
    with torch.no_grad():
        supernet.head.weight.zero_()
    assert not torch.equal(average(x), supernet(x))
    average.update_parameters(supernet)
    average.update_parameters(supernet)
    torch.testing.assert_close(average.module.head.weight, as_mean(twin.head.weight))


def as_mean(weight: Tensor) -> Tensor:
    """Of once the weight and twice zeros: the first update copies."""
    return 0 * weight


def test_it_says_how_the_model_is_called(supernet: PathSupernet, x: Tensor) -> None:
    for each in (supernet, copy.deepcopy(supernet)):
        assert str(inspect.signature(each.forward)) == "(x: torch.Tensor) -> torch.Tensor"
        assert each(x=x).shape == each.forward(x).shape == (4, 5)


def test_a_sequential_is_one() -> None:
    supernet = PathSupernet(
        ModelSpace(lambda: nn.Sequential(nn.Linear(2, ValueChoice([3, 4], label="w")), nn.ReLU())), example_input=(1, 2)
    )
    assert [type(layer) for layer in supernet] == [nn.Linear, nn.ReLU]
    assert len(supernet) == 2
    assert supernet[-2].weight.shape == (4, 2)
    assert [type(module) for module in supernet.modules()] == [nn.Sequential, nn.Linear, nn.ReLU]
    assert supernet


def test_layers_that_stand_in_several_places_are_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.Linear(4, 4)
            self.first, self.second = layer, layer
            self.act = nn.ReLU()
            self.layers = nn.ModuleList([nn.Linear(4, 4), self.act, layer])
            self.hidden = nn.Linear(4, ValueChoice([2, 4], label="hidden"))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.hidden(self.layers[1](self.second(self.layers[0](self.first(x)))))
            return y

    twice = ModelSpace(Twice)
    supernet = PathSupernet(twice, example_input=(2, 4))
    model = twice.build({"hidden": 4})
    assert [n for n, _ in supernet.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert [n for n, _ in supernet.named_modules()] == [n for n, _ in model.named_modules()]
    assert supernet.first is supernet.layers[2]


def test_an_own_train_method_is_called() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2, affine=ValueChoice([True, False], label="affine"))

        def train(self, mode: bool = True) -> "Frozen":
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x)
            return y

    supernet = PathSupernet(ModelSpace(Frozen), example_input=(3, 2)).train()
    supernet(torch.rand(3, 2))
    assert supernet.training
    assert not supernet.norm.training
    assert supernet.norm.num_batches_tracked == 0


def test_hooks_of_the_constructor_run_once() -> None:
    class Hooked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2, bias=ValueChoice([True, False], label="bias"))
            self.calls = [0, 0]
            self.linear.register_forward_hook(lambda *_: self.count(0))
            self.register_forward_pre_hook(lambda *_: self.count(1))

        def count(self, number: int) -> None:
            self.calls[number] += 1

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(x) + torch.tensor(self.calls).sum()
            return y

    supernet = PathSupernet(ModelSpace(Hooked), example_input=(1, 2))
    seen: list[int] = []
    supernet.linear.register_forward_hook(lambda *_: seen.append(1))
    supernet.register_forward_hook(lambda *_: seen.append(2))
    supernet.select({"bias": False})
    model = supernet.extract({"bias": False})
    for _ in range(2):
        assert torch.equal(supernet(torch.ones(1, 2)), model(torch.ones(1, 2)))
    assert seen == [1, 2, 1, 2]


def test_optimizers_take_the_groups_of_a_user(supernet: PathSupernet, space: ModelSpace, x: Tensor) -> None:
    """Training with groups by type moves a path as it moves its architecture."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        norms = [p for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters(recurse=False)]
        known = {id(p) for p in norms}
        others = [p for p in model.parameters() if id(p) not in known]
        return torch.optim.SGD([{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.5}], 0.1)

    sample = space.complete({"width": 8, "depth": 2, "act0": "bn", "kernel0": 3, "kernel1": 3, "act1": "relu"})
    supernet.select(sample)
    model = supernet.extract(sample)
    for each in (supernet, model):
        steps = optimizer(each)
        for _ in range(3):
            torch.manual_seed(0)
            steps.zero_grad()
            each(x).square().sum().backward()
            steps.step()
    torch.testing.assert_close(supernet.extract(sample).state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5)
