"""`import nas` stays light, and so does all that is in it: what is heavy or optional is loaded on first use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HEAVY = (
    "aiohttp",
    "fastapi",
    "lightning",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "plotly",
    "pytorch_lightning",
    "ray",
    "rich",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "tianshou",
    "torchvision",
    "typer",
)

MOST_OTHER_MODULES = 60
"""Beyond torch's own and the package's: a handful from the standard library."""

PROBE = """
import json, sys
import torch
before = set(sys.modules)
import nas
light = sorted(set(sys.modules) - before)
for name in nas.__all__:
    getattr(nas, name)
loaded = sorted(set(sys.modules) - before)
import nas.evaluators
assert not hasattr(nas.evaluators, "Clasification")
print(json.dumps([light, loaded, "pytorch_lightning" in sys.modules]))
"""


@pytest.fixture(scope="module")
def probed() -> tuple[list[str], list[str], bool]:
    """What a fresh interpreter tells: what `import nas` loads, what all names in it do, whether Lightning is there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    light, modules, lightning = json.loads(done.stdout.splitlines()[-1])
    return light, modules, lightning


@pytest.fixture
def loaded(probed: tuple[list[str], list[str], bool]) -> list[str]:
    """The modules that all names of `nas` load beyond those that `import torch` loads."""
    return probed[1]


@pytest.mark.parametrize("library", HEAVY)
def test_import_leaves_heavy_library_alone(library: str, loaded: list[str]) -> None:
    assert [name for name in loaded if name == library or name.startswith(library + ".")] == []


def test_import_leaves_the_other_folders_alone(loaded: list[str]) -> None:
    folders = ("nas.strategies", "nas.oneshot", "nas.evaluators", "nas.model_zoo", "nas.testing")
    assert [name for name in loaded if name.startswith(folders)] == []


def test_import_loads_few_other_modules(loaded: list[str]) -> None:
    others = [name for name in loaded if name.split(".")[0] != "nas"]
    assert len(others) <= MOST_OTHER_MODULES, others


def test_the_evaluators_load_lightning_when_it_is_asked_for(probed: tuple[list[str], list[str], bool]) -> None:
    assert not probed[2]


def test_names_are_loaded_when_they_are_asked_for(probed: tuple[list[str], list[str], bool]) -> None:
    assert set(probed[0]) <= {"nas", "nas.errors", "nas.late", "nas.plain_text", "nas.version", "difflib"}
