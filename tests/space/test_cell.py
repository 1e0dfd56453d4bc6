"""`Cell` and the `each` of InputChoice: conditional edges, what is counted, what is refused."""

from collections.abc import Callable
from math import comb

import pytest
import torch
from torch import Tensor, nn

from nas import Cell, InputChoice, LayerChoice, ModelSpace, NasError


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


OPERATIONS: dict[str, Callable[[int], nn.Module]] = {"ten": lambda i: Times(10), "state": lambda i: Times(i + 1)}


def test_only_what_chosen_inputs_pass_through_is_built_and_asked() -> None:
    built: list[int] = []

    def edge(i: int) -> nn.Module:
        built.append(i)
        return LayerChoice({"ten": lambda: Times(10), "two": lambda: Times(2)}, label=f"edge{i}")

    space = ModelSpace(lambda: InputChoice(4, 2, replace=False, each=edge, label="in"))
    assert space.size == comb(4, 2) * 2**2
    built.clear()
    model = space.build({"in": [1, 3], "edge1": "ten", "edge3": "two"})
    assert built == [1, 3]
    assert model([None, torch.tensor(1.0), None, torch.tensor(4.0)]).item() == 18
    assert len(list(space.grid())) == space.size
    for seed in range(20):
        sample = space.sample(seed)
        assert sorted(sample) == [f"edge{i}" for i in sample["in"]] + ["in"]
        child = space.mutate(sample, seed)
        assert space.contains(child)
        assert child != sample


def test_an_edge_not_taken_is_refused_by_its_condition() -> None:
    space = ModelSpace(Cell, OPERATIONS, nodes=2, label="c", distinct=True)
    sample = {"c/node0/inputs": [0, 1], "c/node0/op0": "ten", "c/node0/op1": "ten", "c/node1/inputs": [0, 2]}
    sample |= {"c/node1/op0": "ten", "c/node1/op1": "ten", "c/node1/op2": "ten"}
    with pytest.raises(NasError, match="'c/node1/op1'.*\n?.*c/node1/inputs has 1"):
        space.validate(sample)


@pytest.mark.parametrize(("nodes", "distinct"), [(1, True), (3, True), (1, False), (3, False)])
def test_the_count_is_the_papers(nodes: int, distinct: bool) -> None:
    size = 1
    for states in range(2, 2 + nodes):
        size *= comb(states, 2) * 2**2 if distinct else (states * 2) ** 2
    assert ModelSpace(Cell, OPERATIONS, nodes=nodes, label="c", distinct=distinct).size == size


def test_a_cell_computes_its_graph_and_concatenates_loose_ends() -> None:
    space = ModelSpace(Cell, OPERATIONS, nodes=3, label="c")
    sample = {
        "c/node0/input0": 0, "c/node0/op0": "ten", "c/node0/input1": 1, "c/node0/op1": "state",
        "c/node1/input0": 2, "c/node1/op0": "state", "c/node1/input1": 0, "c/node1/op1": "state",
        "c/node2/input0": 1, "c/node2/op0": "ten", "c/node2/input1": 1, "c/node2/op1": "ten",
    }  # fmt: skip
    cell = space.build(sample)
    a, b = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)
    # node 0 (state 2): 10 * 1 + 2 * 2 = 14; node 1: 3 * 14 + 1 = 43; node 2: 2 * 10 * 2 = 40; state 2 is read by node 1
    assert cell.outputs == [3, 4]
    assert cell(a, b)[0, :, 0, 0].tolist() == [43, 40]
    everything = ModelSpace(Cell, OPERATIONS, nodes=3, label="c", output="all").build(sample)
    assert everything(a, b)[0, :, 0, 0].tolist() == [14, 43, 40]


def test_cells_of_one_label_share_their_choices() -> None:
    def two() -> nn.Module:
        return nn.ModuleList(Cell(OPERATIONS, nodes=2, label="c") for _ in range(2))

    assert ModelSpace(two).size == ModelSpace(Cell, OPERATIONS, nodes=2, label="c").size


def test_preprocessing_and_combining_are_the_users() -> None:
    class Product(nn.Module):
        def forward(self, tensors: list[Tensor]) -> Tensor:
            return tensors[0] * tensors[1]

    def combine(node: int) -> nn.Module:
        return Product()

    space = ModelSpace(Cell, OPERATIONS, nodes=1, label="c", preprocess=[lambda: Times(3)], combine=combine)
    cell = space.build(space.default())  # all "ten"
    assert cell(torch.ones(1, 1)).item() == 30 * 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operations": {}}, "at least one operation"),
        ({"operations": [nn.ReLU]}, "operations must be a dict"),
        ({"nodes": 0}, "nodes must be an int from 1 on"),
        ({"operations_per_node": True}, "operations_per_node must be an int from 1 on"),
        ({"preprocess": ()}, "at least one input"),
        ({"distinct": True, "operations_per_node": 3}, "cannot read 3 different states of 2"),
        ({"output": "some"}, 'output must be "all" or "loose_ends"'),
        ({"distinct": True, "combine": lambda node: nn.Identity()}, "are added"),
    ],
)
def test_bad_cells_are_refused(options: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"operations": OPERATIONS, "nodes": 2, "label": "c", **options}
    with pytest.raises(NasError, match=message):
        ModelSpace(lambda: Cell(**arguments))  # type: ignore[arg-type]


def test_each_must_be_a_function() -> None:
    with pytest.raises(NasError, match="each must be a function"):
        InputChoice(2, each=3, label="in")  # type: ignore[arg-type]
