"""What is said of an ONNX file once it is written: what it holds, and what it was held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final


@final
@dataclass(frozen=True, kw_only=True)
class OnnxReport:
    """What `to_onnx` wrote, and how near it is to the torch model; printed, it is one line.

    Args:
        path: the file.
        size_bytes: its size, with that of the weights beside it where they exceed what one ONNX file holds (2 GB).
        nodes: how many operations the graph has.
        opset: the version of the ONNX operators.
        dynamic_batch: whether the graph runs with any batch size, or with the example's alone.
        fixed_batch_reason: why it runs with the example's batch size alone; None when it runs with any.
        max_difference: the largest absolute difference between the outputs of the file and of the model that was given,
            on fresh inputs; None when nothing could compare them.
        verified_by: what computed the outputs of the file; None when they were not compared.
        verified_batches: the batch sizes at which they were compared.
        unverified_reason: why they were not compared; None when they were.
        dynamic: input -> dimension -> its name, for each dimension that may have any size.
        outputs: output of the file -> its place in what the model returns: "logits", "1.0", "" for a tensor alone.
        constants: arguments that are no tensors, with their values: these are a fixed part of the file.
    """

    path: Path
    size_bytes: int
    nodes: int
    opset: int
    dynamic_batch: bool
    fixed_batch_reason: str | None
    max_difference: float | None
    verified_by: str | None = "onnxruntime"
    verified_batches: tuple[int, ...] = ()
    unverified_reason: str | None = None
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict, hash=False)
    outputs: Mapping[str, str] = field(default_factory=dict, hash=False)
    constants: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        batch = "dynamic batch" if self.dynamic_batch else f"fixed batch ({self.fixed_batch_reason})"
        others = sorted({name for names in self.dynamic.values() for dim, name in names.items() if dim > 0})
        if others:
            batch += f", dynamic {', '.join(others)}"
        if self.constants:
            batch += ", constant " + ", ".join(f"{name}={value!r}" for name, value in self.constants.items())
        units = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("bytes", 0))
        unit, factor = next(pair for pair in units if self.size_bytes >= pair[1])
        size = f"{self.size_bytes / max(factor, 1):.3g} {unit}"
        nodes = f"{self.nodes} node" + ("" if self.nodes == 1 else "s")
        return f"{self.path.name}: {nodes}, {size}, opset {self.opset}, {batch}, {self._compared}"

    @property
    def _compared(self) -> str:
        if self.max_difference is None:
            return f"not compared with torch ({self.unverified_reason or 'onnxruntime is not installed'})"
        batches = ", ".join(map(str, self.verified_batches))
        where = f"{self.verified_by}, batch {batches}" if batches else self.verified_by
        return f"largest difference to torch {self.max_difference:.1e} ({where})"
