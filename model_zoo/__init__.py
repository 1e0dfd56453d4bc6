"""Model spaces of known families, and published networks."""

from nas.model_zoo.lenet import LeNetSpace
from nas.model_zoo.registry import list_spaces, space

__all__ = ["LeNetSpace", "list_spaces", "space"]
