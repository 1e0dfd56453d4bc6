"""What this package takes for granted of the private names of torchmetrics."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from nas._compat.torchmetrics_internals import put_back, seen_by

SCORES = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24).reshape(3, 8) % 4
KINDS: dict[str, tuple[Callable[[], Metric], Callable[[int], tuple[Any, ...]]]] = {
    "sums": (lambda: MulticlassAccuracy(4), lambda batch: (SCORES[batch], LABELS[batch])),
    "lists": (BinaryAUROC, lambda batch: (SCORES[batch, :, 0], LABELS[batch] % 2)),
    "mean": (MeanMetric, lambda batch: (SCORES[batch],)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_goes_on_from_what_it_has_seen(kind: str) -> None:
    make, batch = KINDS[kind]
    whole, metric, other = make(), make(), make()
    for number in range(3):
        whole.update(*batch(number))
    metric.update(*batch(0))
    metric.update(*batch(1))
    seen = seen_by(metric)
    metric.update(*batch(0))
    put_back(other, seen)
    other.update(*batch(2))
    assert other.compute() == whole.compute()
    put_back(metric, seen)
    metric.update(*batch(2))
    assert metric.compute() == whole.compute()
    assert metric.update_count == 3
