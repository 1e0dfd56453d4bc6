"""What supervised training is measured by: means over an epoch, weighted by what counted in each batch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from nas.errors import NasValueError, explain

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(prediction, target) -> the mean loss of a batch; a loss module of torch, say."""
MetricLike: TypeAlias = Metric | Callable[[Tensor, Tensor], Tensor]
"""A torchmetrics Metric, or a function (prediction, target) -> a mean, or one number for each sample."""

IGNORED = -100
"""The target that losses of torch leave out where they are not told another one."""


def ignored_by(criterion: object) -> int | None:
    """The target that a criterion leaves out, its `ignore_index`; None where it has no such argument."""
    bound = criterion.keywords if isinstance(criterion, functools.partial) else {}
    inner = criterion.func if isinstance(criterion, functools.partial) else criterion
    usual = inspect.signature(inner).parameters.get("ignore_index") if isinstance(inner, FunctionType) else None
    default = None if usual is None else usual.default
    found: object = bound.get("ignore_index", getattr(inner, "ignore_index", default))
    return found if isinstance(found, int) else None


@final
class MeanOf(Metric):
    """The mean of a function over all samples of an epoch, on all devices.

    Args:
        function: (prediction, target) -> one number for each sample, or the mean over those it was given.
        ignored: the target of what the function leaves out of its mean; None where it leaves nothing out.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], ignored: int | None = None) -> None:
        super().__init__()
        self.function, self.ignored = function, ignored
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch."""
        values = torch.as_tensor(self.function(prediction, target))
        weight: Any = len(target)
        total = values.float().mean() * weight
        if self.ignored is not None and isinstance(target, Tensor) and target.numel():
            share = (target != self.ignored).float().mean()
            # Where nothing is left, the mean is none.
            weight, total = weight * share, torch.where(share > 0, total * share, torch.zeros_like(total))
        # Not in place: Lightning validates in inference mode, a loop of one's own may not.
        self.total = self.total + total
        self.count = self.count + weight

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count


@final
class Accuracy(Metric):
    """The share of right answers over all that counts in an epoch, on all devices.

    - scores (batch, classes, ...) and targets (batch, ...): the class of the highest score;
    - scores (batch,) or (batch, 1, ...) for one of two classes: whether they are above 0;
    - scores and targets (batch, classes, ...) where each target is one class, or shares of classes that sum to 1: the
      class of the highest score against that of the highest share;
    - scores and targets (batch, labels, ...) where any number of labels may apply: each label for itself, whether its
      score is above 0. These are told from the former by a target, anywhere in the epoch, that does not sum to 1.

    Args:
        ignored: targets of this value do not count.

    Example:
        >>> measure = Accuracy()
        >>> measure.update(torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), torch.tensor([0, 1, 1]))
        >>> measure.update(torch.tensor([[2.0, 1.0]]), torch.tensor([-100]))
        >>> round(float(measure.compute()), 3)
        0.667
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    right: Tensor
    counted: Tensor
    right_labels: Tensor
    labels: Tensor
    several: Tensor

    def __init__(self, ignored: int = IGNORED) -> None:
        super().__init__()
        self.ignored = ignored
        for name in ("right", "counted", "right_labels", "labels"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("several", torch.tensor(0), dist_reduce_fx="max")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Raises:
            NasValueError: the shapes do not belong together.
        """
        if scores.ndim == 0 or len(scores) != len(target):
            raise self._shapes(scores, target)
        if scores.ndim == 1 or (scores.shape[1] == 1 and scores.numel() == target.numel()):
            if scores.numel() != target.numel():
                raise self._shapes(scores, target)
            counts = target != self.ignored
            self._add((scores > 0).reshape(target.shape) == (target > 0.5), counts)
        elif scores.shape == target.shape:
            self._add_shares(scores, target)
        else:
            whole = (scores.shape[0], *scores.shape[2:])
            if tuple(target.shape) not in (whole, (whole[0], 1, *whole[1:])):
                raise self._shapes(scores, target)
            target = target.reshape(whole)
            self._add(scores.argmax(1) == target, target != self.ignored)

    def compute(self) -> Tensor:
        """The share; NaN where nothing counted."""
        # Decided where the numbers are: a device is not waited for.
        return torch.where(self.several > 0, self.right_labels / self.labels, self.right / self.counted)

    def _add(self, right: Tensor, counts: Tensor) -> None:
        # Not in place: Lightning validates in inference mode, a loop of one's own may not.
        self.right = self.right + (right & counts).sum()
        self.counted = self.counted + counts.sum()

    def _add_shares(self, scores: Tensor, target: Tensor) -> None:
        counts = target != self.ignored
        shares = torch.where(counts, target, torch.zeros_like(target)).float()
        # Half precision sums to 1 as well as it can.
        apart = ((shares.sum(1) - 1).abs() > 0.01) & counts.any(1)
        self._add(scores.argmax(1) == shares.argmax(1), counts.any(1))
        self.right_labels = self.right_labels + (((scores > 0) == (target > 0.5)) & counts).sum()
        self.labels = self.labels + counts.sum()
        self.several = torch.maximum(self.several, apart.any().to(self.several.dtype))

    def _shapes(self, scores: Tensor, target: Tensor) -> NasValueError:
        return NasValueError(
            explain(
                "accuracy is that of scores (batch, classes, ...) for targets (batch, ...), or of one shape",
                got=f"scores {tuple(scores.shape)} for targets {tuple(target.shape)}",
                mend="let the model or the dataset return these, or give metrics=... of your own",
            )
        )


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of the squared differences."""
    return nn.functional.mse_loss(prediction.float(), target.float())
