"""The protocol of one-shot strategies: one supernet is trained, and its best subnets become the trials."""

from __future__ import annotations

from typing import final

from nas.protocols.shared_training import SharedTraining
from nas.protocols.strategy import Strategy


class OneShotStrategy(Strategy, SharedTraining):
    """Trains a supernet, and then proposes its subnets, the best first; they are judged with the shared weights.

    As a strategy it proposes what `search` has ranked. `nas.oneshot` has those that train by pytorch-lightning. Nothing
    asks for this class: any strategy whose `shared_training` is there is treated the same.
    """

    @property
    @final
    def shared_training(self) -> SharedTraining:
        """Itself."""
        return self
