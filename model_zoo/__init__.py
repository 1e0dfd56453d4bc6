"""Model spaces of known families, and published networks."""

from nas.model_zoo.general import General
from nas.model_zoo.lenet import LeNetSpace
from nas.model_zoo.mobilenet_v3 import MobileNetV3Space
from nas.model_zoo.proxylessnas import ProxylessNASSpace
from nas.model_zoo.registry import list_spaces, space
from nas.model_zoo.resnet import ResNetSpace
from nas.model_zoo.shufflenet_v2 import ShuffleNetV2Space
from nas.model_zoo.transformer_lm import TransformerLMSpace
from nas.model_zoo.vision_transformer import VisionTransformerSpace

__all__ = [
    "General",
    "LeNetSpace",
    "MobileNetV3Space",
    "ProxylessNASSpace",
    "ResNetSpace",
    "ShuffleNetV2Space",
    "TransformerLMSpace",
    "VisionTransformerSpace",
    "list_spaces",
    "space",
]
