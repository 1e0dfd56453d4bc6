"""The script of the figures of the mixed operations runs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "docs" / "mixed_operations.py"


def test_the_figures_are_printed(run_script: Callable[..., str]) -> None:
    options = ["--only", "LeNet-like, batch 64", "--sides", "ours", "--repeats", "1"]
    out = run_script(SCRIPT, *options)
    ours, floor = out.splitlines()[2:]
    assert re.fullmatch(r"\| LeNet-like, batch 64 \| ours \| [\d.]+ \| 0.00 \| 0.00 \| 1.00 \| \d+ \|", ours)
    assert "floor of ours: arithmetic, bytes" in floor
