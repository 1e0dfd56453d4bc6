"""Modules that the program did not make: copied with their weights for each build, and never touched."""

import copy
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from nas import InputChoice, LayerChoice, ModelSpace, Mutator, NasError, Repeat, ValueChoice, replace_module
from nas.profile import profile

X = torch.ones(2, 4)


def storages(model: nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}


def head() -> nn.Module:
    return nn.Linear(8, ValueChoice([2, 3], label="classes"))


class Defaults(nn.Module):
    """A module as the default of an argument, as it is written by mistake in many places."""

    def __init__(self, act: nn.Module = nn.PReLU()) -> None:  # noqa: B008 - the mistake
        super().__init__()
        self.body, self.act, self.head = nn.Linear(4, 8), act, head()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.act(self.body(x)))
        return y


class Holder(nn.Module):
    """Keeps a module where torch does not look for one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.all, self.head = inner, [inner], head()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.all[0](x))
        return y


class Puts(Mutator):
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def mutate(self, model: nn.Module) -> None:
        replace_module(model, "0", self.module)


@functools.lru_cache
def cached() -> nn.Module:
    return nn.Linear(4, 8)


def with_a_new_head(backbone: nn.Module) -> nn.Module:
    assert isinstance(backbone, nn.Sequential)
    backbone[1] = head()
    return backbone


Way = Callable[[nn.Module], ModelSpace]
WAYS: dict[str, Way] = {
    "a closure": lambda b: ModelSpace(lambda: nn.Sequential(b, head())),
    "a partial": lambda b: ModelSpace(functools.partial(lambda inner: nn.Sequential(inner, head()), b)),
    "a default": lambda b: ModelSpace(lambda inner=b: nn.Sequential(inner, head())),
    "an argument": lambda b: ModelSpace(Holder, b),
    "an argument in a list": lambda b: ModelSpace(lambda parts: nn.Sequential(*parts, head()), [b]),
    "a hidden reference": lambda b: ModelSpace(lambda: Holder(b)),
    "a candidate": lambda b: ModelSpace(lambda: nn.Sequential(LayerChoice([b, nn.Linear(4, 8)], label="body"), head())),
    "a candidate's factory": lambda b: ModelSpace(
        lambda: nn.Sequential(LayerChoice([lambda: b, lambda: nn.Linear(4, 8)], label="body"), head())
    ),
    "a block": lambda b: ModelSpace(lambda: nn.Sequential(Repeat([b, nn.Linear(8, 8)], (1, 2), label="depth"), head())),
    "a mutator": lambda b: ModelSpace(lambda: nn.Sequential(nn.Linear(4, 8), head()), mutators=[Puts(b)]),
    "twice": lambda b: ModelSpace(lambda: nn.Sequential(b, nn.ReLU(), nn.Linear(8, 4), b, head())),
    "what goes through an input": lambda b: ModelSpace(
        lambda: nn.Sequential(Split(InputChoice(2, 1, each=lambda i: b, label="input")), head())
    ),
}


class Split(nn.Module):
    def __init__(self, choice: nn.Module) -> None:
        super().__init__()
        self.choice = choice

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.choice([x, x])
        return y


@pytest.mark.parametrize("way", WAYS)
def test_the_users_module_survives_and_each_build_has_its_weights(way: str) -> None:
    backbone = nn.Linear(4, 8)
    before, state = backbone.weight, copy.deepcopy(backbone.state_dict())
    space = WAYS[way](backbone)
    profile(space, (2, 4))
    first, second = (space.build(space.default()) for _ in range(2))
    for model in (first, second):
        assert model(X).shape == (2, 2)
        assert any(torch.equal(p, state["weight"]) for p in model.parameters() if p.shape == (8, 4))
        assert not storages(model) & storages(backbone)
    assert not storages(first) & storages(second)
    assert backbone.weight is before
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())
    meta = space.build(space.default(), device="meta")
    assert all(p.is_meta for p in meta.parameters())


def test_so_does_a_default_argument_and_what_a_function_returns_each_time() -> None:
    act = Defaults.__init__.__defaults__[0]  # type: ignore[index]
    first, second = (ModelSpace(Defaults).build({"classes": 2}) for _ in range(2))
    assert not act.weight.is_meta
    assert len({id(m.act) for m in (first, second)} | {id(act)}) == 3  # type: ignore[union-attr]
    cached()
    space = ModelSpace(lambda: nn.Sequential(cached(), head()))
    assert torch.equal(space.build({"classes": 2})[0].weight, cached().weight)  # type: ignore[index]
    whole = nn.Sequential(nn.Linear(4, 4))
    assert ModelSpace(lambda: (ValueChoice([1, 2], label="n"), whole)[1]).build({"n": 1}) is not whole


def test_a_module_that_the_program_changes_is_put_back() -> None:
    backbone = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 5))
    old = backbone[1]
    space = ModelSpace(lambda: with_a_new_head(backbone))
    assert space.size == 2
    assert space.build({"classes": 3})(X).shape == (2, 3)
    assert backbone[1] is old
    assert not old.weight.is_meta


def test_a_constructor_that_falls_back_to_the_cpu_shares_nothing_either() -> None:
    backbone = nn.Linear(4, 8)

    def program() -> nn.Module:
        scale = float(torch.linspace(1, 2, 3)[1])
        return nn.Sequential(backbone, nn.Hardtanh(-scale, scale), head())

    space = ModelSpace(program)
    first, second = (space.build({"classes": 2}) for _ in range(2))
    assert not storages(first) & storages(second)
    assert torch.equal(first[0].weight, backbone.weight)  # type: ignore[index]


def test_what_the_program_makes_by_copying_is_its_own() -> None:
    """As torch's own encoders copy the layer that they are given: the very modules that were built stay."""
    made: list[nn.Module] = []

    def program() -> nn.Module:
        layer = nn.Linear(4, 4)
        made.extend(copy.deepcopy(layer) for _ in range(ValueChoice([1, 2], label="depth")))
        return nn.Sequential(*made[-1:])

    space = ModelSpace(program)
    model = space.build({"depth": 1})
    assert model[0] is made[-1]  # type: ignore[index]


