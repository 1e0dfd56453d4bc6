"""What this package takes for granted of torch's private names."""

from __future__ import annotations

import copy
import inspect
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from nas._compat import torch_internals as internals
from nas._compat.torch_internals import (
    BASE_ATTRIBUTES,
    SET_BY_HOOKS,
    TENSOR_DICTS,
    WHAT_A_CALL_IS,
    BatchNorm,
    Convolution,
    FakeTensors,
    InstanceNorm,
    MovableModule,
    NormBase,
    TorchDispatchMode,
    TransposedConvolution,
    WeightNormalised,
    add_to_each,
    apply_along,
    apply_to,
    awaits_first_call,
    bare_copy,
    calls_are_watched,
    can_decompose,
    children_of,
    copy_each,
    flatten_each,
    forward_pre_hooks,
    has_hooks,
    has_numbers,
    hook_dicts,
    hooks_of,
    inside_compiled,
    is_compiled,
    move_each_toward,
    own_buffers,
    own_parameters,
    persists,
    plain_attributes,
    running_iterator,
    scale_each,
    schema_of,
    share_insides,
    shun_fast_path,
    storage_key,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_unflatten,
    version_of,
    watching_modules,
    writes_into_first,
    yields_new_tensors,
    zero_each,
)


def layers(pattern: str) -> set[type[nn.Module]]:
    """The layers that torch exports whose names begin or end like this; lazy ones become others of these."""
    found = {name: kind for name, kind in vars(nn).items() if isinstance(kind, type) and pattern in name}
    return {kind for name, kind in found.items() if not name.startswith("Lazy")}


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (BatchNorm, layers("BatchNorm")),
        (InstanceNorm, layers("InstanceNorm")),
        (NormBase, layers("BatchNorm") | layers("InstanceNorm")),
        (Convolution, layers("Conv")),
        (TransposedConvolution, layers("ConvTranspose")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_bases_are_those_of_all_layers_of_their_kind(base: type[nn.Module], expected: set[type[nn.Module]]) -> None:
    kinds = {kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, base)}
    assert {kind for kind in kinds if not kind.__name__.startswith("Lazy")} == expected


