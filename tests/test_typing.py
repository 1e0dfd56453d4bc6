"""What a type checker sees of the choices."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

GOOD = """
from typing import assert_type
from torch import nn
from nas import Integer, Real, ValueChoice, model_space

assert_type(ValueChoice([16, 32]), int)
assert_type(ValueChoice(["a", "b"]), str)
assert_type(ValueChoice(Integer(1, 3)), int)
assert_type(ValueChoice(Real(0, 1)), float)

@model_space
class DigitNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()

assert_type(DigitNet(10), DigitNet)
"""


def test_types_that_a_user_sees(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(GOOD + "DigitNet('ten')\nwidth: str = ValueChoice([16, 32])\n")
    done = subprocess.run(
        # With the repository's cache: torch alone takes half a minute.
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            ROOT / "pyproject.toml",
            "--cache-dir",
            ROOT / ".mypy_cache",
            "--strict",
            "good.py",
            "bad.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    lines = done.stdout.splitlines()
    errors = [line for line in lines if ": error:" in line and line.startswith(("good.py", "bad.py"))]
    assert len(errors) == 2, done.stdout
    assert all(line.startswith("bad.py") for line in errors)