def test_a_shared_tensor_is_copied_too() -> None:
    weight = nn.Parameter(torch.ones(2, 4))

    def program() -> nn.Module:
        layer = nn.Linear(4, 2, bias=ValueChoice([False, True], label="bias"))
        layer.weight = weight
        return layer

    space = ModelSpace(program)
    first, second = (space.build({"bias": True}) for _ in range(2))
    assert not storages(first) & storages(second)
    assert torch.equal(first.weight, second.weight)  # type: ignore[arg-type]
    assert not weight.is_meta


def test_a_tie_to_a_foreign_module_holds_in_each_build() -> None:
    embedding = nn.Embedding(9, 8)

    def program() -> nn.Module:
        out = nn.Linear(8, 9, bias=False)
        out.weight = embedding.weight
        return nn.Sequential(embedding, nn.Linear(8, ValueChoice([8], label="width")), out)

    space = ModelSpace(program)
    for device in (None, "meta", "cpu"):
        model = space.build({"width": 8}, device=device)
        assert model[2].weight is model[0].weight  # type: ignore[index]
        assert model[0].weight is not embedding.weight  # type: ignore[index]


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self, searched: bool = True) -> None:
        super().__init__()
        width = ValueChoice([8, 4], label="width") if searched else 8
        self.embedding, self.body = nn.Embedding(50, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("mask", torch.ones(3))
        self.register_buffer("same_mask", self.mask)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(self.embedding(x)))
        return y


@pytest.mark.parametrize("source", [Tied, Tied(searched=False)], ids=["class", "module"])
def test_ties_are_kept_through_every_copy_and_move(source: Any) -> None:
    space = ModelSpace(source) if isinstance(source, type) else ModelSpace(source, mutators=[Widen()])
    costs = profile(space, torch.zeros(1, 5, dtype=torch.long))
    for sample in space.grid():
        width = sample.get("width", 8)
        assert costs.parameters(sample) == 50 * width + width * width + width
        for device in (None, "cpu", "meta"):
            model = space.build(sample, device=device)
            assert model.head.weight is model.embedding.weight  # type: ignore[union-attr]
            assert model.mask is model.same_mask


class Widen(Mutator):
    def mutate(self, model: nn.Module) -> None:
        replace_module(model, "body", LayerChoice({"linear": lambda: nn.Linear(8, 8)}, label="body"))


class Locked(nn.Linear):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lock, self.done = threading.RLock(), threading.Event()


def weight_normed() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Linear(4, 8))


def pruned() -> nn.Module:
    layer = nn.Linear(4, 8)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


def remembering() -> nn.Module:
    layer = nn.Linear(4, 8)
    layer.last = [layer(X)]  # type: ignore[assignment]
    return layer


COMPUTED = {
    "weight_norm": weight_normed,
    "spectral_norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 8)),
    "prune": pruned,
    "parametrized": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)),
    "an activation": remembering,
    "a lock": lambda: Locked(4, 8),
}


class NewHead(Mutator):
    def mutate(self, model: nn.Module) -> None:
        replace_module(model, "1", head())


@pytest.mark.parametrize("kind", COMPUTED)
def test_a_module_is_copied_with_what_it_has_computed(kind: str) -> None:
    body = COMPUTED[kind]()
    source = nn.Sequential(body, nn.Linear(8, 5)).eval()
    expected, state = body(X), copy.deepcopy(source.state_dict())
    for space in (ModelSpace(source, mutators=[NewHead()]), ModelSpace(lambda: nn.Sequential(body, head()))):
        model = space.build({"classes": 2}).eval()
        assert torch.allclose(model[0](X), expected)  # type: ignore[index]
        assert not storages(model) & storages(source)
        assert profile(space, (2, 4)).flops({"classes": 2}) == 2 * (2 * 4 * 8 + 2 * 8 * 2)
    assert all(torch.equal(tensor, state[name]) for name, tensor in source.state_dict().items())


class Reads(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 8)
        self.lines = (line for line in "ab")


def test_what_cannot_be_copied_is_refused_with_the_name_of_the_module() -> None:
    with pytest.raises(NasError, match=r"attribute 'lines' of module '0'.*cannot be copied.*generator"):
        ModelSpace(nn.Sequential(Reads(), nn.Linear(8, 5)), mutators=[NewHead()])


def test_an_argument_that_cannot_be_copied_is_handed_on() -> None:
    lock, given = threading.Lock(), []

    def program(options: dict[str, Any], lines: Any) -> nn.Module:
        given.append(options)
        assert next(lines, None) is None
        options["seen"] = True
        return head()

    options = {"lock": lock, "list": [1]}
    space = ModelSpace(program, options, iter(()))
    space.build({"classes": 2})
    assert options == {"lock": lock, "list": [1]}
    assert all(found["list"] is not options["list"] for found in given)


def test_nothing_is_kept_alive() -> None:
    space = ModelSpace(lambda: nn.Sequential(nn.Linear(4, 8), head()))
    model = space.build({"classes": 2})
    built = weakref.ref(model)
    del model
    gc.collect()
    assert built() is None
    assert "told" not in nn.Module.__init__.__qualname__
