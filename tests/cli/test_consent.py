"""The file that an experiment's notes name is run where somebody agrees, and never out of the experiment's folder."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import Result
from typer.testing import CliRunner

from nas import NasValueError
from nas.cli.commands import app
from nas.cli.consent import lies_in_an_experiment, read_noted
from nas.testing import PATIENCE

pytestmark = pytest.mark.long

SEARCH = """
import os, sys
from pathlib import Path
import torch
from torch import nn
from nas import Experiment, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

with open(os.environ["RAN"], "a") as ran:
    print(__name__, *sys.argv[1:], file=ran)

def value(model):
    model(torch.zeros(2, 4))
    return float(model[0].out_features)

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, ValueChoice(list(range(1, 9)), label="width")))

if __name__ == "__main__":
    experiment = Experiment(Net, FunctionalEvaluator(value), Random(),
                            name="first", directory=os.environ["KEPT"], resume="auto")
    experiment.run(2, progress="silent")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment in `kept`, made by search.py beside it; what has run since is in `ran`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setenv("KEPT", str(tmp_path / "kept"))
    monkeypatch.delenv("NAS_STORAGE", raising=False)
    (tmp_path / "search.py").write_text(SEARCH)
    (tmp_path / "sample.json").write_text('{"width": 7}')
    nas("run", "search.py", "--", "--as", "noted")
    (tmp_path / "ran").unlink()
    return tmp_path


def nas(*arguments: str, code: int = 0) -> Result:
    more = [] if arguments[0] == "run" else ["-d", "kept"]
    result = CliRunner().invoke(app, [arguments[0], *more, *arguments[1:]])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def note(folder: Path, **changed: Any) -> None:
    """Writes other notes of the run, as a stranger would."""
    (folder / "kept/first/journal.log.lock").unlink(missing_ok=True)  # A lock that is held, to Optuna.
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "kept/first/journal.log"))
    study = optuna.load_study(study_name="first", storage=optuna.storages.JournalStorage(journal))
    study.set_user_attr("nas:run", {**study.user_attrs["nas:run"], **changed})


RUNNING = [
    ("resume", "first", "-n", "3"),
    ("enqueue", "first", "sample.json"),
    ("export", "first", "--onnx"),
    ("export", "first", "--code"),
]
"""The commands that make an experiment again by the file that its notes name."""
LOOKING = [
    ("list",),
    ("show", "first"),
    ("top", "first"),
    ("trials", "first"),
    ("log", "first", "0"),
    ("report", "first"),
    ("export", "first"),
    ("stop", "first"),
    ("set", "first", "-n", "5"),
    ("retry", "first"),
    ("rm", "--yes", "first"),
]
"""Those that run nothing, as docs/security.md says; deleting it is the last one."""


def test_nobody_is_asked_and_nothing_is_run_without_a_terminal(folder: Path) -> None:
    for command in RUNNING:
        message = nas(*command, code=2).stderr
        assert f"{folder / 'search.py'} --as noted" in message, "it says what would be run"
        assert f"nas {command[0]} first --yes" in message
    for command in LOOKING:
        nas(*command)
    assert not (folder / "ran").exists()


def test_it_is_run_with_a_yes_and_said(folder: Path) -> None:
    for command in RUNNING:
        assert f"  {folder / 'search.py'} --as noted\n" in nas(*command, "--yes").stderr
    assert "__main__ --as noted" in (folder / "ran").read_text()


def test_a_file_that_the_user_names_needs_none(folder: Path) -> None:
    shutil.move("search.py", "mine.py")
    assert "--as noted" in nas("enqueue", "first", "sample.json", "--file", "mine.py").stderr
    assert (folder / "ran").read_text().splitlines()[0] == "__main__ --as noted"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "code"),
    [("y\n", 0), *(pytest.param(no, 1, marks=pytest.mark.slow) for no in ("n\n", "\n"))],
)
def test_on_a_terminal_it_is_asked(answer: str, code: int, folder: Path) -> None:
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "nas", "enqueue", "first", "sample.json", "-d", "kept"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.write(mine, answer.encode())
        assert process.wait(PATIENCE) == code
        said = os.read(mine, 100_000).decode()
    os.close(mine)
    os.close(theirs)
    assert str(folder / "search.py") in said
    assert "Run it? [y/N]" in said
    assert (folder / "ran").exists() == (code == 0)


