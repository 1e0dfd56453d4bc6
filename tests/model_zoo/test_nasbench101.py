"""NAS-Bench-101: the published hashes, counts and numbers of parameters; graphs, validity, networks."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import ModelSpace, NasError, NasValueError
from nas.model_zoo import NASBench101
from nas.model_zoo.nasbench101 import (
    OPERATIONS,
    graph_hash,
    graph_of,
    is_valid,
    prune,
    sample_hash,
    sample_of,
    vertex_channels,
)
from nas.model_zoo.registry import space

SPACE = ModelSpace(NASBench101)
CONV3, CONV1, POOL = OPERATIONS
# The first record of the published file.
FIRST = (
    [
        [0, 1, 0, 0, 1, 1, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    ["input", CONV3, POOL, CONV3, CONV3, CONV1, "output"],
)
# The Inception-like cell of the paper's code, and the isomorphic one that its file holds.
INCEPTION = (
    [
        [0, 1, 1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    ["input", CONV1, CONV3, CONV3, CONV3, POOL, "output"],
)
STORED_INCEPTION = (
    [
        [0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    ["input", CONV3, CONV1, POOL, CONV3, CONV3, "output"],
)

Edges = frozenset[tuple[int, int]]


def matrix_of(edges: Edges, size: int) -> list[list[int]]:
    return [[int((i, j) in edges) for j in range(size)] for i in range(size)]


def whole_graphs(size: int) -> list[Edges]:
    """Every graph of so many vertices, at most nine edges and no vertex that pruning removes."""
    pairs = list(itertools.combinations(range(size), 2))
    found = []
    for number in range(size - 1, min(9, len(pairs)) + 1):
        for edges in itertools.combinations(pairs, number):
            if len({i for i, _ in edges}) == size - 1 == len({j for _, j in edges}):
                found.append(frozenset(edges))
    return found


def moved(edges: Edges, size: int) -> list[tuple[Edges, tuple[int, ...]]]:
    """The graph under each permutation of its inner vertices, and the permutation."""
    orders = ((0, *inner, size - 1) for inner in itertools.permutations(range(1, size - 1)))
    return [(frozenset((order[i], order[j]) for i, j in edges), order) for order in orders]


def cycles(order: tuple[int, ...]) -> int:
    left, found = set(order[1:-1]), 0
    while left:
        found, place = found + 1, left.pop()
        while (place := order[place]) in left:
            left.remove(place)
    return found


@pytest.fixture(scope="module")
def published() -> ModelSpace:
    return space("nasbench101")


def parameters(network: ModelSpace, graph: tuple[list[list[int]], list[str]]) -> int:
    return sum(p.numel() for p in network.build(sample_of(*graph), device="meta").parameters())


def test_published_hash_and_parameters(published: ModelSpace) -> None:
    assert graph_hash(*FIRST) == "00005c142e6f48ac74fdcf73e3439874"
    assert parameters(published, FIRST) == 8_555_530
    assert graph_hash(*INCEPTION) == graph_hash(*STORED_INCEPTION)
    assert parameters(published, INCEPTION) == parameters(published, STORED_INCEPTION) == 2_694_282


def test_the_size_is_that_of_the_paper(published: ModelSpace) -> None:
    assert published.size == 2**21 * 3**5


def test_there_are_423_624_different_graphs() -> None:
    total = 0
    for size in range(2, 8):
        shapes = {
            graph_hash(matrix_of(e, size), ["input", *[POOL] * (size - 2), "output"]): e for e in whole_graphs(size)
        }
        for edges in shapes.values():
            # Burnside: a graph has as many different labellings as its symmetries leave alone on average.
            fixed = [3 ** cycles(order) for image, order in moved(edges, size) if image == edges]
            total += sum(fixed) // len(fixed)
    assert total == 423_624


@pytest.mark.parametrize(("size", "number"), [(2, 1), (3, 6), (4, 84), (5, 2441)])
def test_the_hash_tells_exactly_the_different_graphs_apart(size: int, number: int) -> None:
    hashes: dict[str, tuple[Edges, tuple[str, ...]]] = {}
    for edges in whole_graphs(size):
        for inner in itertools.product(OPERATIONS, repeat=size - 2):
            operations = ["input", *inner, "output"]
            name = graph_hash(matrix_of(edges, size), operations)
            known_edges, known_operations = hashes.setdefault(name, (edges, tuple(operations)))
            assert any(
                image == known_edges and all(operations[v] == known_operations[order[v]] for v in range(size))
                for image, order in moved(edges, size)
            )
    assert len(hashes) == number


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_the_hash_of_a_sample_does_not_depend_on_the_order_of_vertices(seed: int) -> None:
    rng = random.Random(seed)
    matrix, operations = graph_of(SPACE.where(is_valid).sample(rng))
    edges = frozenset((i, j) for i, j in itertools.combinations(range(7), 2) if matrix[i][j])
    upper = [(image, order) for image, order in moved(edges, 7) if all(i < j for i, j in image)]
    image, order = rng.choice(upper)
    renamed = [operations[order.index(v)] for v in range(7)]
    assert graph_hash(matrix_of(image, 7), renamed) == graph_hash(matrix, operations)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_samples_and_graphs_there_and_back(seed: int) -> None:
    sample = SPACE.sample(seed)
    assert sample_of(*graph_of(sample)) == sample
    if is_valid(sample):
        small = sample_of(*prune(*graph_of(sample)))
        assert SPACE.contains(small)
        assert sample_hash(small) == sample_hash(sample)


@pytest.mark.parametrize("seed", range(6))
def test_any_valid_network_learns_and_all_of_it(published: ModelSpace, seed: int) -> None:
    tiny = space("nasbench101", channels=7, cells=2, stacks=2)
    model = tiny.build(tiny.sample(seed))
    scores = model(torch.randn(2, 3, 9, 9))
    assert scores.shape == (2, 10)
    scores.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_space_by_name_holds_valid_samples_alone(published: ModelSpace) -> None:
    assert all(is_valid(published.sample(seed)) for seed in range(50))
    assert not all(is_valid(SPACE.sample(seed)) for seed in range(50))
    assert is_valid(published.default())


def test_edges_that_pruning_removes_do_not_count() -> None:
    sample = sample_of(*FIRST)
    assert sum(bool(answer) for label, answer in sample.items() if label.startswith("edge")) == 9
    assert not is_valid(sample | {"edge_0_2": 1})
    chain = SPACE.default() | {"edge_0_6": 1, "edge_5_6": 0}
    assert prune(*graph_of(chain)) == ([[0, 1], [0, 0]], ["input", "output"])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (sample_of(*FIRST) | {"edge_0_2": 1}, r"at most 9 edges; received 10. To mend: search .*where"),
        ({label: 0 if label.startswith("edge") else CONV3 for label in sample_of(*FIRST)}, "must be connected"),
    ],
)
def test_an_invalid_sample_is_refused(sample: dict[str, object], message: str) -> None:
    with pytest.raises(NasValueError, match=message):
        SPACE.build(sample)


@pytest.mark.parametrize(
    ("in_channels", "channels", "edges", "size", "expected"),
    [
        (8, 16, [(0, 1), (1, 2), (2, 3)], 4, [8, 16, 16, 16]),
        (1, 5, [(0, 1)], 2, [1, 5]),
        (8, 8, [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)], 5, [8, 3, 3, 2, 8]),
        (8, 9, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)], 5, [8, 5, 5, 4, 9]),
        (8, 15, [(0, 1), (0, 3), (1, 2), (1, 4), (2, 3), (3, 4)], 5, [8, 8, 7, 7, 15]),
    ],
)
def test_channels_are_split_as_in_the_papers_code(
    in_channels: int, channels: int, edges: list[tuple[int, int]], size: int, expected: list[int]
) -> None:
    assert vertex_channels(in_channels, channels, matrix_of(frozenset(edges), size)) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graph_hash([[0, 1]], ["input", "output"]), "square matrix"),
        (lambda: graph_hash([[0, 1], [1, 0]], ["input", "output"]), "upper triangular"),
        (lambda: graph_hash([[0, 2], [0, 0]], ["input", "output"]), "of 0 and 1"),
        (lambda: graph_hash([[0, 1], [0, 0]], ["output", "input"]), 'begin with "input"'),
        (
            lambda: sample_of([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv3x3", "output"]),
            "did you mean 'conv3x3-bn",
        ),
        (lambda: sample_of(matrix_of(frozenset({(0, 7)}), 8), ["input", *[POOL] * 6, "output"]), "at most 7 vertices"),
        (lambda: sample_hash({"edge_0_1": 1}), "answers edge_0_2, .*op_5 too"),
    ],
)
def test_what_is_no_graph_is_explained(call: object, message: str) -> None:
    with pytest.raises(NasError, match=message):
        call()  # type: ignore[operator]
