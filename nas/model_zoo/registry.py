"""Spaces and published networks by name: the edge where strings are looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from nas import ModelSpace, NasError, NasValueError
from nas.calls import explained
from nas.errors import close_names, explain, nearest
from nas.model_zoo import nasbench101
from nas.model_zoo.arguments import check_arguments
from nas.model_zoo.cells import (
    AMOEBANET_A,
    DARTS_V1,
    DARTS_V2,
    NASNET_A,
    CellNetwork,
    Dataset,
    Genotype,
    amoebanet,
    darts,
    enas_micro,
    genotype_to_sample,
    nasnet,
    nasnet_simple,
    pnas,
)
from nas.model_zoo.general import General
from nas.model_zoo.lenet import LeNetSpace
from nas.model_zoo.mobilenet_v3 import MobileNetV3Space, MobileStage
from nas.model_zoo.nasbench101 import NASBench101
from nas.model_zoo.nasbench201 import NASBench201
from nas.model_zoo.nats_bench import NATSBenchSize
from nas.model_zoo.proxylessnas import ProxylessNASSpace
from nas.model_zoo.resnet import ResNetSpace
from nas.model_zoo.shufflenet_v2 import ShuffleNetV2Space
from nas.model_zoo.transformer_layers import TransformerRanges
from nas.model_zoo.transformer_lm import TransformerLMSpace
from nas.model_zoo.vision_transformer import VisionTransformerSpace
from nas.space import Where

_TINY_TRANSFORMER = TransformerRanges(widths=(8, 16), heads=(1, 2), mlp_ratios=(1, 2.5), depth=(1, 3), head_width=4)


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class SpaceEntry:
    """A space that has a name."""

    source: Callable[..., nn.Module]
    """A class or function that asks the choices; its arguments are those of `space(name, ...)`."""
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that make it small enough to train in a test."""
    input_shape: tuple[int, ...] = (3, 32, 32)
    """Of one example for the tiny arguments: (channels, height, width), or (length,) of tokens."""
    tokens: int | None = None
    """For language models: how many different tokens the tiny arguments know; None for images."""
    unread: bool = False
    """Whether a sample may have layers whose output nothing reads, as NASNet's has where no node reads one input."""
    where: Where | None = None
    """Which samples belong to it, where not all do."""


_TINY_CELLS = {"channels": 2, "cells": 3}

# One line for each space; the contract suite in tests/model_zoo/test_spaces.py runs over all of them.
SPACES: Mapping[str, SpaceEntry] = {
    "amoebanet": SpaceEntry(source=amoebanet, tiny=_TINY_CELLS, input_shape=(3, 8, 8), unread=True),
    "darts": SpaceEntry(source=darts, tiny=_TINY_CELLS, input_shape=(3, 8, 8)),
    "enas_micro": SpaceEntry(source=enas_micro, tiny=_TINY_CELLS, input_shape=(3, 8, 8), unread=True),
    "general": SpaceEntry(source=General, tiny={"width": 8, "classes": 10, "stem_stride": 2}),
    "lenet": SpaceEntry(source=LeNetSpace),
    "mobilenet_v3": SpaceEntry(
        source=MobileNetV3Space,
        tiny={
            "stages": (
                MobileStage(width=8, stride=2, activation=nn.ReLU, squeeze_excite=False, depth=(1, 2), kernels=(3, 5)),
                MobileStage(width=16, stride=2, activation=nn.Hardswish, squeeze_excite=True, depth=(1, 3)),
            ),
            "classes": 10,
            "stem_stride": 1,
        },
        input_shape=(3, 16, 16),
    ),
    "nasbench101": SpaceEntry(
        source=NASBench101, tiny={"channels": 8, "cells": 1}, input_shape=(3, 8, 8), where=nasbench101.is_valid
    ),
    "nasbench201": SpaceEntry(source=NASBench201, tiny={"channels": 4, "cells": 1}, input_shape=(3, 8, 8)),
    "nasnet": SpaceEntry(source=nasnet, tiny=_TINY_CELLS, input_shape=(3, 8, 8), unread=True),
    "nasnet_simple": SpaceEntry(source=nasnet_simple, tiny=_TINY_CELLS, input_shape=(3, 8, 8), unread=True),
    "nats_bench_size": SpaceEntry(source=NATSBenchSize, input_shape=(3, 8, 8)),
    "pnas": SpaceEntry(source=pnas, tiny=_TINY_CELLS, input_shape=(3, 8, 8), unread=True),
    "proxylessnas": SpaceEntry(
        source=ProxylessNASSpace,
        tiny={"widths": (4, 4, 8, 8, 8, 8), "blocks": (2, 1, 2, 1, 1, 1), "classes": 10, "stem_stride": 1},
    ),
    "resnet": SpaceEntry(source=ResNetSpace, tiny={"width": 16}),
    "shufflenet_v2": SpaceEntry(
        source=ShuffleNetV2Space,
        tiny={"widths": (20, 24), "blocks": (2, 2), "classes": 10, "stem_stride": 1},
    ),
    "transformer_lm": SpaceEntry(
        source=TransformerLMSpace,
        tiny={"ranges": _TINY_TRANSFORMER, "vocabulary": 11, "context": 8},
        input_shape=(6,),
        tokens=11,
    ),
    "vision_transformer": SpaceEntry(
        source=VisionTransformerSpace,
        tiny={"ranges": _TINY_TRANSFORMER, "image_size": 32, "patch_size": 8, "classes": 10},
    ),
}


