"""Model spaces of known families."""

from nas.model_zoo.lenet import LeNetSpace

__all__ = ["LeNetSpace"]
