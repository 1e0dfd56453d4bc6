"""Private names of torchmetrics: what a metric has seen so far, to be put back or kept in a checkpoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import Metric


def seen_by(metric: Metric) -> dict[str, Any]:
    """What a metric has gathered since its last reset, as numbers, tensors and lists; a copy."""
    states = {name: _copied(state) for name, state in metric.metric_state.items()}
    return {"states": states, "updates": metric._update_count, "computed": None}


def put_back(metric: Metric, seen: dict[str, Any]) -> None:
    """Lets a metric have seen what `seen_by` found, on the device where the metric is."""
    for name, state in seen["states"].items():
        setattr(metric, name, _copied(state, metric.device))
    metric._update_count = seen["updates"]
    metric._computed = seen["computed"]


def _copied(state: Any, device: Any = None) -> Any:
    if isinstance(state, list):  # an update appends to it, and changes none of its tensors
        return [part if device is None or not isinstance(part, Tensor) else part.to(device) for part in state]
    if not isinstance(state, Tensor):
        return state
    return state.detach().clone() if device is None else state.detach().to(device, copy=True)
