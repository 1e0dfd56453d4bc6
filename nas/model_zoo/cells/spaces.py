"""The cell family: NASNet, ENAS, AmoebaNet, PNAS, DARTS, and a small NASNet to teach with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from nas.calls import explained
from nas.checks import check_number
from nas.model_zoo.cells.network import CellNetwork, Dataset, Place
from nas.model_zoo.cells.operations import OPERATIONS, relu_conv_norm
from nas.space import Cell, CellModule, LayerChoice, Sum

NORMAL, REDUCTION = "normal", "reduce"
"""The labels of the two kinds of cell."""


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class CellFamily:
    """What the cells of a space are made of; two operations for each node."""

    operations: tuple[str, ...]
    nodes: int
    distinct: bool = False
    """Whether a node reads two different states."""
    output: Literal["all", "loose_ends"] = "loose_ends"
    one_cell: bool = False
    """Whether the reduction cell is the normal cell with stride 2."""
    concatenates: bool = False
    """Whether a node may concatenate what its operations yield, instead of adding it."""

    def label(self, reduction: bool) -> str:
        """Of a cell."""
        return REDUCTION if reduction and not self.one_cell else NORMAL


NASNET = CellFamily(
    operations=(
        "skip_connect",
        "conv_3x1_1x3",
        "conv_7x1_1x7",
        "dil_conv_3x3",
        "avg_pool_3x3",
        "max_pool_3x3",
        "max_pool_5x5",
        "max_pool_7x7",
        "conv_1x1",
        "conv_3x3",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
    ),
    nodes=5,
)
ENAS_MICRO = CellFamily(
    operations=("skip_connect", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"), nodes=5
)
_EIGHT = (
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_conv_3x3",
    "conv_7x1_1x7",
)
AMOEBANET = CellFamily(operations=_EIGHT, nodes=5)
PNAS = CellFamily(operations=_EIGHT, nodes=5, output="all", one_cell=True)
DARTS = CellFamily(
    operations=(
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
    nodes=4,
    distinct=True,
    output="all",
)
NASNET_SIMPLE = CellFamily(
    operations=("skip_connect", "conv_3x3", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"),
    nodes=2,
    concatenates=True,
)


@explained()
def cell_network(
    family: CellFamily,
    *,
    dataset: Dataset = "cifar10",
    channels: int | None = None,
    cells: int | None = None,
    classes: int | None = None,
    auxiliary: bool = False,
    drop_path: float = 0.0,
    in_channels: int = 3,
) -> CellNetwork:
    """A network whose cells are of a family: the component builder behind the named spaces.

    Args:
        family: what the cells are made of.
        dataset: "cifar10" or "imagenet": which stem, and the defaults of the numbers below.
        channels: of the first cells; 36 (ImageNet: 48).
        cells: how many; 20 (ImageNet: 14).
        classes: how many outputs; 10 (ImageNet: 1000).
        auxiliary: whether there is a second classifier, as `CellNetwork` tells.
        drop_path: the probability that an operation other than the identity is left out for an example in training
            (Larsson et al. 2017, arXiv 1605.07648). `set_drop_path` changes it as training goes on.
        in_channels: of the images.

    Raises:
        NasValueError: numbers that are none, or a probability outside [0, 1).
    """
    drop_path = check_number("drop_path", drop_path, least=0, below=1, where="cell_network")
    defaults = (36, 20, 10) if dataset == "cifar10" else (48, 14, 1000)
    channels, cells, classes = (
        d if n is None else n for d, n in zip(defaults, (channels, cells, classes), strict=True)
    )
    return CellNetwork(
        partial(_cell, family, drop_path),
        dataset=dataset,
        channels=channels,
        cells=cells,
        classes=classes,
        auxiliary=auxiliary,
        in_channels=in_channels,
    )


@explained()
def nasnet(**arguments: Any) -> CellNetwork:
    """NASNet (Zoph et al. 2018, arXiv 1707.07012): normal and reduction cell of five nodes, 13 operations.

    (2 * 3 * 4 * 5 * 6)^4 * 13^20 = 5.1e33 samples, since the two operations of a node are ordered; keyword arguments
    as those of `cell_network`. Differs from the paper in what stands around the cells: stem, preprocessing and
    auxiliary head are those of DARTS, for ImageNet too.
    """
    return cell_network(NASNET, **arguments)


@explained()
def enas_micro(**arguments: Any) -> CellNetwork:
    """The micro space of ENAS (Pham et al. 2018, arXiv 1802.03268): five nodes and five operations, 2.6e25 samples.

    Keyword arguments as those of `cell_network`. Differs from the paper as `nasnet` does, and in that a built network
    concatenates the loose ends without another convolution.
    """
    return cell_network(ENAS_MICRO, **arguments)


@explained()
def amoebanet(**arguments: Any) -> CellNetwork:
    """The space of AmoebaNet (Real et al. 2019, arXiv 1802.01548): five nodes and eight operations, 3.1e29 samples.

    Keyword arguments as those of `cell_network`; differs from the paper as `nasnet` does.
    """
    return cell_network(AMOEBANET, **arguments)


@explained()
def pnas(**arguments: Any) -> CellNetwork:
    """The space of PNAS (Liu et al. 2018, arXiv 1712.00559): one cell of five nodes, eight operations, 5.6e14 samples.

    The reduction cells are the same cell with stride 2. Keyword arguments as those of `cell_network`; differs from the
    paper as `nasnet` does.
    """
    return cell_network(PNAS, **arguments)


@explained()
def darts(*, none: bool = False, **arguments: Any) -> CellNetwork:
    """The space of DARTS (Liu et al. 2019, arXiv 1806.09055): four nodes that read two different states, 7 operations.

    1,037,664,180 normal cells and as many reduction cells. Keyword arguments as those of `cell_network`, and
    `none=True`, which adds the "none" of the paper's search: an edge of zeros, which no derived architecture has.
    Differs from the published search in that pooling has no batch norm behind it.
    """
    family = replace(DARTS, operations=(*DARTS.operations, "none")) if none else DARTS
    return cell_network(family, **arguments)


@explained()
def nasnet_simple(**arguments: Any) -> CellNetwork:
    """A small NASNet, to learn and to teach with: two nodes, six operations, whose results are added or concatenated.

    ((2 * 3)^2 * 6^4 * 2^2)^2 = 3.5e10 samples. Keyword arguments as those of `cell_network`.
    """
    return cell_network(NASNET_SIMPLE, **arguments)


@explained()
def set_drop_path(network: nn.Module, probability: float) -> None:
    """Sets the probability with which operations are left out, where the network was built with `drop_path` above 0.

    Example:
        >>> from nas.model_zoo import model
        >>> network = model("darts_v2", cells=3, channels=4, drop_path=0.2)
        >>> for epoch in range(3):  # as published: growing linearly
        ...     set_drop_path(network, 0.2 * epoch / 3)
    """
    from torchvision.ops import StochasticDepth

    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.p = probability


def _cell(family: CellFamily, drop_path: float, place: Place) -> CellModule:
    label = family.label(place.reduction)

    def operation(name: str) -> Callable[[int], nn.Module]:
        def make(state: int) -> nn.Module:
            made = OPERATIONS[name](place.channels, 2 if place.reduction and state < 2 else 1)
            return made if drop_path == 0 or isinstance(made, nn.Identity) else _dropped(made, drop_path)

        return make

    def combine(node: int) -> nn.Module:
        return LayerChoice(
            {"add": Sum, "concat": partial(_Concatenate, place.channels)}, label=f"{label}/node{node}/combine"
        )

    return Cell(
        {name: operation(name) for name in family.operations},
        nodes=family.nodes,
        label=label,
        distinct=family.distinct,
        preprocess=place.preprocess(),
        combine=combine if family.concatenates else None,
        output=family.output,
    )


def _dropped(operation: nn.Module, probability: float) -> nn.Module:
    from torchvision.ops import StochasticDepth  # of the extra `vision`

    return nn.Sequential(operation, StochasticDepth(probability, "row"))


@final
class _Concatenate(nn.Module):
    """Concatenates two tensors along the channels, and brings them back to the channels of one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = relu_conv_norm(2 * channels, channels)

    def forward(self, tensors: list[Tensor]) -> Tensor:
        y: Tensor = self.project(torch.cat(tensors, dim=1))
        return y
