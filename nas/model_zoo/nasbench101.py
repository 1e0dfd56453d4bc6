"""The space of NAS-Bench-101 (Ying et al. 2019, arXiv 1902.09635): its graphs, their hash, and its networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from nas import NasValueError, Sample, ValueChoice, model_space
from nas.domains import Answer
from nas.errors import close_names, explain

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""What an inner vertex may be; the hash knows each by its position."""
VERTICES, MAX_EDGES = 7, 9
Matrix: TypeAlias = Sequence[Sequence[int]]
"""Row i has a 1 at j where vertex i feeds vertex j; upper triangular."""
Graph: TypeAlias = tuple[list[list[int]], list[str]]
"""The matrix, and the operation of each vertex, "input" first and "output" last."""

_PAIRS = tuple(combinations(range(VERTICES), 2))


def prune(matrix: Matrix, operations: Sequence[str]) -> Graph:
    """The graph without the vertices that lie on no path from the input to the output.

    Raises:
        NasValueError: no graph, or no path from the input to the output.

    Example:
        >>> prune([[0, 1, 1], [0, 0, 0], [0, 0, 0]], ["input", "maxpool3x3", "output"])
        ([[0, 1], [0, 0]], ['input', 'output'])
    """
    _check(matrix, operations)
    size = len(matrix)
    forward, backward = {0}, {size - 1}
    for i, j in combinations(range(size), 2):
        if matrix[i][j] and i in forward:
            forward.add(j)
    for j in range(size - 1, 0, -1):
        if j in backward:
            backward.update(i for i in range(j) if matrix[i][j])
    if size - 1 not in forward:
        raise NasValueError(
            explain("the input must be connected to the output", got=_edges(matrix), where="NAS-Bench-101")
        )
    kept = sorted(forward & backward)
    return [[int(matrix[i][j]) for j in kept] for i in kept], [operations[i] for i in kept]


def graph_hash(matrix: Matrix, operations: Sequence[str]) -> str:
    """The hash that isomorphic graphs share: the key of the published records. The graph is pruned first.

    Each vertex begins with the md5 of (out-degree, in-degree, operation); in as many rounds as there are vertices, it
    takes in those of its neighbours, sorted; the graph's is the md5 of all of them, sorted.

    Args:
        matrix: upper triangular, 0 or 1.
        operations: of each vertex, "input" first and "output" last.

    Raises:
        NasValueError: no graph, an unknown operation, or no path from the input to the output.

    Example:
        >>> graph_hash([[0, 1], [0, 0]], ["input", "output"])
        '043721b9c7fe8c5fad811d47d83132ec'
    """
    matrix, operations = prune(matrix, operations)
    vertices = range(len(matrix))
    ins = [[i for i in vertices if matrix[i][j]] for j in vertices]
    outs = [[j for j in vertices if matrix[i][j]] for i in vertices]
    numbers = [-1, *(OPERATIONS.index(operation) for operation in operations[1:-1]), -2]
    hashes = [_md5(str((len(outs[v]), len(ins[v]), numbers[v]))) for v in vertices]
    for _ in vertices:
        around = [["".join(sorted(hashes[w] for w in near[v])) for near in (ins, outs)] for v in vertices]
        hashes = [_md5("|".join([*around[v], hashes[v]])) for v in vertices]
    return _md5(str(sorted(hashes)))


def graph_of(sample: Mapping[str, Answer]) -> Graph:
    """The graph of a sample, with all its seven vertices.

    Raises:
        NasValueError: a label is missing.
    """
    labels = [_edge(*pair) for pair in _PAIRS] + [_operation(v) for v in range(1, VERTICES - 1)]
    missing = [label for label in labels if label not in sample]
    if missing:
        raise NasValueError(explain(f"a sample of NAS-Bench-101 answers {', '.join(missing)} too", got=dict(sample)))
    matrix = [[int(i < j and sample[_edge(i, j)]) for j in range(VERTICES)] for i in range(VERTICES)]
    return matrix, ["input", *(str(sample[_operation(v)]) for v in range(1, VERTICES - 1)), "output"]


