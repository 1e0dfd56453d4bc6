"""The private step of tianshou's PPO that is another here; imports tianshou, which takes seconds."""

from __future__ import annotations

from typing import Any, final

import torch
from tianshou.algorithm.modelfree.ppo import PPO
from tianshou.data import ReplayBuffer
from torch import Tensor

from nas._compat.changed import changed


@final
class WeighedPPO(PPO):
    """tianshou's PPO, with the probabilities that the decisions had when they were proposed.

    tianshou takes those that they have when the update begins, which is the same only where no result comes late.
    """

    def update_from(self, buffer: ReplayBuffer, *, proposed: Tensor, repeat: int) -> None:
        """Takes gradient steps.

        Args:
            buffer: of the decisions.
            proposed: their logarithmic probabilities, (decisions,).
            repeat: how many steps.

        Raises:
            ExperimentError: this tianshou prepares an update in another way, and took other probabilities.
        """
        self._proposed, self._weighed = proposed, False
        self.update(buffer, batch_size=None, repeat=repeat)
        if not self._weighed:
            raise changed("tianshou", "PPO._preprocess_batch", purpose="late results are weighed")

    def _preprocess_batch(self, batch: Any, buffer: Any, indices: Any) -> Any:
        found = super()._preprocess_batch(batch, buffer, indices)
        found.logp_old = self._proposed[torch.as_tensor(indices)].to(found.logp_old)
        self._weighed = True
        return found
