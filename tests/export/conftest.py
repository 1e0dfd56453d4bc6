"""Exports to ONNX without reading the translations again and again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def translations_are_read_once() -> Iterator[None]:
    """torch parses the source of all its translations to ONNX in each export, which takes longer than the export."""
    from torch.onnx._internal.exporter import _registration as registries

    kind = registries.ONNXRegistry
    read = cache(kind.from_torchlib)

    def registry(*arguments: Any, **options: Any) -> Any:
        found = copy.copy(read(*arguments, **options))
        found.functions = {name: list(each) for name, each in found.functions.items()}
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "from_torchlib", staticmethod(registry))
        yield
