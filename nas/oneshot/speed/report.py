"""What was rewritten in a supernet, and why the rest was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from nas.oneshot.relaxed import MixedInput, MixedLayer


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
