"""Where an experiment lies does not change with the working directory, nor what ends a search with its output."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from nas import Experiment, ValueChoice, load_sample, save_sample
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch
from nas.testing import PATIENCE


def make(evaluate: Callable[[nn.Module], float], directory: str | Path, **options: str) -> Experiment:
    space = lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="width"))  # noqa: E731
    return Experiment(space, FunctionalEvaluator(evaluate), GridSearch(), name="e", directory=directory, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", [{}, {"storage": "sqlite:///ledger.db"}], ids=["journal", "sqlite"])
def test_the_working_directory_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: dict[str, str]
) -> None:
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def evaluate(model: nn.Module) -> float:
        os.chdir(tmp_path / "elsewhere")
        print("a line")
        return 1.0

    experiment = make(evaluate, "kept", **storage)
    os.chdir(tmp_path / "there")
    experiment.run(progress="silent")
    assert [trial.state.name for trial in experiment.trials] == ["COMPLETE"] * 3
    assert experiment.path == tmp_path / "here" / "kept" / "e"
    assert (experiment.path / "trials" / "2" / "log.txt").read_text() == "a line\n"
    assert not list((tmp_path / "there").iterdir()) + list((tmp_path / "elsewhere").iterdir())
    os.chdir(tmp_path / "here")
    read = Experiment.load("kept/e", **storage)  # type: ignore[call-overload]
    os.chdir(tmp_path)
    assert read.trials == experiment.trials
    assert read.path == experiment.path


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    experiment = make(lambda model: 1.0, "~/kept", storage="sqlite:///~/ledger.db")
    assert experiment.path == tmp_path / "kept" / "e"
    experiment.run(1, progress="silent")
    assert (tmp_path / "ledger.db").exists()
    save_sample(experiment.trials[0].sample, "~/best.json")
    assert load_sample(tmp_path / "best.json") == load_sample("~/best.json") == {"width": 1}


def test_what_ends_a_task_of_asyncio_fails_the_trial_alone(tmp_path: Path) -> None:
    def evaluate(model: nn.Linear) -> float:
        if model.out_features == 2:
            raise asyncio.CancelledError
        if model.out_features == 3:
            raise GeneratorExit
        return 1.0

    experiment = make(evaluate, tmp_path)  # type: ignore[arg-type]
    experiment.run(progress="silent")
    assert [trial.state.name for trial in experiment.trials] == ["COMPLETE", "FAILED", "FAILED"]
    assert "CancelledError" in (experiment.trials[1].error or "")


SCRIPT = """
import sys
from torch import nn
from nas import Experiment, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch

def evaluate(model):
    return 1.0 if model.out_features < 3 else 1 / 0

space = lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="Größe"))
experiment = Experiment(space, FunctionalEvaluator(evaluate), GridSearch(), name="größte", directory=sys.argv[1])
"""


def run(script: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, (script, *arguments))]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.slow
def test_an_output_that_cannot_encode_a_label_ends_nothing(tmp_path: Path) -> None:
    runs = "experiment.run(1, progress='rich')\nexperiment.run(progress='plain')\n"
    (tmp_path / "script.py").write_text(SCRIPT + runs, encoding="utf-8")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    found = run(tmp_path / "script.py", tmp_path / "0", env=ascii_only)
    assert (found.returncode, found.stderr) == (0, "")
    assert "FAILED" in found.stdout
    assert found.stdout.count("Gr\\xf6\\xdfe=1") == 2
    assert "Gr\\xf6\\xdfe=3" in found.stdout
    command = [sys.executable, "-m", "nas", "top", "größte", "-d", str(tmp_path / "0")]
    shown = subprocess.run(command, capture_output=True, text=True, env=ascii_only, timeout=PATIENCE, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Gr\\xf6\\xdfe=1" in shown.stdout


@pytest.mark.slow
def test_an_output_that_nobody_reads_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + "experiment.run()\nsys.stderr.write('done')\n", encoding="utf-8")
    with open("/dev/full", "w", encoding="utf-8") as full:
        found = subprocess.run(
            [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert found.stderr.startswith("done")


@pytest.mark.long
def test_one_ctrl_c_ends_the_script(tmp_path: Path) -> None:
    waiting = SCRIPT.replace(
        "return 1.0", "(__import__('time').sleep(1000) if model.out_features == 2 else None); return 1.0"
    )
    waiting = waiting.replace(
        "def evaluate(model):", "def evaluate(model):\n    print('trial', model.out_features, flush=True)"
    )
    waiting = waiting.replace(" if model.out_features < 3 else 1 / 0", "")
    (tmp_path / "script.py").write_text(waiting + "experiment.run()\nprint('what follows')\n", encoding="utf-8")
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline() != "trial 2\n":
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "")
    assert "interrupted; run it again" in out
    assert "what follows" not in out


def test_somebody_who_types_keeps_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(model: nn.Module) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(KeyboardInterrupt, match="interrupted; run it again") as caught:
        make(evaluate, tmp_path).run(progress="silent")
    assert not isinstance(caught.value, SystemExit)
