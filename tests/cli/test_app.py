"""The command line, as a shell script would use it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from nas.cli.commands import app
from nas.testing import PATIENCE, fork, wait_until

pytestmark = pytest.mark.long

SEARCH = """
import time
import torch
from pathlib import Path
from torch import nn
from nas import Experiment, Real, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, ValueChoice(list(range(1, 9)), label="width")))

def train(model, rate):
    print("training", model[0].out_features)
    while Path("wait").exists():
        time.sleep(0.02)
    if model[0].out_features == 3:
        raise ValueError("three is right out")
    model(torch.zeros(2, 4))
    return model[0].out_features * rate

experiment = Experiment(Net, FunctionalEvaluator(train, rate=Real(0, 1)), Random(), name="first")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("NAS_DIRECTORY", "NAS_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "search.py").write_text(SEARCH + "experiment.run(max_trials=6, progress='silent')\n")
    (tmp_path / "guarded.py").write_text(SEARCH + "if __name__ == '__main__':\n    experiment.run(max_trials=6)\n")
    return tmp_path


def nas(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    for name in [name for name in sys.modules if name.startswith(("search", "guarded"))]:
        del sys.modules[name]
    assert result.exit_code == code, (result.output, result.exception)
    return result


def as_json(*arguments: str) -> Any:
    return json.loads(nas(*arguments, "--json").stdout)


def test_run_list_show_top_trials_log(folder: Path) -> None:
    nas("run", "search.py")
    assert as_json("list")[0]["name"] == "first"
    shown = as_json("show", "first")
    assert (shown["state"], shown["finished"], shown["max_trials"]) == ("done", 6, 6)
    trials = as_json("trials", "first")
    assert [trial["number"] for trial in trials] == list(range(6))
    best = max((t for t in trials if t["values"]), key=lambda t: t["values"][0])
    assert shown["best"] == best == as_json("top", "first", "-k", "1")[0]
    assert nas("log", "first", str(best["number"])).stdout == f"training {best['sample']['width']}\n"
    failed = [trial["number"] for trial in trials if trial["state"] == "FAILED"]
    assert failed, "the seed is chosen so that a trial fails"
    assert "ValueError: three is right out" in nas("log", "first", str(failed[0])).stdout
    (failure,) = shown["failures"]
    assert failure.pop("place").endswith(" in train")
    assert failure == {"reason": "ValueError: three is right out", "count": len(failed), "trials": failed}
    text = nas("show", "first").stdout
    assert "first: done, 6/6 trials finished" in text
    times = "once" if len(failed) == 1 else f"{len(failed)} times"
    assert f"failed {times}: ValueError: three is right out (raised at " in text
    assert f"nas log first {failed[0]}\n" in text
    assert "first" in nas("list").stdout
    assert "COMPLETE" in nas("trials", "first").stdout


def test_a_guarded_file_and_a_named_experiment(folder: Path) -> None:
    nas("run", "guarded.py:experiment", "--max-trials", "3", "--directory", "elsewhere")
    assert as_json("show", "first", "--directory", "elsewhere")["finished"] == 3
    assert as_json("list") == []


def test_resume_raises_the_limit(folder: Path) -> None:
    nas("run", "search.py")
    nas("run", "search.py", code=1)
    assert "resume=True" in nas("run", "search.py", code=1).stderr
    nas("resume", "--yes", "first", "--max-trials", "8")
    nas("resume", "--yes", "first")
    assert as_json("show", "first")["trials"]["COMPLETE"] + as_json("show", "first")["trials"]["FAILED"] == 8


def test_resume_tells_changed_code_and_goes_on_when_told_to(folder: Path) -> None:
    nas("run", "search.py")
    (folder / "search.py").write_text(
        (folder / "search.py").read_text().replace("* rate", "* rate * 2").replace("range(1, 9)", "range(1, 12)")
    )
    message = nas("resume", "--yes", "first", "-n", "8", code=1).stderr
    assert "code of train: changed" in message
    assert "label 'width': " in message
    assert as_json("show", "first")["finished"] == 6
    nas("resume", "--yes", "first", "-n", "8", "--accept-changes")
    shown = as_json("show", "first")
    assert shown["finished"] == 8
    assert any("code of train: changed" in line for line in shown["changes"][0])
    assert "change 1, accepted: code of train: changed" in nas("show", "first").stdout
    nas("resume", "--yes", "first", "-n", "9")


def test_an_experiment_moves_to_another_place(folder: Path) -> None:
    nas("run", "search.py")
    there = folder / "there"
    there.mkdir()
    (folder / "nas-experiments").rename(there / "moved")
    (folder / "search.py").rename(there / "search.py")
    assert "there is no such file" in nas("resume", "--yes", "first", "-d", "there/moved", "-n", "7", code=2).stderr
    nas("resume", "--yes", "first", "-d", "there/moved", "-n", "7", "--file", "there/search.py")
    assert as_json("show", "first", "-d", "there/moved")["finished"] == 7


LAZY = """
import torch
from torch import nn
from nas import Experiment, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.LazyLinear(ValueChoice([3, 4], label="width")))

def train(model):
    return model(torch.zeros(5, 2, 3)).shape[1]

experiment = Experiment(Net, FunctionalEvaluator(train), GridSearch(), name="lazy")
experiment.run(progress="silent")
"""


@pytest.mark.slow
def test_lazy_layers_are_exported_with_the_shape_that_the_evaluator_knows(folder: Path) -> None:
    import onnx

    (folder / "lazy.py").write_text(LAZY)
    nas("run", "lazy.py")
    graph = onnx.load(nas("export", "--yes", "lazy", "--onnx").stdout.splitlines()[-1]).graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    assert weights["1.weight"] == (4, 6)


@pytest.mark.slow
def test_export_and_enqueue(folder: Path) -> None:
    nas("run", "search.py")
    best = as_json("top", "first", "-k", "1")[0]
    assert json.loads(nas("export", "first").stdout) == best["sample"]
    assert Path(nas("export", "--yes", "first", "--onnx").stdout.splitlines()[-1]).suffix == ".onnx"
    code = Path(nas("export", "--yes", "first", str(best["number"]), "--code", "-o", "out").stdout.strip())
    assert code.parent == Path("out")
    assert code.exists()
    (folder / "sample.json").write_text('{"width": 8, "rate": 0.75}')
    assert nas("enqueue", "--yes", "first", "sample.json").stdout == "It is in the queue.\n"
    assert "already" in nas("enqueue", "--yes", "first", "sample.json").stdout
    nas("resume", "--yes", "first", "-n", "7")
    assert as_json("trials", "first")[6]["sample"] == {"width": 8, "rate": 0.75}
    (folder / "wrong.json").write_text('{"widht": 8}')
    assert "widht" in nas("enqueue", "--yes", "first", "wrong.json", code=2).stderr


@pytest.mark.slow
def test_export_with_weights(folder: Path) -> None:
    (folder / "search.py").write_text(
        SEARCH.replace("import time\n", "import time, nas\n").replace(
            "    return model[0]", "    nas.keep_weights(model)\n    return model[0]"
        )
        + "experiment.run(max_trials=6, progress='silent')\n"
    )
    nas("run", "search.py")
    best = as_json("top", "first", "-k", "1")[0]
    kept = torch.load(folder / "nas-experiments/first/trials" / str(best["number"]) / "weights.pt", weights_only=True)
    sample, weights = map(Path, nas("export", "first", "--trained", "-o", "out").stdout.split())
    assert json.loads(sample.read_text()) == best["sample"]
    code = Path(nas("export", "--yes", "first", "--code", "--trained", "-o", "out/code").stdout.strip())
    for file in (weights, code.with_suffix(".pt")):
        assert torch.equal(torch.load(file, weights_only=True)["0.weight"], kept["0.weight"])
    assert "only one-shot search" in nas("export", "--yes", "first", "--inherit", code=1).stderr
    assert "one of --trained and --inherit" in nas("export", "--yes", "first", "--inherit", "--trained", code=2).stderr
    assert "one of --onnx" in nas("export", "--yes", "first", "--onnx", "--code", code=2).stderr


def test_rm(folder: Path) -> None:
    nas("run", "search.py")
    assert CliRunner().invoke(app, ["rm", "first"], input="n\n").exit_code == 1
    assert (folder / "nas-experiments" / "first").exists()
    nas("rm", "first", "--yes")
    assert as_json("list") == []
    assert not (folder / "nas-experiments" / "first").exists()


def test_a_storage_by_its_url(folder: Path) -> None:
    url = f"sqlite:///{folder}/trials.db"
    nas("run", "search.py", "--storage", url)
    assert as_json("list", "--storage", url)[0]["finished"] == 6
    nas("resume", "--yes", "first", "--storage", url, "-n", "7")
    assert as_json("show", "first", "--storage", url)["finished"] == 7
    nas("rm", "first", "--storage", url, "--yes")
    assert as_json("list", "--storage", url) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "frist"), 2, "did you mean 'first'?"),
        (("log", "first", "99"), 2, "there are trials 0 to 5"),
        (("run", "serach.py"), 2, "did you mean 'search.py'"),
        (("run", "guarded.py:experimnt", "-d", "other"), 2, "did you mean 'experiment'?"),
        (("run", "empty.py"), 2, "must hold one experiment"),
        (("run", "search.py", "--executor", "cloud"), 2, 'the executor is "inline"'),
        (("resume", "--yes", "first", "-n", "0"), 2, "max_trials must be"),
        (("enqueue", "first", "none.json"), 2, "a sample file must be readable"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_what_is_wrong_is_said_with_a_code(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    (folder / "empty.py").write_text("")
    nas("run", "search.py")
    assert message in " ".join(nas(*arguments, code=code).stderr.split())


def test_a_search_without_success_has_a_code_of_its_own(folder: Path) -> None:
    (folder / "search.py").write_text(SEARCH.replace("== 3", "> 0") + "experiment.run(max_trials=3)\n")
    nas("run", "search.py", code=4)
    nas("resume", "--yes", "first", "-n", "20", code=1)


def run_command(folder: Path, arguments: Sequence[str]) -> None:
    os.chdir(folder)
    app(list(arguments), prog_name="nas")


@pytest.mark.slow
def test_stop_from_another_process(folder: Path) -> None:
    (folder / "wait").touch()
    command = ("run", "search.py", "--executor", "process", "-c", "2", "-n", "50")
    process = fork(run_command, folder, command, output=folder / "output")
    wait_until(lambda: not process.is_alive() or len(list(folder.glob("nas-experiments/first/trials/*/log.txt"))) == 2)
    assert as_json("show", "first")["state"] == "running"
    assert "a process runs the experiment" in nas("rm", "first", "--yes", code=1).stderr
    (folder / "sample.json").write_text('{"width": 8, "rate": 0.75}')
    nas("enqueue", "--yes", "first", "sample.json")
    assert "ends when its running trials have" in nas("stop", "first").stdout
    (folder / "wait").unlink()
    process.join(PATIENCE)
    assert process.exitcode == 3, (folder / "output").read_text()
    shown = as_json("show", "first")
    assert (shown["state"], shown["finished"]) == ("stopped", 2)
    nas("resume", "--yes", "first", "-n", "3")
    assert as_json("trials", "first")[2]["sample"] == {"width": 8, "rate": 0.75}


@pytest.mark.slow
def test_the_dashboard_shows_the_experiment(folder: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    nas("run", "search.py")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    command = [sys.executable, "-u", "-m", "nas", "dashboard", "first", "--port", str(taken.getsockname()[1])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    address, _, taken_port = process.stdout.readline().partition(" ")
    assert taken_port == f"(port {taken.getsockname()[1]} is taken)\n"

    def studies() -> list[dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{address}/api/studies", timeout=PATIENCE) as answer:
                found: list[dict[str, Any]] = json.loads(answer.read())["study_summaries"]
                return found
        except urllib.error.URLError:
            return []

    try:
        wait_until(lambda: process.poll() is not None or bool(studies()))
        assert [study["study_name"] for study in studies()] == ["first"]
    finally:
        process.kill()
        process.communicate()
        taken.close()