def test_what_came_with_the_experiment_is_not_run(folder: Path) -> None:
    evil = folder / "kept/first/evil.py"
    evil.write_text(SEARCH)
    (folder / "link.py").symlink_to(evil)
    (folder / "kept/first/link.py").symlink_to(folder / "search.py")
    (folder / "also").symlink_to(folder / "kept/first")
    (folder / "kept/second/trials").mkdir(parents=True)
    (folder / "kept/second/journal.log").write_text("")
    shutil.copy(evil, folder / "kept/second/trials")
    beside = [folder / "link.py", folder / "kept/first/link.py", folder / "also/evil.py"]
    for path in (evil, *beside, folder / "kept/x/../first/evil.py", folder / "kept/second/trials/evil.py"):
        for name in ("", ":experiment"):
            note(folder, file=f"{path}{name}")
            for command in RUNNING:
                assert "lies in the folder of an experiment" in nas(*command, "--yes", code=2).stderr
    assert not (folder / "ran").exists()
    nas("enqueue", "first", "sample.json", "--file", str(evil))
    assert (folder / "ran").exists(), "the user has named it himself"


@pytest.mark.parametrize(
    ("notes", "rule"),
    [
        ({"file": "search.py"}, "only where its whole path is noted"),
        ({"file": "~/search.py"}, "only where its whole path is noted"),
        ({"file": "../search.py:experiment"}, "only where its whole path is noted"),
        ({"file": ["search.py"]}, "by texts"),
        ({"file": 3}, "by texts"),
        ({"file": "/a\0b.py"}, "by texts"),
        ({"file": None}, "it is not noted which file"),
        ({"arguments": "rm"}, "by texts"),
        ({"arguments": [1]}, "by texts"),
        ({"module": "os"}, "the noted module must be the noted file"),
        ({"module": "..search"}, "the noted module must be the noted file"),
        ({"module": "search; evil"}, "the noted module must be the noted file"),
        ({"module": "evil.search"}, "the noted module must be the noted file"),
        ({"module": 1}, "by texts"),
    ],
)
def test_notes_that_make_no_sense_are_refused(notes: dict[str, Any], rule: str, tmp_path: Path) -> None:
    good = {"file": str(tmp_path / "search.py"), "arguments": [], "module": None}
    assert read_noted("first", tmp_path / "first", good).target == good["file"]
    with pytest.raises(NasValueError, match=rule):
        read_noted("first", tmp_path / "first", good | notes)


def test_a_module_of_a_package_is_said_to_be_one(tmp_path: Path) -> None:
    notes = {"file": str(tmp_path / "package/search.py"), "module": "package.search", "arguments": ["--key", "a b"]}
    said = str(read_noted("first", tmp_path / "first", notes))
    assert said.endswith("search.py --key 'a b' (as the module package.search, with the packages that it lies in)")


def test_passwords_among_the_arguments_are_not_said(folder: Path) -> None:
    note(folder, arguments=["--db", "postgresql://me:sec@ret@host/base"])
    for command in (*RUNNING, ("show", "first"), ("show", "first", "--json"), ("list", "--json")):
        found = nas(*command, code=2 if command in RUNNING else 0)
        assert "ret@" not in found.output
        assert ("***@host" in found.output) == (command[0] != "list" or "--json" in command)
    assert not lies_in_an_experiment(folder / "search.py", folder / "kept/first")


def test_no_module_is_taken_from_the_experiments_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "kept/first/helper_of_mine.py").write_text("raise SystemExit('it was taken')")
    (folder / "search.py").write_text("import sys\nsys.path_seen = [*sys.path]\n" + SEARCH)
    monkeypatch.chdir(folder / "kept/first")
    sys.path[:0] = ["", ".", str(folder / "kept/first"), str(folder / "kept/first/trials"), "../first"]
    before = [*sys.path]
    result = CliRunner().invoke(app, ["enqueue", "--yes", "first", "../../sample.json", "-d", ".."])
    assert result.exit_code == 0, result.output
    seen: list[str] = sys.__dict__.pop("path_seen")
    assert not [path for path in seen if os.path.realpath(path).startswith(str(folder / "kept/first"))]
    assert seen[0] == str(folder)
    assert sys.path == before


def test_the_command_takes_none_from_the_working_directory(folder: Path) -> None:
    (folder / "typer.py").write_text("raise SystemExit('it was taken')")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-m", "nas", "--version"], env=environment, check=True, timeout=PATIENCE)
