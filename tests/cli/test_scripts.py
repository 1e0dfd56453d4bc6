"""Files as people write them, opened by the command line: it runs them as scripts, and takes over a `run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from nas.cli.commands import app
from nas.testing import PATIENCE

pytestmark = pytest.mark.long

PARTS = """
import argparse, datetime, sys
import torch
from torch import nn
from nas import Experiment, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

class Own(Random):
    pass

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, ValueChoice(list(range(1, 9)), label="width")))

def train(model):
    model(torch.zeros(2, 4))
    return model[0].out_features

def make(name, **more):
    return Experiment(Net, FunctionalEvaluator(train), Random(), name=name, **more)
"""
MAIN = """
def main():
    experiment = make("first")
    experiment.run(3, progress="silent")
    print("the best is", experiment.best_trial.value)

if __name__ == "__main__":
    main()
"""
SEVERAL = """
if __name__ == "__main__":
    for experiment in [make("first"), make("second")]:
        experiment.run(3, progress="silent")
"""
ONE_AFTER_THE_OTHER = """
def main():
    first = make("first")
    first.run(3, progress="silent")
    print("the best is", first.best_trial.value)
    second = make("second")
    second.run(4, progress="silent")

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("NAS_DIRECTORY", "NAS_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(folder: Path, text: str, *, name: str = "search.py") -> None:
    (folder / name).write_text(PARTS + text)


def nas(*arguments: str, code: int = 0) -> Result:
    interpreter = sys.modules["__main__"], sys.argv, [*sys.path]
    result = CliRunner().invoke(app, list(arguments))
    assert (sys.modules["__main__"], sys.argv, sys.path) == interpreter
    assert result.exit_code == code, (result.output, result.exception)
    return result


def as_json(*arguments: str) -> Any:
    return json.loads(nas(*arguments, "--json").stdout)


def finished() -> dict[str, int]:
    return {found["name"]: found["finished"] for found in as_json("list") if found["state"] != "empty"}


def python(folder: Path, *arguments: str) -> str:
    """What a script prints that is run as usual."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_experiment_in_main(folder: Path) -> None:
    write(folder, MAIN)
    assert nas("run", "search.py").stdout.startswith("the best is ")
    nas("resume", "--yes", "first", "-n", "5")
    assert finished() == {"first": 5}
    (folder / "sample.json").write_text('{"width": 8}')
    nas("enqueue", "--yes", "first", "sample.json")
    nas("resume", "--yes", "first", "-n", "8")
    assert {"width": 8} in [trial["sample"] for trial in as_json("trials", "first")]
    # The export of changed code is no consent to it.
    write(folder, MAIN.replace("def main", "def train(model):\n    return 0\n\ndef main"))
    code = Path(nas("export", "--yes", "first", "--code").stdout.strip())
    assert "class Net(" in code.read_text()
    assert as_json("show", "first")["changes"] == []
    assert "code of train: changed" in nas("resume", "--yes", "first", "-n", "9", code=1).stderr


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("make('first')\n", id="only made"),
        pytest.param("if __name__ == '__main__':\n    make('first').run(3)\n    sys.exit()\n", id="exits"),
        pytest.param("def main():\n    make('first').run(3)\nsys.exit(main())\n", id="exits with what main returns"),
        pytest.param("try:\n    make('first').run(3)\nexcept Exception:\n    pass\n", id="catches everything"),
    ],
)
def test_however_it_is_written(text: str, folder: Path) -> None:
    write(folder, text)
    nas("run", "search.py", "-n", "2")
    assert finished() == {"first": 2}
    nas("resume", "--yes", "first", "-n", "3")
    assert finished() == {"first": 3}


def test_one_of_several_is_run_by_its_name(folder: Path) -> None:
    write(folder, SEVERAL)
    message = nas("run", "search.py", code=2).stderr
    assert "['first', 'second']" in message
    assert "search.py:first" in message
    assert finished() == {}
    nas("run", "search.py:second")
    assert finished() == {"second": 3}
    nas("resume", "--yes", "second", "-n", "4")
    nas("run", "search.py:first", "-n", "2")
    assert finished() == {"first": 2, "second": 4}
    assert "did you mean 'second'?" in nas("run", "search.py:secnd", code=2).stderr
    assert "exists already" in nas("run", "search.py:second", code=1).stderr


def test_what_needs_the_results_of_another_says_so(folder: Path) -> None:
    write(folder, ONE_AFTER_THE_OTHER)
    message = " ".join(nas("run", "search.py:second", code=1).stderr.split())
    assert "fails before it runs 'second' (ExperimentError: no trial is COMPLETE yet" in message
    assert "'first'. To mend: run these first, or make all experiments before the first one is run" in message
    assert finished() == {}
    # Without a name the first one is run; that there is another one is seen then, and is said.
    assert "['first', 'second']" in nas("run", "search.py", code=2).stderr
    nas("run", "search.py:second")
    assert finished() == {"first": 3, "second": 4}


def test_a_limit_of_the_command_does_where_the_file_does_not_come_to_its_own(folder: Path) -> None:
    write(
        folder,
        "experiments = [make('first'), make('second')]\n"
        "for experiment in experiments:\n"
        "    experiment.run(3)\n"
        "    print('the best is', experiment.best_trial.value)\n",
    )
    assert "or say --max-trials" in nas("run", "search.py:second", code=1).stderr
    nas("run", "search.py:second", "-n", "2")
    nas("resume", "--yes", "second", "-n", "3")
    nas("resume", "--yes", "second")
    assert finished() == {"second": 3}


def test_several_by_variables_and_functions(folder: Path) -> None:
    write(folder, "a, b = make('first'), make('second')\ndef third():\n    return make('third')\n")
    nas("run", "search.py:b", "-n", "2")
    nas("run", "search.py:a", "-n", "1")
    nas("run", "search.py:third", "-n", "3")
    assert finished() == {"first": 1, "second": 2, "third": 3}
    assert "exists already" in nas("run", "search.py:b", "-n", "4", code=1).stderr
    nas("resume", "--yes", "third", "-n", "4")
    nas("resume", "--yes", "second", "-n", "4")
    assert finished() == {"first": 1, "second": 4, "third": 4}


def test_a_function_that_runs_it(folder: Path) -> None:
    write(folder, MAIN)
    nas("run", "search.py:main", "-n", "2")
    assert finished() == {"first": 2}
    nas("resume", "--yes", "first")
    assert finished() == {"first": 2}


def test_what_follows_is_run_unless_the_search_ended_early(folder: Path) -> None:
    write(folder, MAIN.replace("3,", "3, timeout=1e-9,"))
    assert "the best is" not in nas("run", "search.py", code=3).stdout
    assert (
        "the best is" not in nas("resume", "--yes", "first", "--timeout", "100").stdout
    )  # It is about the experiment alone.
    assert finished() == {"first": 3}
    assert "the best is" in nas("run", "search.py", "--resume", "--timeout", "100").stdout


def test_what_is_open_in_the_file_is_open_while_it_is_searched(folder: Path) -> None:
    (folder / "data.txt").write_text("7")
    write(
        folder,
        "def main():\n"
        "    with open('data.txt') as file:\n"
        "        read = lambda model: file.seek(0) or float(file.read())\n"
        "        Experiment(Net, FunctionalEvaluator(read), Random(), name='first').run(2, progress='silent')\n"
        "main()\n",
    )
    nas("run", "search.py")
    nas("resume", "--yes", "first", "-n", "3")
    assert as_json("show", "first")["trials"]["COMPLETE"] == 3


def test_arguments_of_the_file_are_noted(folder: Path) -> None:
    write(
        folder,
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--name', required=True)\n"
        "parser.add_argument('--trials', type=int, default=1)\n"
        "options = parser.parse_args()\n"
        "make(options.name).run(options.trials)\n",
    )
    assert nas("run", "search.py", code=2)
    assert nas("run", "search.py", "--", "--help")
    nas("run", "search.py", "--", "--name", "mine", "--trials", "2")
    nas("resume", "--yes", "mine", "-n", "3")
    (folder / "sample.json").write_text('{"width": 8}')
    nas("enqueue", "--yes", "mine", "sample.json")
    assert finished() == {"mine": 3}
    assert as_json("show", "mine")["arguments"] == ["--name", "mine", "--trials", "2"]
    nas("resume", "--yes", "mine", "-n", "4", "--", "--name", "mine")
    assert as_json("show", "mine")["arguments"] == ["--name", "mine"]


def test_a_name_that_is_another_one_each_time(folder: Path) -> None:
    write(folder, "make(f'first-{datetime.datetime.now():%f}').run(2)\n")
    nas("run", "search.py")
    (first,) = finished()
    nas("resume", "--yes", first, "-n", "3")
    (folder / "sample.json").write_text('{"width": 8}')
    nas("enqueue", "--yes", first, "sample.json")
    assert finished() == {first: 3}


@pytest.mark.slow
def test_names_with_a_date_among_others(folder: Path) -> None:
    write(
        folder,
        "make('other')\n"
        "make(f'first-{datetime.datetime.now():%f}').run(2)\n"
        "make(f'second-{datetime.datetime.now():%f}').run(2)\n",
    )
    python(folder, "search.py")
    first, second = finished()
    nas("resume", "--yes", second, "-n", "3")
    nas("resume", "--yes", first, "-n", "4")
    assert finished() == {first: 4, second: 3}


def test_earlier_results_are_looked_at_where_they_lie(folder: Path) -> None:
    load = "earlier = Experiment.load('nas-experiments/first', Net, FunctionalEvaluator(train), Random())\n"
    write(folder, "make('first').run(3)\n")
    nas("run", "search.py")
    write(folder, f"{load}assert earlier.trials\nmake('second').run(2)\n")
    nas("run", "search.py", "-d", "elsewhere")
    assert [found["name"] for found in as_json("list", "-d", "elsewhere")] == ["second"]
    write(folder, f"{load}earlier.run(4)\n")
    nas("run", "search.py", "-n", "5")
    assert finished() == {"first": 5}
    # Where it was moved to it is gone on with, whatever the file says.
    (folder / "nas-experiments").rename(folder / "moved")
    nas("resume", "--yes", "first", "-n", "6", "-d", "moved", code=1)
    write(folder, "make('first', directory='nowhere').run(4)\n")
    nas("resume", "--yes", "first", "-n", "6", "-d", "moved")
    assert as_json("show", "first", "-d", "moved")["finished"] == 6


def test_a_folder_is_one_of_the_place_where_the_command_was_given(folder: Path) -> None:
    (folder / "there").mkdir()
    write(folder, "import os\nos.chdir('there')\nmake('first').run(1)\n")
    nas("run", "search.py", "-d", "kept")
    os.chdir(folder)
    assert as_json("show", "first", "-d", "kept")["finished"] == 1
    nas("resume", "--yes", "first", "-n", "2", "-d", "kept")
    os.chdir(folder)
    assert as_json("show", "first", "-d", "kept")["finished"] == 2


@pytest.mark.slow
def test_a_module_of_a_package(folder: Path) -> None:
    package = folder / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(PARTS)
    text = "from .parts import make\nfrom mine.parts import Net\nmake('first').run(2)\n"
    (package / "search.py").write_text(text)
    python(folder, "-m", "mine.search")
    python(folder, "-c", "from nas.cli import app; app()", "resume", "--yes", "first", "-n", "3")
    assert finished() == {"first": 3}


@pytest.mark.parametrize("text", ["", "print(1)\n", "sys.exit()\n", "def main():\n    make('first').run()\n"])
def test_a_file_without_an_experiment(text: str, folder: Path) -> None:
    write(folder, text)
    assert "must hold one experiment, and makes none" in nas("run", "search.py", code=2).stderr


def test_a_file_that_ends_with_an_error_ends_so_here(folder: Path) -> None:
    write(folder, "sys.exit('the data are not there')\n")
    assert "the data are not there" in nas("run", "search.py", code=1).output
    write(folder, "sys.exit(7)\n")
    nas("run", "search.py", code=7)


def test_a_notebook_is_no_script(folder: Path) -> None:
    write(folder, "{}", name="search.ipynb")
    assert "jupyter nbconvert --to script" in nas("run", "search.ipynb", code=2).stderr


OWN_STRATEGY = """
if __name__ == "__main__":
    experiment = Experiment(Net, FunctionalEvaluator(train), Own(), name="first", resume=True)
    experiment.run(*map(int, sys.argv[1:]), progress="silent")
"""


def test_a_class_moves_to_a_file_of_its_own(folder: Path) -> None:
    write(folder, OWN_STRATEGY)
    nas("run", "search.py", "-n", "2")
    own = "class Own(Random):\n    pass\n"
    (folder / "own_of_mine.py").write_text(f"from nas.strategies import Random\n{own}")
    (folder / "search.py").write_text((PARTS + OWN_STRATEGY).replace(own, "from own_of_mine import Own\n"))
    nas("resume", "--yes", "first", "-n", "3")
    assert finished() == {"first": 3}
    del sys.modules["own_of_mine"]


@pytest.mark.slow
def test_a_script_and_the_command_line_take_turns(folder: Path) -> None:
    """The same search either way: classes of the file have the same names, and the samples go on as they would."""
    write(folder, OWN_STRATEGY)
    python(folder, "search.py", "2")
    shown = as_json("show", "first")
    assert (shown["file"], shown["arguments"]) == (str(folder / "search.py"), ["2"])
    nas("resume", "--yes", "first", "-n", "4")
    python(folder, "search.py", "6")
    python(folder, "-m", "nas", "resume", "--yes", "first", "-n", "8", "--executor", "process")
    nas("run", "search.py", "-n", "9", "--resume")
    taking_turns = [trial["sample"] for trial in as_json("trials", "first")]
    nas("run", "search.py", "-n", "9", "-d", "straight")
    assert taking_turns == [trial["sample"] for trial in as_json("trials", "first", "-d", "straight")]
    assert as_json("show", "first")["changes"] == []


SPAWNS = """
import multiprocessing

def double(number):
    return 2 * number

def spawning(model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(double, (21,))

if __name__ == "__main__":
    experiment = Experiment(Net, FunctionalEvaluator(spawning), Random(), name="first")
    experiment.run(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "process"])
def test_processes_that_a_trial_starts_find_the_file(executor: str, folder: Path) -> None:
    write(folder, SPAWNS)
    python(folder, "-m", "nas", "run", "search.py", "--executor", executor)
    assert as_json("show", "first")["best"]["values"] == [42.0]