def sample_of(matrix: Matrix, operations: Sequence[str]) -> Sample:
    """The sample of a graph of at most seven vertices.

    Raises:
        NasValueError: no graph, an unknown operation, or too many vertices.

    Example:
        >>> sample = sample_of([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "maxpool3x3", "output"])
        >>> sample["edge_0_1"], sample["edge_1_6"], sample["op_1"]
        (1, 1, 'maxpool3x3')
    """
    _check(matrix, operations)
    size = len(matrix)
    if size > VERTICES:
        raise NasValueError(explain(f"a graph has at most {VERTICES} vertices", got=size, where="NAS-Bench-101"))
    places = [*range(size - 1), VERTICES - 1]
    there = {(places[i], places[j]) for i, j in _edges(matrix)}
    inner = [*operations[1:-1], *[OPERATIONS[0]] * (VERTICES - size)]
    return {_edge(*pair): int(pair in there) for pair in _PAIRS} | {
        _operation(v): operation for v, operation in enumerate(inner, start=1)
    }


def sample_hash(sample: Mapping[str, Answer]) -> str:
    """`graph_hash` of a sample's graph: equal for samples that build the same network."""
    return graph_hash(*graph_of(sample))


def is_valid(sample: Mapping[str, Answer]) -> bool:
    """Whether a sample belongs to the benchmark: connected, and at most nine edges once it is pruned.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(NASBench101).where(is_valid)
        >>> is_valid(space.sample(0))
        True
    """
    try:
        _valid_graph(sample)
    except NasValueError:
        return False
    return True


def vertex_channels(in_channels: int, channels: int, matrix: Matrix) -> list[int]:
    """The output channels of each vertex of a pruned graph.

    Those that feed the output share its channels, the first ones taking the remainder; every other inner vertex has
    as many as the widest that it feeds.

    Example:
        >>> vertex_channels(8, 15, [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
        [8, 8, 7, 15]
    """
    last = len(matrix) - 1
    found = [in_channels, *[0] * (last - 1), channels]
    feeding = [v for v in range(1, last) if matrix[v][last]]
    for place, v in enumerate(feeding):
        found[v] = channels // len(feeding) + (place < channels % len(feeding))
    for v in range(last - 1, 0, -1):
        if v not in feeding:
            found[v] = max(found[w] for w in range(v + 1, last) if matrix[v][w])
    return found


def _conv_bn_relu(kernel: int, in_channels: int, channels: int) -> nn.Sequential:
    # The published networks average the statistics of batches with TensorFlow's momentum 0.997.
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels, eps=1e-5, momentum=0.003),
        nn.ReLU(),
    )


_LAYERS: Mapping[str, Callable[[int], nn.Module]] = {
    "conv3x3-bn-relu": lambda channels: _conv_bn_relu(3, channels, channels),
    "conv1x1-bn-relu": lambda channels: _conv_bn_relu(1, channels, channels),
    "maxpool3x3": lambda channels: nn.MaxPool2d(3, stride=1, padding=1),
}


@final
class _Cell(nn.Module):
    """A pruned graph as a layer; the input is projected to each vertex that reads it."""

    def __init__(self, in_channels: int, channels: int, graph: Graph) -> None:
        super().__init__()
        matrix, operations = graph
        self.last = len(matrix) - 1
        self.channels = vertex_channels(in_channels, channels, matrix)
        self.sources = [[i for i in range(1, j) if matrix[i][j]] for j in range(len(matrix))]
        self.projections = nn.ModuleDict(
            {str(j): _conv_bn_relu(1, in_channels, self.channels[j]) for j in range(1, self.last + 1) if matrix[0][j]}
        )
        self.vertices = nn.ModuleDict({str(v): _LAYERS[operations[v]](self.channels[v]) for v in range(1, self.last)})

    def forward(self, x: Tensor) -> Tensor:
        found: dict[int, Tensor] = {}
        for v in range(1, self.last):
            # A vertex that reads a wider one takes its leading channels.
            parts = [found[i][:, : self.channels[v]] for i in self.sources[v]]
            found[v] = self.vertices[str(v)](_sum([*parts, *self._projected(x, v)]))
        feeding = [found[i] for i in self.sources[self.last]]
        joined = [torch.cat(feeding, dim=1)] if feeding else []
        return _sum([*joined, *self._projected(x, self.last)])

    def _projected(self, x: Tensor, vertex: int) -> list[Tensor]:
        return [self.projections[str(vertex)](x)] if str(vertex) in self.projections else []


