"""`nas.draw`: what is in the pictures, that they can be read, that they come out the same, and what is refused."""

import builtins
import random
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas import MissingDependency, ModelSpace, NasTypeError, NasValueError, ValueChoice, draw
from nas.model_zoo import DARTS_V2, NASNET_A, genotype_to_sample, model, space
from nas.pictures.graph_layout import Placed, place
from nas.pictures.graph_picture import Drawing, Graph

TINY = {"channels": 2, "cells": 3}
SAMPLE = genotype_to_sample(DARTS_V2, "darts")


def texts(graph: Graph) -> list[str]:
    return [box.text for box in graph.boxes]


def arrows(graph: Graph) -> set[tuple[str, str]]:
    found = texts(graph)
    return {(found[s], found[t]) for s, t in graph.edges}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv(x))


class Chain(nn.Module):
    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(*(Residual() for _ in range(times)))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return y


def test_cells_of_a_sample() -> None:
    normal, reduce = draw(SAMPLE).graphs
    assert (normal.title, reduce.title) == ("normal", "reduce")
    assert texts(normal)[:2] == ["cell k-2", "cell k-1"]
    assert texts(normal)[-1] == "cell k: concat"
    assert texts(normal).count("sep conv 3x3") == 5
    assert ("node 0: add", "dil conv 3x3") in arrows(normal)
    assert {source for source, target in arrows(normal) if target == "cell k: concat"} == {
        f"node {i}: add" for i in range(4)
    }


def test_without_a_space_loose_ends_are_found_from_the_sample() -> None:
    _, reduce = draw(genotype_to_sample(NASNET_A, "nasnet")).graphs
    assert {s for s, t in arrows(reduce) if t == "cell k: concat"} == {f"node {i}: add" for i in (2, 3, 4)}


def test_a_space_says_what_is_concatenated_and_how_nodes_combine() -> None:
    simple = space("nasnet_simple", **TINY)
    sample = simple.complete({"normal/node0/combine": "concat"})
    with_space, without = draw(sample, space=simple).graphs[0], draw(sample).graphs[0]
    assert arrows(with_space) == arrows(without)
    assert "node 0: concat" in texts(with_space)


def test_a_network_by_its_modules_and_functions() -> None:
    (graph,) = draw(Chain(), example_input=(1, 3, 9, 9)).graphs
    assert graph.title == "Chain"
    stem = "Conv2d 3x3, 3 to 4, stride 2\nBatchNorm2d, ReLU\n4x4x4"
    assert texts(graph) == [
        "input\n3x9x9",
        stem,
        *["Conv2d 3x3, 4 to 4\n4x4x4", "add\n4x4x4", "relu\n4x4x4"] * 3,
        "mean\n4",
        "Linear 4 to 2\n2",
        "output",
    ]
    assert {(stem, "add\n4x4x4"), (stem, "Conv2d 3x3, 4 to 4\n4x4x4")} <= arrows(graph)
    assert [box.group for box in graph.boxes[:4]] == ["data", "convolution", "convolution", "join"]


def test_many_equal_modules_are_one_box_unless_a_depth_is_asked_for() -> None:
    (graph,) = draw(Chain(20), example_input=torch.zeros(1, 3, 9, 9)).graphs
    assert "20 x Residual\n3x3, 4 wide\n4x4x4" in texts(graph)
    (graph,) = draw(Chain(20), example_input=(1, 3, 9, 9), depth=2).graphs
    assert texts(graph).count("Residual\n3x3, 4 wide\n4x4x4") == 20
    (graph,) = draw(Chain(20), example_input=(1, 3, 9, 9), depth=1).graphs
    assert texts(graph)[1:3] == [
        "Conv2d 3x3, 3 to 4, stride 2\nBatchNorm2d, ReLU\n4x4x4",
        "blocks\n3x3, 4 wide\n4x4x4",
    ]


def test_a_cell_network_has_a_box_for_each_kind_of_cell() -> None:
    network = model("darts_v2", channels=4)
    (graph,) = draw(network, example_input=(1, 3, 32, 32)).graphs
    assert len(graph.boxes) == 15
    assert {"4 x normal cell\n16x32x32", "reduce cell\n32x16x16", "5 x normal cell\n64x8x8"} <= set(texts(graph))
    assert network.training, "untouched"
    assert "forward" not in vars(network.cells[0])


