"""`nas.draw`: pictures of cells, from a sample, and of whole networks, from a module."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nas.cell import CellModule
from nas.domains import Answer
from nas.errors import NasTypeError, NasValueError, explain
from nas.graph_picture import Drawing, Graph, Group
from nas.network_graph import network_graph

if TYPE_CHECKING:
    from nas.space import ModelSpace

_LABEL = re.compile(r"(?P<cell>.+)/node(?P<node>\d+)/(?P<what>inputs|input|op|combine)(?P<index>\d*)")
_GROUPS: tuple[tuple[str, Group], ...] = (
    ("conv", "convolution"),
    ("pool", "pool"),
    ("skip", "identity"),
    ("identity", "identity"),
    ("none", "identity"),
)


def draw(
    architecture: Mapping[str, Answer] | nn.Module,
    path: str | Path | None = None,
    *,
    space: ModelSpace | None = None,
    example_input: Any = None,
    depth: int | None = None,
) -> Drawing:
    """Draws the cells of a sample, or a whole network.

    Args:
        architecture: a sample whose labels are those of `nas.Cell`, or a module.
        path: where it is saved: `.svg` or `.png`. A notebook shows the drawing that is returned.
        space: of the sample. Without it a cell is taken to have two inputs, and to concatenate all nodes where the
            states that they read are distinct, else those that no other reads.
        example_input: a tensor, or a tuple of them, that the network takes: then the network is drawn, not its cells,
            and its tensors' shapes are shown without the batch.
        depth: how deep into modules of modules the drawing of a network goes; as deep as 60 boxes allow where omitted.

    Returns:
        A drawing with `save(path)`.

    Raises:
        NasValueError: a sample without cells and without a network to build, or another ending of the path.
        MissingDependency: matplotlib or igraph is not installed.

    Example:
        >>> from nas.model_zoo import DARTS_V2, genotype_to_sample
        >>> drawing = draw(genotype_to_sample(DARTS_V2, "darts"))
        >>> [graph.title for graph in drawing.graphs]
        ['normal', 'reduce']
        >>> network = draw(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), example_input=torch.zeros(1, 3, 8, 8))
        >>> [box.text for box in network.graphs[0].boxes]
        ['input\\n3x8x8', 'Conv2d 3x3, 3 to 8\\n8x6x6', 'ReLU\\n8x6x6', 'output']
    """
    if isinstance(architecture, nn.Module):
        if example_input is None:
            raise NasValueError(
                explain("a network is drawn by running it", got="no input", where="draw", mend="give example_input=")
            )
        graphs = [network_graph(architecture, example_input, depth)]
    elif isinstance(architecture, Mapping):
        if space is not None:
            architecture = space.validate(architecture)
        if example_input is not None:
            if space is None:
                raise NasValueError(explain("a sample is built by its space", where="draw", mend="give space="))
            graphs = [network_graph(space.build(architecture), example_input, depth)]
        else:
            graphs = _cells(architecture, space)
    else:
        raise NasTypeError(explain("draw takes a sample or a module", got=architecture, where="draw"))
    drawing = Drawing(graphs)
    if path is not None:
        drawing.save(path)
    return drawing


def _cells(sample: Mapping[str, Answer], space: ModelSpace | None) -> list[Graph]:
    cells: dict[str, dict[int, dict[str, Answer]]] = defaultdict(lambda: defaultdict(dict))
    for label, answer in sample.items():
        if found := _LABEL.fullmatch(label):
            cells[found["cell"]][int(found["node"])][found["what"] + found["index"]] = answer
    if not cells:
        raise NasValueError(
            explain(
                "only the cells of `nas.Cell` are drawn from a sample alone",
                got=f"the labels {', '.join(list(sample)[:4])}",
                where="draw",
                mend="for the whole network give space= and example_input=",
            )
        )
    modules = _modules(sample, space) if space is not None else {}
    return [_cell(label, nodes, modules.get(label)) for label, nodes in cells.items()]


def _modules(sample: Mapping[str, Answer], space: ModelSpace) -> dict[str, CellModule]:
    built = space.build(sample, device="meta")
    return {module.label: module for module in built.modules() if isinstance(module, CellModule)}


def _cell(label: str, nodes: dict[int, dict[str, Answer]], module: CellModule | None) -> Graph:
    edges = {node: _edges(asked) for node, asked in sorted(nodes.items())}
    read = {state for pairs in edges.values() for state, _ in pairs}
    distinct = any("inputs" in asked for asked in nodes.values())
    inputs = len(module.preprocess) if module is not None else 2
    outputs = (
        module.outputs if module is not None else [inputs + n for n in edges if distinct or inputs + n not in read]
    )
    graph = Graph(title=label)
    names = [f"cell k-{inputs - i}" for i in range(inputs)]
    states = {i: graph.add(name, "data") for i, name in enumerate(names) if i in read}
    for node, pairs in edges.items():
        operations = [graph.add(_readable(op), _group(op), states[state]) for state, op in pairs]
        states[inputs + node] = graph.add(f"{nodes[node].get('combine', 'add')}  ({node})", "join", *operations)
    graph.add("concat", "data", *(states[state] for state in outputs))
    return graph


def _edges(asked: Mapping[str, Answer]) -> list[tuple[int, str]]:
    """(state, operation) of a node, in order."""
    if "inputs" in asked:
        states = asked["inputs"]
        assert isinstance(states, (list, tuple)), "a subset"
        return [(int(state), str(asked[f"op{state}"])) for state in states]
    slots = sorted(int(key.removeprefix("input")) for key in asked if key.startswith("input"))
    return [(_int(asked[f"input{j}"]), str(asked[f"op{j}"])) for j in slots]


def _int(answer: Answer) -> int:
    assert isinstance(answer, int), "one input"
    return answer


def _readable(op: str) -> str:
    return op.replace("_", " ")


def _group(op: str) -> Group:
    return next((group for part, group in _GROUPS if part in op), "other")
