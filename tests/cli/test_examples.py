"""Every example is run, resumed, exported and enqueued by the command line."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import nas

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHOUT_AN_EXPERIMENT = {"cifar10.py"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One experiment of an example, in a small setting."""

    file: str
    arguments: tuple[str, ...] = ()
    name: str = ""
    """Of the experiment, where the file makes several."""
    trials: int
    """After the run."""
    grows: bool = True
    """Whether there is another trial to be had."""
    formatter: str = "--code"


CASES = [
    Example(file="repeat.py", trials=5, grows=False),
    Example(file="arithmetic.py", trials=27, grows=False),
    Example(file="input_choice.py", trials=6, grows=False),
    Example(file="pipeline.py", arguments=("4",), trials=4, formatter="--json"),
    Example(file="own_strategy.py", trials=60),
    Example(file="resnet18.py", trials=6),
    Example(file="digits.py", arguments=("--smoke",), trials=3, formatter="--onnx"),
    Example(file="lenet_cifar10.py", arguments=("--digits", "--trials", "2"), trials=2),
    Example(file="lightning_digits.py", arguments=("--smoke",), trials=3),
    Example(file="language_model.py", arguments=("--smoke",), trials=3),
    Example(file="pareto_digits.py", arguments=("--smoke", "--name", "front"), trials=6),
    Example(file="darts_cifar10.py", arguments=("--smoke",), trials=1, grows=False),
    Example(file="enas_cifar10.py", arguments=("--smoke",), trials=1, grows=False),
    Example(
        file="one_shot_digits.py", arguments=("--smoke", "--name", "mine"), name="mine-ENAS", trials=2, grows=False
    ),
    Example(file="timm_network.py", arguments=("2", "1"), trials=2, formatter="--onnx"),
    Example(file="hugging_face_encoder.py", arguments=("2", "1"), trials=2, formatter="--onnx"),
]


def test_no_example_is_left_out() -> None:
    assert {case.file for case in CASES} | WITHOUT_AN_EXPERIMENT == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DIRECTORY", "kept")
    monkeypatch.delenv("NAS_STORAGE", raising=False)


def command(*arguments: str, code: int = 0) -> str:
    from nas.cli import app

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def as_json(*arguments: str) -> Any:
    return json.loads(command(*arguments, "--json"))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name or case.file, marks=() if case.file == "repeat.py" else pytest.mark.slow)
        for case in CASES
    ],
)
def test_an_example_by_the_command_line(case: Example) -> None:
    file = str(EXAMPLES / case.file)
    command("run", f"{file}:{case.name}" if case.name else file, "--", *case.arguments)
    (shown,) = as_json("list")
    name = shown["name"]
    assert (shown["finished"], shown["trials"]["FAILED"]) == (case.trials, 0)
    assert shown["arguments"] == list(case.arguments)
    command("resume", "--yes", name, "-n", str(case.trials + case.grows))
    assert as_json("show", name)["finished"] == case.trials + case.grows
    Path("sample.json").write_text(command("export", name))
    nas.load_sample("sample.json")
    assert "It has been tried" in command("enqueue", "--yes", name, "sample.json")
    command("export", "--yes", name, case.formatter, "-o", "out")
    assert list(Path("out").iterdir())
