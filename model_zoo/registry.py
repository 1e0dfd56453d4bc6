"""Spaces and published networks by name: the edge where strings are looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from nas import ModelSpace, NasValueError
from nas.errors import close_names, explain
from nas.model_zoo.general import General
from nas.model_zoo.lenet import LeNetSpace
from nas.model_zoo.mobilenet_v3 import MobileNetV3Space
from nas.model_zoo.proxylessnas import ProxylessNASSpace
from nas.model_zoo.resnet import ResNetSpace
from nas.model_zoo.shufflenet_v2 import ShuffleNetV2Space
from nas.model_zoo.transformer_layers import TransformerRanges
from nas.model_zoo.transformer_lm import TransformerLMSpace
from nas.model_zoo.vision_transformer import VisionTransformerSpace

_TINY_TRANSFORMER = TransformerRanges(widths=(8, 16), heads=(1, 2), mlp_ratios=(1, 2.5), depth=(1, 3), head_width=4)


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


# One line for each space; the contract suite in tests/model_zoo/test_spaces.py runs over all of them.
SPACES: Mapping[str, SpaceEntry] = {
    "general": SpaceEntry(source=General, tiny={"width": 8, "classes": 10, "stem_stride": 2}),
    "lenet": SpaceEntry(source=LeNetSpace),
    "mobilenet_v3": SpaceEntry(source=MobileNetV3Space, tiny={"classes": 10, "stem_stride": 1}),
    "proxylessnas": SpaceEntry(source=ProxylessNASSpace, tiny={"classes": 10, "stem_stride": 1}),
    "resnet": SpaceEntry(source=ResNetSpace, tiny={"width": 16}),
    "shufflenet_v2": SpaceEntry(source=ShuffleNetV2Space, tiny={"classes": 10, "stem_stride": 1}),
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


def list_spaces() -> list[str]:
    """The names that `space` knows, sorted.

    Example:
        >>> "lenet" in list_spaces()
        True
    """
    return sorted(SPACES)


def space(name: str, /, **arguments: Any) -> ModelSpace:
    """The model space of a name.

    Args:
        name: one of `list_spaces()`.
        **arguments: of the space: what its class takes.

    Raises:
        NasValueError: an unknown name; the message has the close ones.

    Example:
        >>> space("lenet", channels=1, image_size=28).size
        93440
    """
    if name not in SPACES:
        raise NasValueError(explain(f"unknown model space; {close_names(name, SPACES)}", got=name, where="model_zoo"))
    return ModelSpace(SPACES[name].source, **arguments)
