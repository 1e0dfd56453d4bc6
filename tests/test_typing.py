"""What a type checker sees of the package, from any folder."""

import os
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]

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

BAD = """import nas.oneshot
DigitNet('ten')
width: str = ValueChoice([16, 32])
nas.ValueChoyce([16, 32])
nas.oneshot.DARTSS()
"""


def mypy(*arguments: str, cwd: Path) -> list[str]:
    """What mypy prints, run in a folder that is not the repository."""
    # With the repository's cache: torch alone takes half a minute.
    options = ("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"), "--strict")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")} | path(),
    )
    return (done.stdout + done.stderr).splitlines()


def path() -> dict[str, str]:
    """Where mypy is to look; nowhere where the package is installed, as then it must find it by itself."""
    installed = list(Distribution.discover(name="torch-nas", path=[p for p in sys.path if "site-packages" in p]))
    return {} if installed else {"MYPYPATH": str(ROOT)}


@pytest.mark.slow
def test_types_that_a_user_sees(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(GOOD + BAD)
    lines = mypy("good.py", "bad.py", cwd=tmp_path)
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == len(BAD.splitlines()) - 1, lines
    assert all(line.startswith("bad.py") for line in errors)


@pytest.mark.slow
def test_every_public_door_is_found_from_another_folder(tmp_path: Path) -> None:
    code = "import nas.evaluators, nas.model_zoo, nas.oneshot, nas.strategies, nas.testing\n"
    lines = mypy("-c", code + "reveal_type(nas.strategies.Random)", cwd=tmp_path)
    assert any("type[nas.strategies.random.Random]" in line or "def " in line for line in lines), lines
    assert not [line for line in lines if "error" in line and "no issues" not in line], lines
