"""The script of the figures of the mixed operations runs."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "mixed_operations.py"


def test_the_figures_are_printed() -> None:
    options = ["--only", "LeNet-like, batch 64", "--sides", "ours", "--repeats", "1"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ours, floor = done.stdout.splitlines()[2:]
    assert re.fullmatch(r"\| LeNet-like, batch 64 \| ours \| [\d.]+ \| 0.00 \| 0.00 \| 1.00 \| \d+ \|", ours)
    assert "floor of ours: arithmetic, bytes" in floor
