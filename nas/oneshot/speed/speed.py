"""What makes relaxed supernets quick, as a user switches it on and off; and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol, final

from nas.calls import explained
from nas.checks import check_bool
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed import MixedInput, MixedLayer


@explained()
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
    """Forward and backward pass of the supernet, and the weights' update, as CUDA graphs, recorded anew in each epoch.

    "auto": on a CUDA device, where a replay is sure to do the same; elsewhere they run as they are, and the report says
    why. With True it is an error where they cannot be recorded.
    """
    checkpoint_cells: bool = False
    """Cells forget what they computed, and compute it again in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            auto = each.name in ("merge", "channels_last", "cuda_graphs")
            if not (auto and value == "auto"):
                check_bool(each.name, value, or_else='"auto"' * auto, where="Speed")
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


class Handle(Protocol):
    """Something that was added to the model."""

    def remove(self) -> None:
        """Takes it away again."""


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """What `optimise` has done to a supernet; `print` it.

    Attributes:
        folded: a line for each convolution that stands for several candidates.
        shared: for each tensor what is computed once.
        merged: what is computed side by side.
        kept: what is computed as ever, and why.
        whole: what applies to the model as a whole: memory format, compilation, checkpoints.
        layers, inputs, handles: what has to be undone.
    """

    folded: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    layers: list[MixedLayer] = field(default_factory=list, repr=False)
    inputs: list[MixedInput] = field(default_factory=list, repr=False)
    handles: list[Handle] = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """The supernet computes again as it did before."""
        for layer in self.layers:
            layer.quick = None
        for mixed in self.inputs:
            mixed.joins = False
        for handle in reversed(self.handles):
            handle.remove()

    def __str__(self) -> str:
        parts = {
            "Folded into one": self.folded,
            "Computed once": self.shared,
            "Side by side": self.merged,
            "Left as it was": self.kept,
            "The whole": self.whole,
        }
        return "\n".join(
            f"{title}:\n" + "\n".join(f"  {line}" for line in _counted(lines))
            for title, lines in parts.items()
            if lines
        )


def _counted(lines: Sequence[str]) -> list[str]:
    """Equal lines once, with their number."""
    return [line if number == 1 else f"{line} ({number} times)" for line, number in Counter(lines).items()]
