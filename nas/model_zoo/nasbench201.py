"""The space of NAS-Bench-201 (Dong and Yang 2020, arXiv 2001.00326), and its architecture strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import final

from torch import Tensor, nn

from nas import LayerChoice, NasTypeError, NasValueError, Sample, Zero, model_space
from nas.domains import Answer
from nas.errors import close_names, explain

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What an edge of the cell may be, in the order of the paper's code."""
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The edges of the cell as (source, target), in the order of the architecture string; node 3 is the output."""
_STRING = re.compile(r"\+".join(r"\|" + "".join(rf"(\w+)~{i}\|" for i in range(node)) for node in (1, 2, 3)))


@final
class Cut(Zero):
    """No connection: zeros, which let a gradient of zeros pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Any tensor to zeros of its shape."""
        return x * 0.0


def convolution(kernel: int, in_channels: int, channels: int, stride: int = 1) -> nn.Module:
    """ReLU, convolution and batch norm, in this order as everywhere in the benchmark."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    )


def _operations(channels: int) -> dict[str, Callable[[], nn.Module]]:
    return {
        "none": Cut,
        "skip_connect": nn.Identity,
        "nor_conv_1x1": partial(convolution, 1, channels, channels),
        "nor_conv_3x3": partial(convolution, 3, channels, channels),
        "avg_pool_3x3": partial(nn.AvgPool2d, 3, stride=1, padding=1, count_include_pad=False),
    }


def _choice(channels: int, source: int, target: int) -> nn.Module:
    return LayerChoice(_operations(channels), label=_label(source, target), default="nor_conv_3x3")


@final
class SumCell(nn.Module):
    """Four nodes, the first the input, each other one the sum of an operation on every earlier one; the last is it.

    Args:
        operation: builds that of an edge, given its source and its target.
    """

    def __init__(self, operation: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({f"{source}_{target}": operation(source, target) for source, target in EDGES})

    def forward(self, x: Tensor) -> Tensor:
        """An image (batch, channels, height, width) to one of that size."""
        nodes = [x]
        for target in (1, 2, 3):
            total: Tensor = self.edges[f"0_{target}"](x)
            for source in range(1, target):
                total = total + self.edges[f"{source}_{target}"](nodes[source])
            nodes.append(total)
        return nodes[-1]


@final
class Downsample(nn.Module):
    """The residual block between two stages: half the size, twice the channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(3, in_channels, channels, stride=2), convolution(3, channels, channels))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(in_channels, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """An image (batch, in_channels, height, width) to (batch, channels, height / 2, width / 2)."""
        y: Tensor = self.shortcut(x) + self.body(x)
        return y


@model_space
class NASBench201(nn.Module):
    """A network of 15 equal cells whose six edges are chosen: 5^6 = 15,625 architectures.

    The parameters are those of the published networks: from 73,306 to 1,531,546 for 10 classes. An edge of "none" cuts
    off what only it reads, whose gradients are then zeros.

    Args:
        classes: how many outputs.
        channels: of the first of the three stages.
        cells: in each stage.
        in_channels: of the images.
    """

    def __init__(self, classes: int = 10, channels: int = 16, cells: int = 5, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        layers: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            if stage:
                layers.append(Downsample(width // 2, width))
            layers += [SumCell(partial(_choice, width)) for _ in range(cells)]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width), both sides multiples of 4, to scores (batch, classes)."""
        y: Tensor = self.classifier(self.last(self.layers(self.stem(x))))
        return y


def arch_string(sample: Mapping[str, Answer]) -> str:
    """The architecture string of a sample: what the files of NAS-Bench-201 and NATS-Bench call it.

    Raises:
        NasValueError: a label is missing, or its answer is no operation.

    Example:
        >>> arch_string({f"edge_{i}_{j}": "skip_connect" for i, j in EDGES})
        '|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|'
    """
    missing = [_label(*edge) for edge in EDGES if _label(*edge) not in sample]
    if missing:
        raise NasValueError(explain(f"a sample of NAS-Bench-201 answers {', '.join(missing)} too", got=dict(sample)))
    nodes = []
    for target in (1, 2, 3):
        chosen = [(sample[_label(source, target)], source) for source in range(target)]
        for operation, source in chosen:
            _check_operation(str(operation), _label(source, target))
        nodes.append("|" + "|".join(f"{operation}~{source}" for operation, source in chosen) + "|")
    return "+".join(nodes)


def sample_of(arch: str) -> Sample:
    """The sample of an architecture string.

    Raises:
        NasValueError: another form, or an operation that does not exist.

    Example:
        >>> sample_of("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|")["edge_2_3"]
        'skip_connect'
    """
    if not isinstance(arch, str):
        raise NasTypeError(explain("an architecture string is a str", got=arch, where="nasbench201.sample_of"))
    found = _STRING.fullmatch(arch.strip())
    if found is None:
        raise NasValueError(
            explain(
                "an architecture string has the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2|",
                got=arch,
                where="nasbench201.sample_of",
            )
        )
    sample: Sample = {}
    for (source, target), operation in zip(EDGES, found.groups(), strict=True):
        _check_operation(operation, _label(source, target))
        sample[_label(source, target)] = operation
    return sample


def _label(source: int, target: int) -> str:
    return f"edge_{source}_{target}"


def _check_operation(operation: str, label: str) -> None:
    if operation not in OPERATIONS:
        raise NasValueError(
            explain(f"unknown operation; {close_names(operation, OPERATIONS)}", got=operation, where=f"label {label!r}")
        )
