"""Looking at experiments writes nothing: no file is made, mended or touched; a folder that cannot be written does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

from nas import Experiment, ValueChoice
from nas.cli.commands import app
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

pytestmark = pytest.mark.long

LOOKS = """
import json, os, sys

folder = os.path.realpath(sys.argv[1])
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.utime", "os.link", "os.symlink",
           "os.chmod", "shutil.rmtree"}

def watch(event, given):
    if event == "open" and isinstance(given[0], (str, bytes)) and given[2] & WRITING or event in CHANGES:
        path = os.path.realpath(os.fsdecode(given[0]))
        if path.startswith(folder):
            os.write(2, f"{event} of {path}".encode())
            os._exit(77)

sys.addaudithook(watch)
for arguments in json.loads(sys.argv[2]):
    if arguments[0] != "load":
        from nas.cli.commands import app

        app(arguments, standalone_mode=False)
        continue
    sys.path.insert(0, sys.argv[3])
    from test_looking import load, Experiment

    results = Experiment.load(arguments[1], storage=arguments[2])
    print(results, results.best_trial, results.top(3))
    found = load(arguments[1], arguments[2])
    assert len(found.trials) == 3, found.trials
"""
COMMANDS = [["list"], ["show", "e"], ["top", "e"], ["trials", "e"], ["log", "e", "0"], ["list", "--json"]]


def space() -> nn.Module:
    return nn.Linear(3, ValueChoice(list(range(1, 30)), label="width"))


def width(model: nn.Linear) -> float:
    return float(model.out_features)


def make(folder: Path, storage: str | None) -> Experiment:
    return Experiment(
        space, FunctionalEvaluator(width), Random(), name="e", directory=folder, storage=storage, resume=True
    )


def load(folder: Path, storage: str | None) -> Experiment:
    return Experiment.load(folder, space, FunctionalEvaluator(width), Random(), storage=storage)


def tree(folder: Path) -> dict[str, Any]:
    """All that there is, and when it was changed; of folders too."""
    found = {}
    for place, _, files in os.walk(folder):
        for path in (place, *(os.path.join(place, file) for file in files)):
            told = os.lstat(path)
            found[path] = (told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_mode)
    return found


def looks(folder: Path, storage: str | None) -> Iterator[list[str]]:
    at = ["-d", str(folder)] + ([] if storage is None else ["--storage", storage])
    yield from ([*command, *at] for command in COMMANDS)
    yield ["load", str(folder / "e"), storage]  # type: ignore[list-item]  # None, in JSON


@pytest.fixture(
    params=["journal", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("torn journal", "SQLite"))]
)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str | None]:
    """A folder of experiments, and the URL of their storage."""
    folder = tmp_path / "kept"
    folder.mkdir()
    storage = f"sqlite:///{folder}/all 100%.db" if request.param == "SQLite" else None
    make(folder, storage).run(3, progress="silent")
    (folder / "e" / "trials" / "0" / "log.txt").write_text("what it printed\n")
    if request.param == "torn journal":
        with (folder / "e" / "journal.log").open("ab") as file:
            file.write(b'{"op_code":6,"tri')
    return folder, storage


def test_no_look_opens_anything_to_write(kept: tuple[Path, str | None]) -> None:
    folder, storage = kept
    before = tree(folder)
    script = folder.parent / "looks.py"
    script.write_text(LOOKS)
    given = [str(folder), json.dumps([*looks(folder, storage)]), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, str(script), *given], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert tree(folder) == before


def test_a_loaded_experiment_writes_when_it_is_to(kept: tuple[Path, str | None]) -> None:
    folder, storage = kept
    loaded = load(folder / "e", storage)
    before = tree(folder)
    assert len(loaded.trials) == 3
    assert tree(folder) == before
    assert loaded.enqueue({"width": 7})
    loaded.set(max_trials=5)
    loaded.run(5, progress="silent")
    assert [trial.sample["width"] for trial in loaded.trials][3] == 7
    assert len(Experiment.load(folder / "e", storage=storage).trials) == 5


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Shows a folder at another place, where nobody can write, root neither."""
    place = tmp_path / "read-only"
    place.mkdir()

    def mount(folder: Path) -> Path:
        for options in (["--bind"], ["-o", "remount,bind,ro"]):
            done = subprocess.run(["mount", *options, folder, place], capture_output=True, check=False)
            if done.returncode:
                pytest.skip("only who may mount can make a folder that nobody can write in")
        return place

    yield mount
    subprocess.run(["umount", "-l", place], capture_output=True, check=False)


def test_a_folder_that_cannot_be_written_is_looked_at(
    kept: tuple[Path, str | None], read_only: Callable[[Path], Path]
) -> None:
    folder, storage = kept
    place = read_only(folder)
    url = None if storage is None else storage.replace(str(folder), str(place))
    with pytest.raises(OSError, match="[Rr]ead-only"):
        (place / "new").touch()
    for arguments in looks(place, url):
        if arguments[0] != "load":
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, (arguments, result.output, result.exception)
    loaded = load(place / "e", url)
    assert len(loaded.trials) == 3
    with pytest.raises(Exception, match=r"[Rr]ead-only|readonly") as raised:
        loaded.run(5, progress="silent")
    assert isinstance(raised.value, RuntimeError), "an ExperimentError"


def test_a_journal_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, None).run(1, progress="silent")
    (tmp_path / "mine.txt").write_text("one line without an end")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal.log").symlink_to(tmp_path / "mine.txt")
    shutil.copytree(tmp_path / "e", tmp_path / "text")
    (tmp_path / "text" / "journal.log").write_text("another line without an end")
    for command in (["list"], ["show", "other"], ["show", "text"], ["stop", "other"], ["stop", "text"]):
        CliRunner().invoke(app, [*command, "-d", str(tmp_path)])
    assert (tmp_path / "mine.txt").read_text() == "one line without an end"
    assert (tmp_path / "text" / "journal.log").read_text() == "another line without an end"
