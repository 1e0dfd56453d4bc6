"""The graphs of the cells of a sample: inputs, operations, nodes, output."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from nas.checks import check_int
from nas.domains import Answer
from nas.errors import NasValueError, explain
from nas.pictures.graph_picture import Graph, Group
from nas.profile import build_on_meta
from nas.space import CellModule, ModelSpace

_LABEL = re.compile(r"(?P<cell>.+)/node(?P<node>\d+)/(?P<what>inputs|combine|input\d+|op\d+)")
_GROUPS: tuple[tuple[str, Group], ...] = (
    ("conv", "convolution"),
    ("pool", "pool"),
    ("skip", "identity"),
    ("identity", "identity"),
    ("none", "identity"),
)


def cell_graphs(sample: Mapping[str, Answer], space: ModelSpace | None) -> list[Graph]:
    """One for each cell that the labels of a sample tell of.

    Raises:
        NasValueError: a sample without cells, with a part of a cell, or of another space.
    """
    if space is not None:
        sample = space.validate(sample)
    cells: dict[str, dict[int, dict[str, Answer]]] = defaultdict(lambda: defaultdict(dict))
    for label, answer in sample.items():
        if found := _LABEL.fullmatch(str(label)):
            cells[found["cell"]][int(found["node"])][found["what"]] = answer
    if not cells:
        raise NasValueError(
            explain(
                "of a sample alone the cells are drawn, those of `nas.Cell`, and it has none",
                got=f"the labels {', '.join(map(str, list(sample)[:4]))}",
                where="draw",
                mend="for the whole network give space= and example_input=",
            )
        )
    modules: dict[str, CellModule] = {}
    if space is not None:
        built = build_on_meta(space, sample)
        modules = {module.label: module for module in built.modules() if isinstance(module, CellModule)}
    return [_graph(label, nodes, modules.get(label)) for label, nodes in cells.items()]


def _graph(label: str, nodes: dict[int, dict[str, Answer]], module: CellModule | None) -> Graph:
    inputs = len(module.preprocess) if module is not None else 2
    edges = {node: _edges(f"{label}/node{node}", asked, inputs + node) for node, asked in sorted(nodes.items())}
    read = {state for pairs in edges.values() for state, _ in pairs}
    distinct = any("inputs" in asked for asked in nodes.values())
    outputs = (
        module.outputs if module is not None else [inputs + n for n in edges if distinct or inputs + n not in read]
    )
    graph = Graph(title=label, rightwards=True)
    states = {i: graph.add(f"cell k-{inputs - i}", "data") for i in range(inputs) if i in read}
    for node, pairs in edges.items():
        missing = [state for state, _ in pairs if state not in states]
        if missing:
            raise NasValueError(
                explain(f"node {node} reads a node that the sample lacks", got=missing[0], where=f"draw {label!r}")
            )
        operations = [graph.add(op.replace("_", " "), _group(op), states[state]) for state, op in pairs]
        how = nodes[node].get("combine", "add")
        states[inputs + node] = graph.add(f"node {node}: {how}", "join", *operations)
    graph.add("cell k: concat", "data", *(states[state] for state in outputs))
    return graph


def _edges(name: str, asked: Mapping[str, Answer], position: int) -> list[tuple[int, str]]:
    """(state, operation) of a node, in order; `position` is its own among the states."""

    def answer(label: str) -> Answer:
        if label not in asked:
            raise NasValueError(explain("this label of a cell is missing", where=f"draw {name}/{label}"))
        return asked[label]

    def state(value: object, label: str) -> int:
        return check_int("the state that a node reads", value, least=0, most=position - 1, where=f"draw {name}/{label}")

    if "inputs" in asked:
        chosen = asked["inputs"]
        read = [state(value, "inputs") for value in (chosen if isinstance(chosen, list | tuple) else [chosen])]
        return [(i, str(answer(f"op{i}"))) for i in read]
    slots = sorted({int(re.sub(r"\D", "", key)) for key in asked if key != "combine"})
    return [(state(answer(f"input{j}"), f"input{j}"), str(answer(f"op{j}"))) for j in slots]


def _group(op: str) -> Group:
    return next((group for part, group in _GROUPS if part in op), "other")
