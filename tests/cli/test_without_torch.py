"""What only looks at experiments loads no torch, and Tab follows what is said before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from torch import nn
from typer.testing import CliRunner

from nas import Experiment, ValueChoice
from nas.cli.commands import app
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random
from nas.testing import PATIENCE

PROBE = """
import json, sys
from typer.testing import CliRunner
from nas.cli import app
for line in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, line)
    print(json.dumps([line, result.exit_code, sorted({"torch", "optuna", "lightning"} & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment in `here`, and two of it in `elsewhere`."""
    folder = tmp_path_factory.mktemp("experiments")
    for directory, name in [("here", "first"), ("elsewhere", "second"), ("elsewhere", "third")]:
        Experiment(
            lambda: nn.Linear(4, ValueChoice([1, 2, 3], label="width")),
            FunctionalEvaluator(lambda model: float(model.out_features)),
            Random(),
            name=name,
            directory=folder / directory,
        ).run(2, progress="silent")
    return folder


@pytest.fixture
def fresh(experiments: Path) -> Callable[..., str]:
    """Runs a text in a fresh interpreter, and yields what it prints."""

    def run(code: str, *arguments: str, **environment: str) -> str:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=experiments,
            env={**outside, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_looking_loads_no_torch(fresh: Callable[..., str]) -> None:
    commands = list(typer.main.get_group(app).commands)
    lines: list[list[str]] = [["--version"], ["--help"], ["-h"], *([name, "--help"] for name in commands)]
    looking = ["list", "show first", "top first", "trials first", "log first 0", "stop first", "report first"]
    looking += ["list --json", "show first --json", "export first", "show frist"]
    lines += [[*line.split(), "-d", "here"] for line in looking]
    told: list[tuple[list[str], int, list[str]]] = [
        json.loads(line) for line in fresh(PROBE, json.dumps(lines)).splitlines()
    ]
    assert [line for line, _, _ in told] == lines
    assert [(line, code) for line, code, _ in told if code] == [(["show", "frist", "-d", "here"], 2)]
    assert [(line, loaded) for line, _, loaded in told if "torch" in loaded or "lightning" in loaded] == []
    helped = [loaded for line, _, loaded in told if not {"-h", "--help", "--version"}.isdisjoint(line)]
    assert helped == [[]] * (3 + len(commands))


COMPLETE = """
import sys
from nas.cli import app
try:
    app(prog_name="nas")
finally:
    assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("line", "environment", "names"),
    [
        ("nas show -d elsewhere ", {}, ["second", "third"]),
        pytest.param("nas show ", {"NAS_DIRECTORY": "elsewhere"}, ["second", "third"], marks=pytest.mark.slow),
        pytest.param("nas top --directory elsewhere t", {}, ["third"], marks=pytest.mark.slow),
        pytest.param("nas resume -d here ", {"NAS_DIRECTORY": "elsewhere"}, ["first"], marks=pytest.mark.slow),
        pytest.param("nas show -d nowhere ", {}, [], marks=pytest.mark.slow),
        pytest.param("nas show ", {}, [], marks=pytest.mark.slow),
    ],
)
def test_tab_follows_what_is_said(
    line: str, environment: dict[str, str], names: list[str], fresh: Callable[..., str]
) -> None:
    bash = {"_NAS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    assert fresh(COMPLETE, **bash, **environment).split() == names


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def inside(experiments: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(experiments)
    for name in ("NAS_DIRECTORY", "NAS_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    return experiments


@pytest.mark.parametrize("line", ["list", "list --json", "show first", "top first", "resume first", "rm first --yes"])
@pytest.mark.parametrize("directory", ["nowhere", "here/first/journal.log"])
def test_a_directory_that_is_not_there_is_an_error(line: str, directory: str, inside: Path) -> None:
    code, output = invoke(*line.split(), "-d", directory)
    assert code == 2
    assert "--directory: there is no such folder of experiments" in output
    assert str(inside / directory) in output


def test_a_directory_of_the_environment_that_is_not_there_is_an_error(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DIRECTORY", "nowhere")
    assert invoke("list")[0] == 2


def test_the_folder_of_one_experiment_is_no_folder_of_several(inside: Path) -> None:
    code, output = invoke("list", "-d", "here/first")
    assert code == 2
    assert f"--directory {inside / 'here'}" in output


def test_a_list_where_there_is_no_folder_yet_is_empty_and_says_so(inside: Path) -> None:
    assert invoke("list") == (0, "There is no folder nas-experiments here; say another by --directory.")


def test_the_version_and_help_by_either_name() -> None:
    import nas

    assert invoke("--version") == (0, f"nas {nas.__version__}")
    assert invoke("-h") == invoke("--help")
    for name, command in vars(typer.main.get_group(app))["commands"].items():
        assert command.name == name
        assert invoke(name, "-h") == invoke(name, "--help")


def test_a_table_of_everything_that_is_there(inside: Path) -> None:
    found: Any = json.loads(CliRunner().invoke(app, ["list", "--json", "-d", "elsewhere"]).stdout)
    assert [each["name"] for each in found] == ["second", "third"]
