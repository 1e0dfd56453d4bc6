"""Cell spaces and their networks, and published genotypes."""

from nas.model_zoo.cells.genotypes import (
    AMOEBANET_A,
    DARTS_V1,
    DARTS_V2,
    NASNET_A,
    Genotype,
    genotype_to_sample,
    sample_to_genotype,
)
from nas.model_zoo.cells.network import CellNetwork, Dataset, Place
from nas.model_zoo.cells.spaces import (
    CellFamily,
    amoebanet,
    cell_network,
    darts,
    enas_micro,
    nasnet,
    nasnet_simple,
    pnas,
    set_drop_path,
)

__all__ = [
    "AMOEBANET_A",
    "DARTS_V1",
    "DARTS_V2",
    "NASNET_A",
    "CellFamily",
    "CellNetwork",
    "Dataset",
    "Genotype",
    "Place",
    "amoebanet",
    "cell_network",
    "darts",
    "enas_micro",
    "genotype_to_sample",
    "nasnet",
    "nasnet_simple",
    "pnas",
    "sample_to_genotype",
    "set_drop_path",
]
