"""Model spaces of known families, and published networks."""

from nas.model_zoo import nasbench101, nasbench201, nats_bench
from nas.model_zoo.cells import (
    AMOEBANET_A,
    DARTS_V1,
    DARTS_V2,
    NASNET_A,
    CellFamily,
    CellNetwork,
    Genotype,
    Place,
    amoebanet,
    cell_network,
    darts,
    enas_micro,
    genotype_to_sample,
    nasnet,
    nasnet_simple,
    pnas,
    sample_to_genotype,
    set_drop_path,
)
from nas.model_zoo.general import General
from nas.model_zoo.lenet import LeNetSpace
from nas.model_zoo.mobilenet_v3 import MobileNetV3Space
from nas.model_zoo.nasbench101 import NASBench101
from nas.model_zoo.nasbench201 import NASBench201
from nas.model_zoo.nats_bench import NATSBenchSize
from nas.model_zoo.proxylessnas import ProxylessNASSpace
from nas.model_zoo.registry import SPACES, SpaceEntry, list_models, list_spaces, model, space
from nas.model_zoo.resnet import ResNetSpace
from nas.model_zoo.shufflenet_v2 import ShuffleNetV2Space
from nas.model_zoo.transformer_layers import TransformerRanges
from nas.model_zoo.transformer_lm import TransformerLMSpace
from nas.model_zoo.vision_transformer import VisionTransformerSpace

__all__ = [
    "AMOEBANET_A",
    "DARTS_V1",
    "DARTS_V2",
    "NASNET_A",
    "SPACES",
    "CellFamily",
    "CellNetwork",
    "General",
    "Genotype",
    "LeNetSpace",
    "MobileNetV3Space",
    "NASBench101",
    "NASBench201",
    "NATSBenchSize",
    "Place",
    "ProxylessNASSpace",
    "ResNetSpace",
    "ShuffleNetV2Space",
    "SpaceEntry",
    "TransformerLMSpace",
    "TransformerRanges",
    "VisionTransformerSpace",
    "amoebanet",
    "cell_network",
    "darts",
    "enas_micro",
    "genotype_to_sample",
    "list_models",
    "list_spaces",
    "model",
    "nasbench101",
    "nasbench201",
    "nasnet",
    "nasnet_simple",
    "nats_bench",
    "pnas",
    "sample_to_genotype",
    "set_drop_path",
    "space",
]
