"""What stands behind concatenations, reshapes and splits is sliced by what lies there, or refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import Cell, InputChoice, LayerChoice, ModelSpace, NasValueError, Repeat, ValueChoice
from nas.oneshot import PathSupernet
from nas.oneshot.paths.alignment import Alignment, Segment, plain

X = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


class Made(nn.Module):
    """A network out of functions: what it has, and how it runs."""

    def __init__(self, build: Callable[[], dict[str, Any]], run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        for name, value in build().items():
            setattr(self, name, value)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def supernet_of(
    build: Callable[[], dict[str, Any]], run: Callable[[Any, Tensor], Tensor], x: Tensor = X
) -> PathSupernet:
    space = ModelSpace(Made, build, run)
    supernet = PathSupernet(space, example_input=(x,))
    supernet.check((x,), space.grid())
    return supernet


def test_an_empty_tensor_without_dimensions_may_be_joined() -> None:
    """As caches of keys begin; torch skips it."""

    def build() -> dict[str, Any]:
        width = ValueChoice([2, 4], label="width")
        return {"first": nn.Linear(3, width), "last": nn.Linear(width, 2)}

    def run(net: Any, x: Tensor) -> Tensor:
        y: Tensor = net.last(torch.cat([torch.empty(0), net.first(x)], dim=-2))
        return y

    supernet_of(build, run, torch.rand(5, 3))


def test_a_convolution_behind_a_concatenation_takes_the_columns_of_its_inputs() -> None:
    def build() -> dict[str, Any]:
        kept = [ValueChoice([False, True], label=f"kept{i}", default=i == 0) for i in range(3)]
        branches = nn.ModuleList(nn.Conv2d(4, 2 + i, 1) if keep else nn.Identity() for i, keep in enumerate(kept))
        width = sum((2 + i) for i, keep in enumerate(kept) if keep) or 4
        return {"branches": branches, "kept": kept, "norm": nn.BatchNorm2d(width), "last": nn.Conv2d(width, 3, 1)}

    def run(net: Any, x: Tensor) -> Tensor:
        made = [branch(x) for branch, keep in zip(net.branches, net.kept, strict=True) if keep]
        y: Tensor = net.last(net.norm(torch.cat(made, dim=1)).relu())
        return y

    space = ModelSpace(Made, build, run).where(lambda sample: any(sample.values()))
    supernet = PathSupernet(space, example_input=(X,))
    supernet.check((X,), space.grid())
    assert supernet.store.get_parameter("last.weight").shape == (3, 9, 1, 1)
    whole = supernet.store.get_parameter("last.weight")
    model = supernet.extract({"kept0": True, "kept1": False, "kept2": True})
    found = model.get_parameter("last.weight")
    both = {tuple(column.tolist()) for column in whole[:, :, 0, 0].T}
    assert all(tuple(column.tolist()) in both for column in found[:, :, 0, 0].T)
    other = supernet.extract({"kept0": False, "kept1": True, "kept2": False}).get_parameter("last.weight")
    mine = {tuple(column.tolist()) for column in found[:, :, 0, 0].T}
    assert not mine & {tuple(column.tolist()) for column in other[:, :, 0, 0].T}


def test_what_follows_loose_ends_is_sliced_by_the_state() -> None:
    def cell() -> nn.Module:
        operations = {"conv": lambda i: nn.Conv2d(4, 4, 1), "skip": lambda i: nn.Identity()}
        return Cell(operations, nodes=3, label="cell")

    def build() -> dict[str, Any]:
        made = cell()
        return {"cell": made, "last": nn.Conv2d(4 * len(made.outputs), 3, 1)}  # type: ignore[arg-type]

    space = ModelSpace(Made, build, lambda net, x: net.last(net.cell(x, x)))
    supernet = PathSupernet(space, example_input=(X,))
    supernet.check((X,), [space.sample(seed) for seed in range(20)])
    columns = {}
    for seed in range(20):
        sample = space.sample(seed)
        model: Any = supernet.extract(sample)
        for place, state in enumerate(model.cell.outputs):
            found = model.last.weight[:, 4 * place : 4 * place + 4]
            assert torch.equal(columns.setdefault(state, found), found)
    assert len(columns) == 3
    assert supernet.store.get_parameter("last.weight").shape[1] == 12


def test_any_subset_of_inputs_is_concatenated() -> None:
    def build() -> dict[str, Any]:
        pick: Any = InputChoice(3, None, reduction="concat", label="pick")
        parts = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))
        return {"parts": parts, "pick": pick, "last": nn.Linear(2 * max(1, len(getattr(pick, "chosen", ()))), 2)}

    space = ModelSpace(Made, build, lambda net, x: net.last(net.pick([part(x) for part in net.parts])))
    space = space.where(lambda sample: len(sample["pick"]) > 0)
    x = torch.rand(2, 4)
    supernet = PathSupernet(space, example_input=(x,))
    supernet.check((x,), space.grid())
    assert supernet.store.get_parameter("last.weight").shape == (2, 6)
    first, both = (supernet.extract({"pick": pick}).get_parameter("last.weight") for pick in ([2], [0, 2]))
    assert torch.equal(first, both[:, 2:])


@pytest.mark.parametrize("way", ["chunk", "split", "reshape", "unflatten"])
def test_matrices_packed_in_one_layer_are_sliced_apart(way: str) -> None:
    def build() -> dict[str, Any]:
        width = ValueChoice([4, 8], label="width")
        return {"first": nn.Linear(4, width), "packed": nn.Linear(width, 3 * width), "last": nn.Linear(width, 2)}

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.packed(net.first(x))
        n = y.shape[-1] // 3
        parts = {
            "chunk": lambda: y.chunk(3, dim=-1),
            "split": lambda: y.split(n, dim=-1),
            "reshape": lambda: y.reshape(-1, 3, n).unbind(1),
            "unflatten": lambda: y.unflatten(-1, (3, n)).unbind(-2),
        }[way]()
        z: Tensor = net.last(parts[0] * parts[1].sigmoid() + parts[2])
        return z

    supernet = supernet_of(build, run, torch.rand(5, 4))
    whole, small = (supernet.extract({"width": n}).get_parameter("packed.weight") for n in (8, 4))
    for part, large in zip(small.chunk(3), whole.chunk(3), strict=True):
        assert torch.equal(part, large[:4, :4])


def test_heads_of_a_chosen_width_keep_to_themselves() -> None:
    def build() -> dict[str, Any]:
        heads, width = ValueChoice([1, 2], label="heads"), ValueChoice([3, 4], label="head_width")
        return {"value": nn.Linear(4, heads * width), "last": nn.Linear(heads * width, 2), "shape": (heads, width)}

    supernet = supernet_of(
        build, lambda net, x: net.last(net.value(x).unflatten(-1, net.shape).relu().flatten(-2)), torch.rand(5, 4)
    )
    whole = supernet.store.get_parameter("value.weight").unflatten(0, (2, 4))
    small = supernet.extract({"heads": 2, "head_width": 3}).get_parameter("value.weight").unflatten(0, (2, 3))
    assert torch.equal(small, whole[:, :3])


def test_a_linear_layer_behind_a_flattened_image_follows_channels_and_places() -> None:
    def build() -> dict[str, Any]:
        width, stride = ValueChoice([2, 3], label="width"), ValueChoice([1, 2], label="stride")
        places = 36 if stride == 1 else 9
        return {"first": nn.Conv2d(4, width, 1, stride=stride), "last": nn.Linear(width * places, 2)}

    supernet = supernet_of(build, lambda net, x: net.last(net.first(x).flatten(1)))
    whole = supernet.store.get_parameter("last.weight").unflatten(1, (3, 6, 6))
    small = supernet.extract({"width": 2, "stride": 2}).get_parameter("last.weight").unflatten(1, (2, 3, 3))
    assert torch.equal(small, whole[:, :2, :3, :3])


def test_dense_blocks_of_chosen_growth() -> None:
    def build() -> dict[str, Any]:
        growth = ValueChoice([1, 2, 3], label="growth")
        layers = nn.ModuleList(nn.Conv2d(4 + i * growth, growth, 1) for i in range(3))
        return {"stem": nn.Conv2d(4, 4, 1), "layers": layers, "last": nn.Conv2d(4 + 3 * growth, 2, 1)}

    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        for layer in net.layers:
            x = torch.cat([x, layer(x.relu())], dim=1)
        y: Tensor = net.last(x)
        return y

    supernet = supernet_of(build, run)
    whole, small = (supernet.extract({"growth": n}).get_parameter("last.weight")[0, :, 0, 0] for n in (3, 2))
    assert small.tolist() == [*whole[:6].tolist(), *whole[7:9].tolist(), *whole[10:12].tolist()]


def test_inside_channels_whose_number_is_fixed_the_order_does_not_matter() -> None:
    def build() -> dict[str, Any]:
        hidden = ValueChoice([2, 4], label="hidden")
        branch = nn.Sequential(nn.Conv2d(2, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 2, 1))
        return {"branch": branch, "last": nn.Conv2d(4, ValueChoice([2, 3], label="out"), 1)}

    def run(net: Any, x: Tensor) -> Tensor:
        y: Tensor = net.last(torch.cat((x[:, ::2], net.branch(x[:, 1::2])), dim=1).flip(1))
        return y

    supernet_of(build, run)


def wide(**layers: Callable[[int], nn.Module]) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        width = ValueChoice([4, 8], label="width")
        return {"first": nn.Conv2d(4, width, 1), **{name: make(width) for name, make in layers.items()}}

    return build


@pytest.mark.parametrize(
    ("build", "run", "message"),
    [
        (
            wide(last=lambda n: nn.Conv2d(n, 2, 1)),
            lambda net, x: net.last(net.first(x).flip(1)),
            r"'first.weight' cannot be shared in different shapes: along dimension 0, `flip` is not known to keep",
        ),
        (
            wide(last=lambda n: nn.Conv2d(n // 2, 2, 1)),
            lambda net, x: net.last(net.first(x)[:, 1::2]),
            r"'first.weight' cannot be shared in different shapes: along dimension 0, its channels are indexed",
        ),
        (
            wide(
                second=lambda n: nn.Conv2d(4, n, 1),
                third=lambda n: nn.Conv2d(4, 2 * n, 1),
                last=lambda n: nn.Conv2d(2 * n, 2, 1),
            ),
            lambda net, x: net.last(torch.cat([net.first(x), net.second(x)], 1) + net.third(x)),
            r"'last.weight' cannot be shared in different shapes: along dimension 1, `add` joins channels that lie in",
        ),
        (
            wide(second=lambda n: nn.Conv2d(4, n, 1), last=lambda n: nn.Conv2d(2 * n, 2, 1)),
            lambda net, x: net.last(torch.cat([net.first(x), net.second(x)], 1).roll(1, 1)),
            r"'last.weight' cannot be shared in different shapes: along dimension 1, `roll` is not known to keep",
        ),
    ],
)
def test_what_cannot_be_aligned_is_refused(build: Any, run: Any, message: str) -> None:
    with pytest.raises(NasValueError, match=r"labels 'width': the parameter " + message + r".*To mend: keep that"):
        supernet_of(build, run)


def test_shapes_need_an_example() -> None:
    with pytest.raises(
        NasValueError, match="labels 'width': the shape of .* is chosen, so an example .* example_input"
    ):
        PathSupernet(ModelSpace(Made, wide(), lambda net, x: net.first(x)))
    PathSupernet(ModelSpace(lambda: LayerChoice([nn.Tanh, lambda: nn.Linear(2, 2)], label="op")))
    PathSupernet(ModelSpace(lambda: Repeat(lambda i: nn.Linear(2, 2), (0, 2), label="depth")))


def test_alignments_say_what_they_have_not_seen() -> None:
    found = Alignment()
    assert found.add((Segment("a", (2, 3)), Segment("b", (1, 3))))
    assert not found.add((Segment("b", (1, 3)),))
    assert found.index((Segment("c", (1, 3)),)) is None
    assert found.index((Segment("a", (3, 3)),)) is None
    assert found.index("why") is None
    assert found.index((Segment("b", (3,)), Segment("a", (2, 3)))).tolist() == [6, 7, 8, 0, 1, 2, 3, 4, 5]  # type: ignore[union-attr]
    assert found.add(plain(3))
    assert found.problem is not None