@model_space
class NASBench101(nn.Module):
    """A network of equal cells, whose graph is chosen: 21 possible edges and the operations of 5 inner vertices.

    2^21 * 3^5 samples, of which `is_valid` accepts a part; `model_zoo.space("nasbench101")` keeps to it, and building
    another is an error. The valid ones are 423,624 different graphs, `sample_hash` tells which. Vertices on no path
    from the input to the output are left out, and the parameters are those of the published networks.

    Args:
        classes: how many outputs.
        channels: of the stem, doubled after each stack but the last.
        stacks: groups of cells, with a halving of the image between them.
        cells: in each stack.
        in_channels: of the images.

    Raises:
        NasValueError: a graph outside the benchmark.
    """

    def __init__(
        self, classes: int = 10, channels: int = 128, stacks: int = 3, cells: int = 3, in_channels: int = 3
    ) -> None:
        super().__init__()
        # The default is a chain.
        sample: Sample = {
            _edge(i, j): ValueChoice([0, 1], label=_edge(i, j), default=int(j == i + 1)) for i, j in _PAIRS
        }
        for v in range(1, VERTICES - 1):
            sample[_operation(v)] = ValueChoice(OPERATIONS, label=_operation(v))
        graph = _valid_graph(sample)
        layers: list[nn.Module] = [_conv_bn_relu(3, in_channels, channels)]
        width = channels
        for stack in range(stacks):
            if stack:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            for cell in range(cells):
                before, width = width, width * 2 if stack and not cell else width
                layers.append(_Cell(before, width, graph))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to scores (batch, classes)."""
        y: Tensor = self.classifier(self.layers(x))
        return y


def _valid_graph(sample: Mapping[str, Answer]) -> Graph:
    matrix, operations = prune(*graph_of(sample))
    number = len(_edges(matrix))
    if number > MAX_EDGES:
        raise NasValueError(
            explain(
                f"a graph has at most {MAX_EDGES} edges",
                got=number,
                where="NAS-Bench-101",
                mend="search ModelSpace(NASBench101).where(nasbench101.is_valid)",
            )
        )
    return matrix, operations


def _check(matrix: Matrix, operations: Sequence[str]) -> None:
    size, where = len(matrix), "NAS-Bench-101"
    if size < 2 or any(len(row) != size for row in matrix) or len(operations) != size:
        raise NasValueError(
            explain(
                "a graph has a square matrix and one operation for each vertex", got=(matrix, operations), where=where
            )
        )
    below = [(i, j) for i, j in _edges(matrix) if i >= j]
    if below or not {int(x) for row in matrix for x in row} <= {0, 1}:
        raise NasValueError(explain("the matrix must be upper triangular, of 0 and 1", got=matrix, where=where))
    if operations[0] != "input" or operations[-1] != "output":
        raise NasValueError(
            explain('the operations begin with "input" and end with "output"', got=list(operations), where=where)
        )
    for operation in operations[1:-1]:
        if operation not in OPERATIONS:
            raise NasValueError(
                explain(f"unknown operation; {close_names(operation, OPERATIONS)}", got=operation, where=where)
            )


def _edges(matrix: Matrix) -> list[tuple[int, int]]:
    return [(i, j) for i, row in enumerate(matrix) for j, there in enumerate(row) if there]


def _edge(source: int, target: int) -> str:
    return f"edge_{source}_{target}"


def _operation(vertex: int) -> str:
    return f"op_{vertex}"


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    first, *others = tensors
    for tensor in others:
        first = first + tensor
    return first


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
