"""The cell of NASNet and DARTS: a small graph whose nodes combine operations on earlier states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from nas.calls import explained
from nas.checks import check_bool, check_int, check_word
from nas.errors import NasTypeError, NasValueError, explain
from nas.space.factories import make_module
from nas.space.mutables import ChosenInputs, InputChoice, LayerChoice
from nas.space.questions import label_scope

Operation: TypeAlias = Callable[[int], nn.Module]
"""Builds an operation, given the position of the state that it reads (an input of a reduction cell: with stride 2)."""


@final
class Sum(nn.Module):
    """Adds what the operations of a node yield."""

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors of one shape to their sum."""
        total = tensors[0]
        for tensor in tensors[1:]:
            total = total + tensor
        return total


@explained()
@final
class CellModule(nn.Module):
    """What `Cell` builds: states in, one tensor out.

    Attributes:
        label: the name that its labels begin with.
        outputs: the positions of the states that are concatenated.
    """

    def __init__(
        self,
        preprocess: Sequence[Callable[[], nn.Module]],
        nodes: Sequence[Sequence[nn.Module]],
        combine: Sequence[nn.Module],
        output: Literal["all", "loose_ends"],
        label: str,
    ) -> None:
        super().__init__()
        self.label = label
        first = len(preprocess)
        made = range(first, first + len(nodes))
        edges = [edge for node in nodes for edge in node]
        read = {i for edge in edges if isinstance(edge, ChosenInputs) for i in edge.chosen}
        if not all(isinstance(edge, ChosenInputs) for edge in edges):  # of a supernet: all are possible
            read, output = {*range(first)}, "all"
        self.outputs = [i for i in made if output == "all" or i not in read]
        self.preprocess = nn.ModuleList(make() if i in read else nn.Identity() for i, make in enumerate(preprocess))
        self.nodes = nn.ModuleList(nn.ModuleList(edges) for edges in nodes)
        self.combine = nn.ModuleList(combine)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The outputs of earlier cells, each (batch, channels, height, width), to (batch, outputs * channels, ...)."""
        states = [module(tensor) for module, tensor in zip(self.preprocess, inputs, strict=True)]
        for edges, combine in zip(self.nodes, self.combine, strict=True):
            assert isinstance(edges, nn.ModuleList)
            states.append(combine([edge(states) for edge in edges]))
        return torch.cat([states[i] for i in self.outputs], dim=1)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.label}, outputs={self.outputs}"


@explained()
def Cell(  # noqa: N802
    operations: Mapping[str, Operation],
    *,
    nodes: int,
    label: str,
    operations_per_node: int = 2,
    distinct: bool = False,
    preprocess: Sequence[Callable[[], nn.Module]] = (nn.Identity, nn.Identity),
    combine: Callable[[int], nn.Module] | None = None,
    output: Literal["all", "loose_ends"] = "loose_ends",
) -> CellModule:
    """A cell (Zoph et al. 2018, arXiv 1707.07012; Liu et al. 2019, arXiv 1806.09055).

    Its states are the preprocessed inputs, numbered from 0, and after them the nodes. Each node applies operations to
    earlier states and combines what they yield. The output is the concatenation of states along the channels. The
    labels are `{label}/node{i}/...`; all cells of one label have one architecture.

    Args:
        operations: name -> function that builds the operation, given the position of the state that it reads.
        nodes: how many there are.
        label: of the cell: "normal", say.
        operations_per_node: how many each node combines.
        distinct: whether the states that a node reads differ, each edge having an operation of its own, as in DARTS
            (labels `inputs` and `op{state}`). Else each operation chooses its state by itself, as in NASNet (labels
            `input{j}` and `op{j}`).
        preprocess: builds what each input goes through first, if a node reads it; as many as the cell has inputs.
        combine: builds, given the number of the node, the module that takes the list of what its operations yield;
            the sum where omitted, and always the sum where the states are distinct.
        output: which nodes are concatenated: "all", or the "loose_ends" that no other node reads.

    Returns:
        A module called with the inputs; its `outputs` are the positions of the concatenated states.

    Raises:
        NasValueError: no operations or nodes, an unknown output, more distinct states to read than there are, or
            distinct states that are not added.

    Example:
        >>> from nas import ModelSpace
        >>> operations = {"conv": lambda i: nn.Conv2d(8, 8, 3, padding=1), "skip": lambda i: nn.Identity()}
        >>> space = ModelSpace(lambda: Cell(operations, nodes=2, label="cell", distinct=True, output="all"))
        >>> space.size  # (2 over 2) * 2^2 for the first node, (3 over 2) * 2^2 for the second
        48
        >>> image = torch.randn(1, 8, 4, 4)
        >>> space.build(space.sample(0))(image, image).shape
        torch.Size([1, 16, 4, 4])
    """
    where = f"Cell {label!r}"
    _check(operations, nodes, operations_per_node, distinct, preprocess, output, where)
    if distinct and combine is not None:
        rule, mend = "the operations on distinct states are added", "leave combine out, or distinct=False"
        raise NasValueError(explain(rule, got=combine, where=where, mend=mend))
    with label_scope(label):
        built, combined = [], []
        for node in range(nodes):
            name, states = f"{label}/node{node}", len(preprocess) + node
            if distinct:
                built.append([_edges(operations, name, states, operations_per_node)])
            else:
                built.append([_slot(operations, name, states, j) for j in range(operations_per_node)])
            with label_scope(f"node{node}"):
                combined.append(Sum() if combine is None else combine(node))
        return CellModule(preprocess, built, combined, output, label)


def _edges(operations: Mapping[str, Operation], name: str, states: int, number: int) -> nn.Module:
    def each(state: int) -> nn.Module:
        return LayerChoice(_made(operations, state), label=f"{name}/op{state}")

    return InputChoice(states, number, replace=False, each=each, label=f"{name}/inputs")


def _made(operations: Mapping[str, Operation], state: int) -> dict[str, Callable[[], nn.Module]]:
    """What builds each operation on a state."""
    return {
        name: partial(make_module, make, partial("operation {!r}, which reads a state,".format, name), state)
        for name, make in operations.items()
    }


def _slot(operations: Mapping[str, Operation], name: str, states: int, place: int) -> nn.Module:
    def each(state: int) -> nn.Module:
        return LayerChoice(_made(operations, state), label=f"{name}/op{place}")

    return InputChoice(states, 1, each=each, label=f"{name}/input{place}")


def _check(
    operations: Mapping[str, Operation],
    nodes: int,
    operations_per_node: int,
    distinct: bool,
    preprocess: Sequence[Callable[[], nn.Module]],
    output: str,
    where: str,
) -> None:
    if not isinstance(operations, Mapping):
        raise NasTypeError(
            explain(
                "operations must be a dict name -> function of a position",
                got=operations,
                where=where,
                mend='{"relu": lambda i: nn.ReLU(), "skip": lambda i: nn.Identity()}',
            )
        )
    if not operations:
        rule, mend = "a cell needs at least one operation", '{"relu": lambda i: nn.ReLU(), ...}'
        raise NasValueError(explain(rule, got=operations, where=where, mend=mend))
    check_bool("distinct", distinct, where=where)
    check_int("nodes", nodes, least=1, where=where)
    check_int("operations_per_node", operations_per_node, least=1, where=where)
    if not preprocess:
        rule, mend = "a cell needs at least one input", "preprocess=(nn.Identity, nn.Identity)"
        raise NasValueError(explain(rule, got=preprocess, where=where, mend=mend))
    if distinct and operations_per_node > len(preprocess):
        raise NasValueError(
            explain(
                f"the first node cannot read {operations_per_node} different states of {len(preprocess)}",
                got=operations_per_node,
                where=where,
                mend="lower operations_per_node, or distinct=False",
            )
        )
    check_word("output", output, ("all", "loose_ends"), where=where)