@explained()
def list_spaces() -> list[str]:
    """The names that `space` knows, sorted.

    Example:
        >>> "lenet" in list_spaces()
        True
    """
    return sorted(SPACES)


@explained()
def space(name: str, /, **arguments: Any) -> ModelSpace:
    """The model space of a name.

    Args:
        name: one of `list_spaces()`.
        **arguments: of the space: what its class takes.

    Raises:
        NasValueError: an unknown name, with the close ones in the message, or arguments that no network can have.
        NasTypeError: arguments that the space does not have.

    Example:
        >>> space("lenet", channels=1, image_size=28).size
        93440
    """
    entry, where = SPACES[_known(name, SPACES, "model space")], f"model space {name!r}"
    arguments = check_arguments(entry.source, arguments, where=where)
    try:
        built = ModelSpace(entry.source, **arguments)
    except NasError:
        raise
    except Exception as error:
        rule = f"no network can be built with these arguments ({type(error).__name__}: {error})"
        raise NasValueError(explain(rule, got=arguments, where=where)) from error
    return built if entry.where is None else built.where(entry.where)


@final
@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A published network that has a name: its cells, and the space they are of."""

    space: str
    genotype: Genotype


MODELS: Mapping[str, ModelEntry] = {
    "amoebanet_a": ModelEntry(space="amoebanet", genotype=AMOEBANET_A),
    "darts_v1": ModelEntry(space="darts", genotype=DARTS_V1),
    "darts_v2": ModelEntry(space="darts", genotype=DARTS_V2),
    "nasnet_a": ModelEntry(space="nasnet", genotype=NASNET_A),
}


@explained()
def list_models() -> list[str]:
    """The names that `model` knows, sorted.

    Example:
        >>> list_models()
        ['amoebanet_a', 'darts_v1', 'darts_v2', 'nasnet_a']
    """
    return sorted(MODELS)


@explained()
def model(name: str, /, *, dataset: Dataset = "cifar10", **arguments: Any) -> CellNetwork:
    """A published network, with fresh weights.

    It has an auxiliary head unless `auxiliary=False`: then a training step returns a tuple, the scores and those of the
    head, whose parameters have `auxiliary` in their names. In evaluation it returns the scores.

    Args:
        name: one of `list_models()`.
        dataset: "cifar10" (36 channels, 20 cells, 10 classes) or "imagenet" (48 channels, 14 cells, 1000 classes).
        **arguments: of `nas.model_zoo.cell_network`: `channels`, `cells`, `classes`, `auxiliary`, `drop_path`.

    Raises:
        NasValueError: an unknown name, with the close ones in the message, or arguments that no network can have.
        NasTypeError: arguments that the network does not have.

    Example:
        >>> network = model("darts_v2")
        >>> sum(weight.numel() for name, weight in network.named_parameters() if "auxiliary" not in name)
        3349342
    """
    entry = MODELS[_known(name, MODELS, "model")]
    built = space(entry.space, dataset=dataset, **{"auxiliary": True, **arguments}).build(
        genotype_to_sample(entry.genotype, entry.space)
    )
    assert isinstance(built, CellNetwork)
    return built


def _known(name: str, names: Mapping[str, object], what: str) -> str:
    if not isinstance(name, str) or name not in names:
        rule = f"unknown {what}; {close_names(str(name), names)}"
        near = [*nearest(str(name), names), *sorted(names)][0]
        raise NasValueError(explain(rule, got=name, where="model_zoo", mend=f'"{near}", say'))
    return name