def test_a_sample_with_its_space_and_an_input_is_a_network() -> None:
    lenet = space("lenet")
    (graph,) = draw(lenet.sample(0), space=lenet, example_input=(1, 3, 32, 32)).graphs
    assert graph.title == lenet.name
    assert any(text.startswith("Conv2d") for text in texts(graph))


def test_a_forward_that_reads_values_runs_on_the_example() -> None:
    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu() if x.sum() > 0 else x.tanh()

    (graph,) = draw(Reads(), example_input=torch.ones(1, 2)).graphs
    assert "relu\n2" in texts(graph)
    assert "tanh\n2" not in texts(graph)


def test_what_depends_on_no_input_is_left_out_and_what_is_written_in_place_is_not() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            first, second = (x + torch.zeros(2)).chunk(2, dim=1)
            y.cos()  # nobody reads it
            first[:, 0] = y.exp()[:, 0]
            return first, second.sigmoid_()

    (graph,) = draw(Writes(), example_input=(torch.ones(1, 2), torch.ones(1, 2))).graphs
    assert [text.split("\n")[0] for text in texts(graph)] == [
        "input", "input", "add", "exp", "setitem", "sigmoid", "output",
    ]  # fmt: skip
    assert {("exp\n2", "setitem\n1"), ("setitem\n1", "output"), ("sigmoid\n1", "output")} <= arrows(graph)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * 2


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = Double.apply(x)  # type: ignore[no-untyped-call]  # torch's
        return y


def test_what_no_function_of_torch_yields_comes_from_its_module() -> None:
    (graph,) = draw(nn.Sequential(Doubling(), nn.ReLU()), example_input=(1, 4)).graphs
    assert texts(graph) == ["input\n4", "Doubling\n4", "ReLU\n4", "output"]
    assert len(graph.edges) == 3


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_files(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"cells.{ending}"
    drawing = draw(SAMPLE, path)
    first = path.read_bytes()
    assert first.startswith(b"<?xml" if ending == "svg" else b"\x89PNG")
    assert drawing.save(path) == path
    assert path.read_bytes() == first
    assert draw(SAMPLE).save(str(path)).read_bytes() == first
    if ending == "svg":
        assert b"dil conv 3x3" in first
        assert drawing._repr_svg_() == first.decode()


def test_nothing_global_is_changed_nor_used(tmp_path: Path) -> None:
    import matplotlib

    network = Chain()
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1]
    settings, backend = dict(matplotlib.rcParams), matplotlib.rcParams._get_backend_or_none()
    draw(network, tmp_path / "a.svg", example_input=(1, 3, 9, 9))
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.rcParams._get_backend_or_none() == backend
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.color": "green"}):
        draw(network, tmp_path / "b.svg", example_input=(1, 3, 9, 9))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


NETWORK = (1, 3, 32, 32)
DRAWN = {
    "darts": lambda: draw(SAMPLE),
    "nasnet": lambda: draw(genotype_to_sample(NASNET_A, "nasnet")),
    "network": lambda: draw(model("darts_v2", **TINY), example_input=NETWORK),
    "deep": lambda: draw(model("darts_v2", **TINY), example_input=NETWORK, depth=3),
    "columns": lambda: draw(Chain(12), example_input=NETWORK, depth=3),
}


@pytest.mark.parametrize("name", DRAWN)
def test_boxes_lie_apart_inside_the_drawing_and_arrows_end_at_them(name: str) -> None:
    for graph in DRAWN[name]().graphs:
        check_places(graph)


def check_places(graph: Graph) -> None:
    sizes = [(1.0 + 0.1 * (i % 4), 0.3 + 0.1 * (i % 3)) for i in range(len(graph.boxes))]
    placed = place(sizes, graph.edges, rightwards=graph.rightwards)
    spans = [(x - w / 2, x + w / 2, y - h / 2, y + h / 2) for (x, y), (w, h) in zip(placed.centers, sizes, strict=True)]
    for a, b in combinations(spans, 2):
        assert a[1] < b[0] or b[1] < a[0] or a[3] < b[2] or b[3] < a[2]
    everything = [point for path in placed.paths for _, point in path]
    everything += [(x, y) for left, right, top, low in spans for x, y in ((left, top), (right, low))]
    assert all(-1e-6 <= x <= placed.width + 1e-6 and -1e-6 <= y <= placed.height + 1e-6 for x, y in everything)
    check_ends(graph, placed, spans)