class Tied(nn.Module):
    """A child and a parameter under two names, a parameter and a buffer that are None, a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(2, 2)
        self.weight = self.again = nn.Parameter(torch.zeros(3))
        self.register_parameter("none", None)
        self.register_buffer("kept", torch.zeros(1))
        self.register_buffer("lost", torch.zeros(1), persistent=False)
        self.register_buffer("nothing", None)


def test_the_dicts_of_a_module_hold_its_own_tensors_and_children() -> None:
    module = Tied()
    assert list(own_parameters(module)) == ["weight", "again", "none"]
    assert own_parameters(module)["weight"] is own_parameters(module)["again"] is module.weight
    assert own_parameters(module)["none"] is None
    assert list(own_buffers(module)) == ["kept", "lost", "nothing"]
    assert list(children_of(module)) == ["first", "second"]
    assert [persists(module, name) for name in ("kept", "lost")] == [True, False]
    assert {name for name in module.state_dict() if "." not in name} == {"weight", "again", "kept"}
    assert [vars(module)[name] for name in TENSOR_DICTS] == [own_parameters(module), own_buffers(module)]
    for name in TENSOR_DICTS:
        assert vars(module)[name] is getattr(module, name)


def test_what_is_put_in_the_dicts_is_what_the_forward_pass_reads() -> None:
    layer = nn.BatchNorm1d(2).eval()
    for parameter, buffer in ((2.0, 0.0), (3.0, 1.0)):
        own_parameters(layer)["weight"] = torch.full((2,), parameter)  # type: ignore[assignment]  # a slice of a parameter
        own_buffers(layer)["running_mean"] = torch.full((2,), buffer)
        expected = parameter * (4 - buffer) / (1 + layer.eps) ** 0.5
        assert torch.allclose(layer(torch.full((1, 2), 4.0)), torch.full((1, 2), expected))


REGISTRATIONS: dict[str, Callable[[nn.Module], object]] = {
    "forward": lambda m: m.register_forward_hook(lambda *_: None),
    "forward, kwargs": lambda m: m.register_forward_hook(lambda *_: None, with_kwargs=True),
    "forward, always": lambda m: m.register_forward_hook(lambda *_: None, always_call=True),
    "before": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "before, kwargs": lambda m: m.register_forward_pre_hook(lambda *_: None, with_kwargs=True),
    "backward": lambda m: m.register_full_backward_hook(lambda *_: None),
    "before backward": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
}


@pytest.mark.parametrize("register", REGISTRATIONS.values(), ids=REGISTRATIONS)
def test_hooks_are_seen_and_lie_in_these_dicts(register: Callable[[nn.Module], object]) -> None:
    layer = nn.Linear(1, 1)
    assert not has_hooks(layer)
    empty = {name: len(value) for name, value in vars(layer).items() if "_hooks" in name}
    register(layer)
    assert has_hooks(layer)
    for place in hook_dicts(layer):
        place.clear()
    assert not has_hooks(layer)
    assert {name: len(value) for name, value in vars(layer).items() if "_hooks" in name} == empty


def test_hooks_are_in_the_dicts_of_hooks() -> None:
    def hook(*arguments: object) -> None:
        """Does nothing."""

    layer = nn.Linear(1, 1)
    for register in (layer.register_forward_hook, layer.register_forward_pre_hook, layer.register_full_backward_hook):
        register(hook)  # type: ignore[operator]  # any of them
    assert [value for place in hook_dicts(layer) for value in place.values()].count(hook) == 3


def test_fake_tensors_have_no_numbers_and_mix_with_those_that_have() -> None:
    fakes = FakeTensors()
    fake = fakes.like(torch.empty(3, 2, device="meta").mT)
    assert (fake.shape, fake.stride(), fake.device.type) == ((2, 3), (1, 2), "cpu")
    with fakes.computing():
        out = fake @ torch.ones(3, 4)
    assert out.shape == (2, 4)
    assert out.untyped_storage().nbytes() == 2 * 4 * 4
    assert not has_numbers(out)
    assert not has_numbers(torch.empty(1, device="meta"))
    assert has_numbers(torch.ones(1))
    assert has_numbers(nn.Parameter(torch.ones(1)))


def test_what_operations_write_into_is_in_their_schemas() -> None:
    aten = torch.ops.aten
    assert yields_new_tensors(aten.add.Tensor)
    assert not any(map(yields_new_tensors, (aten.add_.Tensor, aten.t.default, aten.add.out)))
    assert writes_into_first(aten.add_.Tensor)
    assert not any(map(writes_into_first, (aten.add.Tensor, aten.t.default, aten.add.out)))


def test_every_registration_of_calls_is_in_the_list() -> None:
    names = [name for name in dir(nn.Module) if name.startswith("register_") and name.endswith("_hook")]
    known = {f"register_{name}_hook" for name in ("forward", "forward_pre", "full_backward", "full_backward_pre")}
    others = {"register_backward_hook", "register_state_dict_pre_hook", "register_state_dict_post_hook"}
    others |= {"register_load_state_dict_pre_hook", "register_load_state_dict_post_hook"}
    assert set(names) <= known | others, "a new kind of hook: has_hooks and hook_dicts must know it"
    dicts = {name for name in vars(nn.Linear(1, 1)) if name.endswith(("_hooks", "_with_kwargs", "_always_called"))}
    saving = {name for name in dicts if "state_dict" in name}
    assert dicts - saving == set(internals._HOOKS) | {"_forward_hooks_always_called"}


def test_a_compiled_module_is_known_by_what_it_holds() -> None:
    layer = nn.Linear(1, 1)
    assert inside_compiled(layer) is layer
    assert inside_compiled(torch.compile(layer)) is layer  # type: ignore[arg-type]  # it is a module
    assert not is_compiled(layer)
    layer.compile()
    assert is_compiled(layer)


class Told(MovableModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.times = 0

    def moved(self) -> None:
        self.times += 1


MOVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "to a dtype": lambda m: m.to(torch.float64),
    "to a device": lambda m: m.to("meta"),
    "to_empty": lambda m: m.to_empty(device="cpu"),
    "cpu": lambda m: m.cpu(),
    "half": lambda m: m.half(),
    "double": lambda m: m.double(),
    "bfloat16": lambda m: m.bfloat16(),
    "type": lambda m: m.type(torch.float64),
    "share_memory": lambda m: m.share_memory(),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_module_is_told_of_each_move(move: Callable[[nn.Module], nn.Module], inside: bool) -> None:
    module = Told()
    assert move(nn.Sequential(module) if inside else module) is not None
    assert module.times == 1
    assert module.float() is module


def test_a_function_is_applied_to_all_tensors_of_a_module() -> None:
    layer = nn.BatchNorm1d(1)
    apply_to(layer, lambda tensor: tensor + 2)
    assert layer.weight.item() == 3
    assert layer.running_mean is not None
    assert layer.running_mean.item() == 2


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_what_is_in_no_module_goes_along(move: Callable[[nn.Module], nn.Module], inside: bool) -> None:
    layer, given = nn.Linear(1, 1), []
    apply_along(layer, given.append)
    copied = copy.deepcopy(layer)
    assert move(nn.Sequential(copied) if inside else copied) is not None
    assert not given
    assert move(nn.Sequential(layer) if inside else layer) is not None
    (function,) = given
    moved = function(torch.ones(1))
    assert (moved.dtype, moved.device) == (layer.weight.dtype, layer.weight.device)
    assert layer.weight.dtype == copied.weight.dtype


def test_versions_count_what_is_written_in_place() -> None:
    tensor = torch.zeros(2)
    view = tensor[:1]
    before = version_of(tensor)
    assert version_of(view) == before
    view.add_(1)
    assert version_of(tensor) == version_of(view) == before + 1
    tensor + 1
    assert version_of(tensor) == before + 1


def test_lists_are_written_in_place() -> None:
    tensors, others = [torch.zeros(2), torch.zeros(())], [torch.tensor([1.0, 2.0]), torch.tensor(3.0)]
    places = [tensor.data_ptr() for tensor in tensors]
    copy_each(tensors, others)
    assert [tensor.tolist() for tensor in tensors] == [[1, 2], 3]
    add_to_each(tensors, 1)
    assert [tensor.tolist() for tensor in tensors] == [[2, 3], 4]
    before = [tensor.clone() for tensor in tensors]
    move_each_toward(tensors, [torch.tensor([4.0, 3.0]), torch.tensor(0.0)], 0.25)
    assert [tensor.tolist() for tensor in tensors] == [[2.5, 3], 3]
    copy_each(tensors, before)
    scale_each(tensors, 0.5)
    assert [tensor.tolist() for tensor in tensors] == [[1, 1.5], 2]
    add_to_each(tensors, others, alpha=2)
    assert [tensor.tolist() for tensor in tensors] == [[3, 5.5], 8]
    zero_each(tensors)
    assert [tensor.tolist() for tensor in tensors] == [[0, 0], 0]
    assert [tensor.data_ptr() for tensor in tensors] == places


def test_modes_and_hooks_of_all_modules_watch_calls() -> None:
    assert not calls_are_watched()
    with FlopCounterMode(display=False):
        assert calls_are_watched()
    with torch.device("meta"):
        assert calls_are_watched()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert calls_are_watched()
    handle.remove()
    assert not calls_are_watched()


def test_an_operation_says_what_it_takes_and_writes_into() -> None:
    arguments = schema_of(torch.ops.aten.add_.Tensor).arguments
    assert [argument.name for argument in arguments] == ["self", "other", "alpha"]
    written = [argument.alias_info is not None and argument.alias_info.is_write for argument in arguments[:2]]
    assert written == [True, False]
    assert arguments[2].default_value == 1


def test_the_numbers_of_tensors_lie_one_behind_the_other() -> None:
    assert flatten_each([torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])]).tolist() == [1, 2, 3]


def test_a_storage_has_a_key_of_its_own_while_it_lives() -> None:
    tensors = [torch.empty(2, device="meta") for _ in range(9)]
    keys = [storage_key(tensor.untyped_storage()) for tensor in tensors]
    assert len(set(keys)) == 9
    assert storage_key(tensors[0][:1].untyped_storage()) == keys[0]
    assert [storage_key(tensor.untyped_storage()) for tensor in tensors] == keys


def test_operations_are_decomposed_into_those_that_are_counted() -> None:
    linear, mm = torch.ops.aten.linear.default, torch.ops.aten.mm.default
    assert can_decompose(linear)
    assert not can_decompose(mm)
    assert linear.overloadpacket is torch.ops.aten.linear
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    with Watch():  # type: ignore[no-untyped-call]  # torch's
        linear.decompose(torch.zeros(2, 3, device="meta"), torch.zeros(4, 3, device="meta"))
    assert torch.ops.aten.mm in seen


def test_trees_of_tensors_come_apart_and_together_again() -> None:
    tree: Any = ({"b": torch.zeros(1), "a": [torch.ones(2), 3]}, None, "text")
    leaves, spec = tree_flatten(tree)
    assert [type(leaf).__name__ for leaf in leaves] == ["Tensor", "Tensor", "int", "NoneType", "str"]
    assert [id(leaf) for leaf in tree_leaves(tree)] == [id(leaf) for leaf in leaves]
    again = tree_unflatten(leaves, spec)
    assert again[0]["b"] is leaves[0]
    assert again[0]["a"] == leaves[1:3]
    assert again[1:] == (None, "text")
    assert repr(tree_flatten(tree)[1]) == repr(spec) != repr(tree_flatten((tree,))[1])
    doubled = tree_map(lambda leaf: leaf * 2 if isinstance(leaf, Tensor) else leaf, tree)
    assert doubled[0]["a"][0].tolist() == [2, 2]


def test_modules_that_are_made_or_changed_are_told_of() -> None:
    before = nn.Linear(2, 2)
    own, made, changed = nn.Module.__init__, list[nn.Module](), list[str]()
    with watching_modules(made.append, lambda module, name: changed.append(name)):
        layer = nn.Linear(2, 2)
        twin = copy.deepcopy(before)
        before.extra = nn.ReLU()
        before.register_buffer("more", torch.zeros(1))
        thread = threading.Thread(target=nn.Tanh)
        thread.start()
        thread.join()
    nn.Sigmoid()
    assert [id(module) for module in made] == [id(layer), id(twin), id(before.extra)]
    assert changed == ["weight", "bias", "extra", "more"]
    assert nn.Module.__init__ is own


def test_what_others_wrap_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[nn.Module]()

    def theirs(self: nn.Module) -> None:
        inner(self)

    monkeypatch.setattr(nn.Module, "__init__", nn.Module.__init__)  # puts it back in the end
    with watching_modules(made.append, lambda module, name: None):
        inner = nn.Module.__init__
        nn.Module.__init__ = theirs  # type: ignore[method-assign,assignment]
    assert nn.Module.__init__ is theirs
    layer = nn.ReLU()
    with watching_modules(made.append, lambda module, name: None):
        layer = nn.ReLU()
    assert made
    assert all(module is layer for module in made)


@pytest.mark.parametrize("register", REGISTRATIONS.values(), ids=REGISTRATIONS)
def test_hooks_that_are_put_into_another_module_are_called_there(register: Callable[[nn.Module], object]) -> None:
    layer, other = nn.Linear(1, 1), nn.Linear(1, 1)
    vars(other).update(hooks_of(layer))
    before = dict(vars(layer))
    register(layer)
    assert has_hooks(other)
    changed = {name for name, value in vars(layer).items() if before[name] is not value}
    assert changed <= set(SET_BY_HOOKS) <= BASE_ATTRIBUTES
    assert list(hooks_of(layer).values()) == hook_dicts(layer)


def test_what_a_call_is() -> None:
    layer = nn.Sequential(nn.Linear(1, 1))
    assert set(WHAT_A_CALL_IS[2:]) <= BASE_ATTRIBUTES == set(vars(nn.Module()))
    before = dict(vars(layer))
    layer.compile(backend="eager")
    assert {name for name, value in vars(layer).items() if before.get(name) is not value} <= set(WHAT_A_CALL_IS)


def test_a_bare_copy_has_dicts_of_its_own() -> None:
    net = nn.Sequential(nn.Linear(1, 1))
    net.register_buffer("buffer", torch.zeros(1))
    net.note = [3]  # type: ignore[assignment]
    twin = bare_copy(net)
    assert type(twin) is nn.Sequential
    assert vars(twin)["note"] is net.note
    assert twin[0] is net[0]  # type: ignore[index]
    twin.add_module("more", nn.ReLU())
    twin.register_buffer("again", torch.zeros(1))
    twin.register_forward_hook(lambda *_: None)
    assert len(net) == 1
    assert list(own_buffers(net)) == ["buffer"]
    assert not has_hooks(net)


def test_a_face_shares_what_is_inside() -> None:
    net = nn.Sequential(nn.Linear(1, 1))

    class Face(nn.Module):
        def __getattr__(self, name: str) -> Any:
            return getattr(net, name)

        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    face = Face()
    share_insides(face, net)
    net.add_module("more", nn.Linear(1, 2))
    face.register_buffer("buffer", torch.zeros(1))
    seen: list[Tensor] = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert list(face.state_dict()) == list(net.state_dict())
    net.register_full_backward_hook(lambda module, into, out: seen.append(out[0]))
    face(torch.zeros(1, requires_grad=True)).backward()
    assert seen == [torch.ones(1), torch.ones(1)]
    net.eval()
    assert face.training


def test_what_a_module_keeps_beside_tensors_and_children() -> None:
    net = nn.Sequential(nn.ReLU())
    net.register_buffer("buffer", torch.zeros(1))
    net.note = 3  # type: ignore[assignment]
    kept = plain_attributes(net)
    assert kept["note"] == 3
    assert not any(value is found for value in kept.values() for found in (children_of(net), own_buffers(net)))


def test_weight_norm_has_a_parametrization_of_its_own_which_knows_its_dimension() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2), dim=1)
    (step,) = [module for module in layer.modules() if isinstance(module, WeightNormalised)]
    assert step.dim == 1


def test_what_is_called_before_a_module_is_told() -> None:
    net = nn.Linear(1, 1)
    assert forward_pre_hooks(net) == []
    net.register_forward_pre_hook(print)
    assert forward_pre_hooks(net) == [print]


class Noted(nn.MultiheadAttention):
    """Has a forward of its own."""

    called = 0

    def forward(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        self.called += 1
        return query, None


def test_a_layer_calls_an_attention_that_shuns_the_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    layer.self_attn = Noted(8, 2, batch_first=True)
    for expected in (0, 1):
        with torch.no_grad():
            layer(torch.zeros(1, 3, 8))
        assert layer.self_attn.called == expected
        shun_fast_path(layer.self_attn)


def test_a_loader_holds_the_iterator_of_persistent_workers() -> None:
    loader: DataLoader[int] = DataLoader(list(range(2)), num_workers=1, persistent_workers=True)  # type: ignore[arg-type]  # a list serves
    assert running_iterator(loader) is None
    iterator = iter(loader)
    assert running_iterator(loader) is iterator
    assert len(list(itertools.islice(iterator, 3))) == 2
    assert running_iterator(DataLoader[int]([1])) is None  # type: ignore[arg-type]  # a list serves


def test_every_name_of_the_module_has_a_test_here() -> None:
    source = inspect.getsource(inspect.getmodule(layers) or internals)
    tested = source.partition("\n)\n")[2]
    assert [name for name in internals.__all__ if name != "TreeSpec" and name not in tested] == []


def test_lazy_modules_wait_for_their_first_call() -> None:
    net = nn.LazyLinear(3)
    assert awaits_first_call(net)
    net.load_state_dict(nn.Linear(2, 3).state_dict())
    assert awaits_first_call(net)
    net(torch.zeros(1, 2))
    assert not awaits_first_call(net)
    assert not awaits_first_call(nn.Linear(2, 3))
