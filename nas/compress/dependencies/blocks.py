"""Residual blocks: modules that add something to what they are given, so that the model can do without each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor, nn

from nas.compress.dependencies.groups import Groups
from nas.compress.dependencies.thinning import Thinning
from nas.compress.dependencies.tracing import Trace, new_trace, returned, run
from nas.example_inputs import Inputs
from nas.space import replace_module


@final
class Passage(nn.Module):
    """Stands in the place of a residual block that was dropped, and returns the first tensor that it is given.

    Args:
        returned: how many things the block returned: 0 where it was the tensor itself, else the length of its tuple.

    Example:
        >>> import torch
        >>> Passage()(torch.ones(2)), Passage(2)(torch.ones(2), mask=None)
        (tensor([1., 1.]), (tensor([1., 1.]), None))
    """

    def __init__(self, returned: int = 0) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The first tensor, by position or by name."""
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        return (first, *[None] * (self.returned - 1)) if self.returned else first

    def extra_repr(self) -> str:
        """What it returns."""
        return f"returned={self.returned}" if self.returned else ""


def innermost(trace: Trace) -> dict[str, int]:
    """The blocks of a trace that hold no other ones: path -> what they return, as `Passage` takes it."""
    paths = [path for path in trace.order if path in trace.residual and path]
    return {path: trace.residual[path] for path in paths if not any(other.startswith(f"{path}.") for other in paths)}


def droppable(
    copy: Any, inputs: Inputs, thinning: Thinning, groups: Groups, blocks: Mapping[str, int], smallest: Sequence[int]
) -> tuple[dict[str, int], dict[str, str]]:
    """The blocks without which a model still runs and returns tensors of the same shapes; the others with reasons."""
    expected = _shapes(copy(), inputs)

    def wrong(paths: Sequence[str]) -> str | None:
        model = copy()
        thinning.apply(dict(model.named_modules()), smallest)
        for path in paths:
            replace_module(model, path, Passage(blocks[path]))
        try:
            found = _shapes(model, inputs)
        except Exception as error:  # whatever a forward raises that misses what the block returned
            return f"the model does not run without it ({type(error).__name__}: {error})"
        return None if found == expected else "the model returns other shapes without it"

    if wrong(list(blocks)) is None:
        return dict(blocks), {}
    reasons = {path: why for path in blocks if (why := wrong([path])) is not None}
    left = {path: n for path, n in blocks.items() if path not in reasons}
    why = wrong(list(left))
    if why is not None:
        return {}, {**reasons, **dict.fromkeys(left, why)}
    return left, reasons


def _shapes(model: nn.Module, inputs: Inputs) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in returned(run(model, inputs, new_trace(), labelled=False))]
