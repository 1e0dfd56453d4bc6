"""Published cells, and the way between a genotype and a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

from nas.calls import explained
from nas.domains import Sample
from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.model_zoo.cells.spaces import AMOEBANET, DARTS, ENAS_MICRO, NASNET, PNAS, CellFamily

Edges: TypeAlias = tuple[tuple[str, int], ...]

FAMILIES: Mapping[str, CellFamily] = {
    "amoebanet": AMOEBANET,
    "darts": DARTS,
    "enas_micro": ENAS_MICRO,
    "nasnet": NASNET,
    "pnas": PNAS,
}


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Genotype:
    """Two cells in the notation of DARTS: (operation, position of the state it reads), two entries for each node.

    States 0 and 1 are the outputs of the two cells before, node i is state 2 + i.

    Raises:
        NasTypeError: what is no such cell.
    """

    normal: Edges
    normal_concat: tuple[int, ...]
    """The states that are concatenated."""
    reduce: Edges
    """Of the reduction cell."""
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("normal", "reduce"):
            edges, concat = getattr(self, name), getattr(self, f"{name}_concat")
            if not _is_row(edges) or not all(_is_row(e) and len(e) == 2 and type(e[0]) is str for e in edges):
                raise NasTypeError(explain("a cell is a tuple of pairs (operation, state)", got=edges, where=name))
            if not _is_row(concat) or not all(type(n) is int for n in [*concat, *(state for _, state in edges)]):
                raise NasTypeError(explain("states are ints", got=(edges, concat), where=name))
            object.__setattr__(self, name, tuple((op, state) for op, state in edges))  # as JSON has lists
            object.__setattr__(self, f"{name}_concat", tuple(concat))


def _is_row(found: object) -> bool:
    return isinstance(found, tuple | list | range)


@explained()
def genotype_to_sample(genotype: Genotype, space: str) -> Sample:
    """The sample of a named cell space that builds a genotype.

    Args:
        genotype: the two cells.
        space: a name among "amoebanet", "darts", "enas_micro", "nasnet", "pnas".

    Raises:
        NasValueError: the genotype is not of this space: another number of nodes, an operation that it lacks, a state
            that is not there yet, other states concatenated, or (PNAS) two different cells.

    Example:
        >>> sample = genotype_to_sample(DARTS_V2, "darts")
        >>> sample["normal/node3/inputs"], sample["normal/node3/op2"]
        ([0, 2], 'dil_conv_3x3')
    """
    family = _family(space)
    if not isinstance(genotype, Genotype):
        raise NasTypeError(explain("a genotype is a nas.model_zoo.Genotype", got=genotype))
    if family.one_cell and (genotype.normal, genotype.normal_concat) != (genotype.reduce, genotype.reduce_concat):
        raise NasValueError(explain(f"{space} has one cell, which is both normal and reduction", got=genotype.reduce))
    sample: Sample = {}
    for label, edges, concat in (
        (family.label(False), genotype.normal, genotype.normal_concat),
        (family.label(True), genotype.reduce, genotype.reduce_concat),
    ):
        _check(family, label, edges, concat, space)
        for node in range(family.nodes):
            name, pair = f"{label}/node{node}", edges[2 * node : 2 * node + 2]
            if family.distinct:
                sample[f"{name}/inputs"] = sorted(state for _, state in pair)
                sample |= {f"{name}/op{state}": op for op, state in sorted(pair, key=lambda edge: edge[1])}
            else:
                for j, (op, state) in enumerate(pair):
                    sample |= {f"{name}/input{j}": state, f"{name}/op{j}": op}
    return sample


@explained()
def sample_to_genotype(sample: Mapping[str, object], space: str) -> Genotype:
    """The genotype of a sample; labels other than the cells' (a learning rate, say) are passed over.

    From genotype to sample and back is the identity but for the order of the two entries of a node in "darts", where
    they have none.

    Args:
        sample: of the named space.
        space: as in `genotype_to_sample`.

    Raises:
        NasTypeError: the sample is no dict.
        NasValueError: a label of the cells is missing, or has no answer of the space.

    Example:
        >>> sample_to_genotype(genotype_to_sample(NASNET_A, "nasnet"), "nasnet") == NASNET_A
        True
    """
    family = _family(space)
    if not isinstance(sample, Mapping):
        raise NasTypeError(explain("a sample must be a dict label -> answer", got=sample))
    cells = []
    for reduction in (False, True):
        edges: list[tuple[str, int]] = []
        for node in range(family.nodes):
            name = f"{family.label(reduction)}/node{node}"
            try:
                if family.distinct:
                    edges += [(str(sample[f"{name}/op{i}"]), i) for i in _ints(sample[f"{name}/inputs"], name)]
                else:
                    inputs = _ints([sample[f"{name}/input{j}"] for j in range(2)], name)
                    edges += [(str(sample[f"{name}/op{j}"]), state) for j, state in enumerate(inputs)]
            except KeyError as missing:
                raise NasValueError(
                    explain(f"a sample of {space} has this label", got="none", where=str(missing.args[0]))
                ) from None
        cells.append((tuple(edges), _concat(family, edges)))
    (normal, normal_concat), (reduce, reduce_concat) = cells
    return Genotype(normal=normal, normal_concat=normal_concat, reduce=reduce, reduce_concat=reduce_concat)


def _ints(states: object, where: str) -> tuple[int, ...]:
    if not isinstance(states, list | tuple) or not all(isinstance(state, int) for state in states):
        raise NasValueError(explain("a node reads states, which are ints", got=states, where=where))
    return tuple(int(state) for state in states)


def _family(space: str) -> CellFamily:
    if not isinstance(space, str) or space not in FAMILIES:
        raise NasValueError(explain(f"genotypes are of a cell space; {close_names(str(space), FAMILIES)}", got=space))
    return FAMILIES[space]


def _concat(family: CellFamily, edges: Edges | list[tuple[str, int]]) -> tuple[int, ...]:
    read = {state for _, state in edges}
    return tuple(i for i in range(2, 2 + family.nodes) if family.output == "all" or i not in read)


def _check(family: CellFamily, label: str, edges: Edges, concat: tuple[int, ...], space: str) -> None:
    where = f"{label} cell of {space}"
    if len(edges) != 2 * family.nodes:
        raise NasValueError(explain(f"a cell has {2 * family.nodes} operations, two a node", got=edges, where=where))
    for position, (op, state) in enumerate(edges):
        node = position // 2
        if op not in family.operations:
            raise NasValueError(
                explain(f"unknown operation; {close_names(op, family.operations)}", got=op, where=where)
            )
        if not 0 <= state < 2 + node:
            raise NasValueError(explain(f"node {node} reads one of the states 0 to {1 + node}", got=state, where=where))
        if family.distinct and position % 2 and edges[position - 1][1] == state:
            raise NasValueError(explain(f"node {node} reads two different states", got=edges, where=where))
    if tuple(sorted(concat)) != _concat(family, edges):
        rule = "all nodes" if family.output == "all" else "the nodes that no other reads"
        raise NasValueError(explain(f"{rule} are concatenated: {_concat(family, edges)}", got=concat, where=where))


DARTS_V1 = Genotype(
    normal=(
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("skip_connect", 0),
        ("sep_conv_3x3", 1),
        ("skip_connect", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("skip_connect", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("skip_connect", 2),
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
        ("skip_connect", 2),
        ("avg_pool_3x3", 0),
    ),
    reduce_concat=(2, 3, 4, 5),
)
"""DARTS, first order (Liu et al. 2019, arXiv 1806.09055)."""

DARTS_V2 = Genotype(
    normal=(
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1),
        ("skip_connect", 0),
        ("skip_connect", 0),
        ("dil_conv_3x3", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
    ),
    reduce_concat=(2, 3, 4, 5),
)
"""DARTS, second order (Liu et al. 2019, arXiv 1806.09055)."""

NASNET_A = Genotype(
    normal=(
        ("sep_conv_5x5", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_5x5", 0),
        ("sep_conv_3x3", 0),
        ("avg_pool_3x3", 1),
        ("skip_connect", 0),
        ("avg_pool_3x3", 0),
        ("avg_pool_3x3", 0),
        ("sep_conv_3x3", 1),
        ("skip_connect", 1),
    ),
    normal_concat=(2, 3, 4, 5, 6),
    reduce=(
        ("sep_conv_5x5", 1),
        ("sep_conv_7x7", 0),
        ("max_pool_3x3", 1),
        ("sep_conv_7x7", 0),
        ("avg_pool_3x3", 1),
        ("sep_conv_5x5", 0),
        ("skip_connect", 3),
        ("avg_pool_3x3", 2),
        ("sep_conv_3x3", 2),
        ("max_pool_3x3", 1),
    ),
    reduce_concat=(4, 5, 6),
)
"""NASNet-A (Zoph et al. 2018, arXiv 1707.07012)."""

AMOEBANET_A = Genotype(
    normal=(
        ("avg_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_5x5", 2),
        ("sep_conv_3x3", 0),
        ("avg_pool_3x3", 3),
        ("sep_conv_3x3", 1),
        ("skip_connect", 1),
        ("skip_connect", 0),
        ("avg_pool_3x3", 1),
    ),
    normal_concat=(4, 5, 6),
    reduce=(
        ("avg_pool_3x3", 0),
        ("sep_conv_3x3", 1),
        ("max_pool_3x3", 0),
        ("sep_conv_7x7", 2),
        ("sep_conv_7x7", 0),
        ("avg_pool_3x3", 1),
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("conv_7x1_1x7", 0),
        ("sep_conv_3x3", 5),
    ),
    reduce_concat=(3, 4, 6),
)
"""AmoebaNet-A (Real et al. 2019, arXiv 1802.01548)."""