def check_ends(graph: Graph, placed: Placed, spans: list[tuple[float, ...]]) -> None:
    for (source, target), path in zip(graph.edges, placed.paths, strict=True):
        for box, (_, (x, y)) in ((source, path[0]), (target, path[-1])):
            left, right, top, low = spans[box]
            assert left - 1e-6 <= x <= right + 1e-6
            assert top - 1e-6 <= y <= low + 1e-6


def test_texts_fit_into_their_boxes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seen: list[Figure] = []

    def measure(figure: Figure, *args: Any, **kwargs: Any) -> None:
        seen.append(figure)
        figure.dpi = 150
        renderer, pixel = FigureCanvasAgg(figure).get_renderer(), 1.0
        axes = figure.axes[0]
        boxes = [patch.get_window_extent(renderer) for patch in axes.patches if "FancyBbox" in type(patch).__name__]
        for box, text in zip(boxes, axes.texts[1:], strict=True):  # the first is the title
            inside = text.get_window_extent(renderer)
            assert box.x0 + pixel < inside.x0 < inside.x1 < box.x1 - pixel
            assert box.y0 + pixel < inside.y0 < inside.y1 < box.y1 - pixel

    monkeypatch.setattr(Figure, "savefig", measure)
    draw(Chain(), tmp_path / "network.png", example_input=(1, 3, 9, 9))
    assert seen


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((SAMPLE, "cells.pdf"), {}, NasValueError, r"saved as .svg or .png; received 'cells.pdf'"),
        ((3,), {}, NasTypeError, "takes a sample or a module; received 3"),
        ((SAMPLE,), {"space": "darts"}, NasTypeError, "space must be a ModelSpace; received 'darts'"),
        (({"width": 3},), {}, NasValueError, "it has none; received 'the labels width'. To mend: .*example_input="),
        ((SAMPLE,), {"example_input": (1, 3, 8, 8)}, NasValueError, "built by its space. To mend: give space="),
        ((nn.ReLU(),), {}, NasValueError, "by running it. To mend: give example_input="),
        ((nn.ReLU(),), {"example_input": "x"}, NasTypeError, "example_input is a tensor"),
        (
            (nn.ReLU(),),
            {"example_input": (1, 3), "depth": 0},
            NasValueError,
            "draw: depth must be an int from 1 on, or None; received 0",
        ),
        ((nn.Linear(3, 4),), {"example_input": (1, 2)}, NasValueError, r"draw Linear with inputs of shape \(1, 2\)"),
        (({"a/node0/op0": "skip"},), {}, NasValueError, "a/node0/input0: this label of a cell is missing"),
        (({"a/node0/inputs": [0, 1], "a/node0/op0": "skip"},), {}, NasValueError, "a/node0/op1: this label"),
        (
            ({"a/node0/inputs": [2], "a/node0/op2": "skip"},),
            {},
            NasValueError,
            "the state that a node reads must be an int from 0 to 1; received 2",
        ),
        (({"a/node1/inputs": [2], "a/node1/op2": "skip"},), {}, NasValueError, "reads a node that the sample lacks"),
    ],
)
def test_bad_input_is_explained(
    arguments: tuple[Any, ...], keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        draw(*arguments, **keywords)


def test_a_sample_of_another_space_is_refused() -> None:
    small = ModelSpace(lambda: nn.Linear(4, ValueChoice([1, 2], label="width")))
    with pytest.raises(NasValueError, match="width"):
        draw(SAMPLE, space=small)
    with pytest.raises(NasValueError, match="width"):
        draw({"width": 5}, space=small, example_input=(1, 4))


@pytest.mark.parametrize("package", ["matplotlib", "igraph"])
def test_a_missing_package_is_explained(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match=re.escape(f'{package}, which is not installed here. Install it with: pip install "torch-nas[draw]"')):  # fmt: skip  # noqa: E501
        draw(SAMPLE, tmp_path / "cells.svg")
    assert not (tmp_path / "cells.svg").exists()


def test_a_drawing_of_nothing_but_a_box() -> None:
    graph = Graph()
    graph.add("alone", "other")
    assert "alone" in Drawing([graph])._repr_svg_()
