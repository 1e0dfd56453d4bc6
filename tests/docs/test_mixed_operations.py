"""The script of the figures of the mixed operations runs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "docs" / "mixed_operations.py"
OF_A_DEVICE = SCRIPT.with_name("device_figures.py")


def test_the_figures_are_printed(run_script: Callable[..., str]) -> None:
    options = ["--only", "LeNet-like, batch 64", "--sides", "ours", "--repeats", "1"]
    out = run_script(SCRIPT, *options)
    ours, floor = out.splitlines()[2:]
    assert re.fullmatch(r"\| LeNet-like, batch 64 \| ours \| [\d.]+ \| 0.00 \| 0.00 \| 1.00 \| \d+ \|", ours)
    assert "floor of ours: arithmetic, bytes" in floor


def test_the_figures_of_a_device_can_be_taken(run_script: Callable[..., str]) -> None:
    rows = [line.split("|")[1:-1] for line in run_script(OF_A_DEVICE, "--small").splitlines()[2:]]
    assert [row[0].strip() for row in rows] == [
        "a step without recording, of the plain loop",
        "a step by default, of the plain loop",
        "a step by default in bfloat16, of the plain loop in float32",
        "a step of DARTS in an Experiment, of the step by default",
        "LeNet-like, a step by default, of the plain loop",
        "a step of a path, of its architecture alone",
        "3 judged paths, of their plain forward passes",
    ]
    assert all(float(row[1]) > 0 for row in rows)
