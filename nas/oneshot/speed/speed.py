"""What makes relaxed supernets quick, as a user switches it on and off."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, final

from nas.checks import check_bool
from nas.errors import NasValueError, explain


@final
@dataclass(frozen=True, kw_only=True)
class Speed:
    """How mixtures are computed: the numbers are the same whatever is on, but for the rounding of sums.

    Example:
        >>> Speed(merge=False).fold
        True
    """

    fold: bool = True
    """Linear candidates of one mixture (convolutions, identity, pooling) become one convolution of mixed kernel."""
    share: bool = True
    """What has no parameters (an opening ReLU, pooling) is computed once for all mixtures that read the same tensor."""
    merge: bool | Literal["auto"] = "auto"
    """Equal layers on the same tensor become one; "auto": on devices where launches cost, or without copies."""
    channels_last: bool | Literal["auto"] = "auto"
    """Channels lie together in memory; "auto": where there are convolutions of images."""
    compile: bool = False
    """Each mixture by `torch.compile`, once for all that are alike; where candidates are drawn, each candidate."""
    cuda_graphs: bool | Literal["auto"] = "auto"
    """Forward and backward pass of the supernet as CUDA graphs, recorded anew in each epoch.

    "auto": on a CUDA device, where a replay is sure to do the same; elsewhere they run as they are, and the report says
    why. With True it is an error where they cannot be recorded.
    """
    checkpoint_cells: bool = False
    """Cells forget what they computed, and compute it again in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            auto = field.name in ("merge", "channels_last", "cuda_graphs")
            if not (auto and value == "auto"):
                check_bool(field.name, value, or_else='"auto"' * auto, where="Speed")
        if self.cuda_graphs is True and self.checkpoint_cells:
            raise NasValueError(
                explain(
                    "what is recorded as CUDA graphs cannot be computed again: that reads the device's random state",
                    got="Speed(cuda_graphs=True, checkpoint_cells=True)",
                    mend="drop one of the two",
                )
            )

    @property
    def merges(self) -> bool:
        """Whether equal layers on one tensor become one; of themselves not where each mixture is compiled.

        Together they would have many more structures to compile.
        """
        return self.merge is True or (self.merge == "auto" and not self.compile)
