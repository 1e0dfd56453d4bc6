"""A trained model, and smaller ones with its weights: which parts can go, and what each of them is worth."""

from nas.compress.dependencies import Passage, ThinAttention
from nas.compress.elastic_space import Elastic, elastic

__all__ = ["Elastic", "Passage", "ThinAttention", "elastic"]
