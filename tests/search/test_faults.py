"""One experiment, struck by everything at once: nothing is lost, nothing counted twice.

The main process is killed 10 times, workers 20 times, the disk is full once, and where the trials are kept on a
PostgreSQL server, its connections are cut once. What happened is printed:
`pytest -s -m slow tests/search/test_faults.py`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from nas import Experiment, TrialState
from nas.testing import PATIENCE, wait_until

if TYPE_CHECKING:
    from conftest import Server

MAIN_KILLS, WORKER_KILLS, TRIALS = 10, 20, 200

SCRIPT = """
import json, os, sys, time
from torch import nn
from nas import Experiment, Real, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas import ProcessExecutor
from nas.strategies import Random

disk, log, url, trials = sys.argv[1], sys.argv[2], sys.argv[3] or None, int(sys.argv[4])

def space():
    return nn.Linear(2, ValueChoice(list(range(1, 40)), label="width"))

def evaluate(model, rate):
    with open(log, "a") as file:
        file.write(json.dumps(["begin", os.getpid(), model.out_features, rate]) + "\\n")
    print("evaluating", model.out_features)
    time.sleep(0.05)
    return model.out_features * rate

experiment = Experiment(space, FunctionalEvaluator(evaluate, rate=Real(0, 1)), Random(), name="struck", directory=disk,
                        seed=9, storage=url, resume=True, executor=ProcessExecutor(workers=2))
experiment.run(trials, progress="silent")
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB that can be filled."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=False)


class Struck:
    """The experiment in its own process, started again after each blow."""

    def __init__(self, folder: Path, disk: Path, url: str | None) -> None:
        self.folder, self.disk, self.log = folder, disk, folder / "log"
        (folder / "script.py").write_text(SCRIPT)
        self.command = [sys.executable, str(folder / "script.py"), str(disk), str(self.log), url or "", str(TRIALS)]
        self.process: subprocess.Popen[bytes] | None = None
        self.counts: Counter[str] = Counter()

    def events(self) -> list[list[Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("]")]

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NAS_HEARTBEAT": "1"}
        errors = (self.folder / "errors").open("ab")
        self.process = subprocess.Popen(self.command, env=environment, stderr=errors)
        errors.close()
        self.counts["starts"] += 1

    def progress(self, more: int) -> None:
        """Waits until so many more evaluations have begun, or it has ended."""
        process, before = self.process, len(self.events())
        assert process is not None
        wait_until(lambda: process.poll() is not None or len(self.events()) >= before + more)

    def is_over(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill_main(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.counts["main processes killed"] += 1

    def kill_worker(self, rng: random.Random) -> None:
        assert self.process is not None
        recent = [event[1] for event in self.events()[-2:]]
        pid = rng.choice(recent)
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
            self.counts["workers killed"] += 1

    def fill_disk(self) -> None:
        assert self.process is not None
        with (self.disk / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"\0" * 65536)
            except OSError:
                pass
            try:
                while True:
                    ballast.write(b"\0")
            except OSError:
                pass
        self.process.wait(PATIENCE)
        self.counts["disks filled"] += 1
        assert self.process.returncode != 0, "it says that it could not write"
        (self.disk / "ballast").unlink()


def strike(struck: Struck, cut: Any) -> None:
    rng = random.Random(4)
    blows = ["main"] * (MAIN_KILLS - 1) + ["worker"] * WORKER_KILLS + ["disk"] + (["cut"] if cut else [])
    rng.shuffle(blows)
    struck.start()
    for blow in ["main", *blows]:
        struck.progress(rng.randrange(1, 6))
        assert not struck.is_over(), (struck.folder / "errors").read_text()[-3000:]
        time.sleep(rng.uniform(0, 0.1))
        if blow == "main":
            struck.kill_main()
        elif blow == "disk":
            struck.fill_disk()
        elif blow == "cut":
            cut()
            struck.counts["connections cut"] += 1
        else:
            while struck.counts["workers killed"] < WORKER_KILLS:
                before = struck.counts["workers killed"]
                struck.kill_worker(rng)
                if struck.counts["workers killed"] > before:
                    break
                struck.progress(1)
        if blow in ("main", "disk"):
            struck.start()
    assert struck.process is not None
    struck.process.wait(5 * PATIENCE)
    assert struck.process.returncode == 0, (struck.folder / "errors").read_text()[-3000:]


def judge(struck: Struck, url: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    results = Experiment.load(struck.disk / "struck", storage=url)
    trials = results.trials
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert all(trial.state.is_finished for trial in trials)
    assert len({json.dumps(trial.sample) for trial in trials}) == TRIALS, "each is another sample"
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    for trial in complete:
        assert trial.value == trial.sample["width"] * trial.sample["rate"]
        assert json.loads((results.path / "trials" / str(trial.number) / "metrics.json").read_text())["values"]
    assert results.best_trial.value == max(trial.sample["width"] * trial.sample["rate"] for trial in complete)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    assert len(failed) <= WORKER_KILLS
    assert all("WorkerDied" in trial.error_line and "SIGKILL" in trial.error_line for trial in failed), failed
    begun = Counter(json.dumps(event[2:]) for event in struck.events())
    again = sum(count - 1 for count in begun.values())
    assert len(begun) == TRIALS
    # A blow to the main process breaks off at most its two trials; a cut may hide one's heartbeat for a while.
    assert again <= 2 * (MAIN_KILLS + 2)
    struck.counts.update({"trials finished": len(trials), "complete": len(complete), "failed": len(failed)})
    struck.counts.update({"evaluations broken off and run again": again})
    told = subprocess.run(
        [sys.executable, "-m", "nas", "show", "struck", "-d", str(struck.disk), *(["--storage", url] if url else [])],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"struck: done, {TRIALS}/{TRIALS} trials finished" in told
    with capsys.disabled():
        print(f"\n{'PostgreSQL' if url else 'journal'}: {dict(struck.counts)}\n{told}")
    assert struck.counts["main processes killed"] == MAIN_KILLS
    assert struck.counts["workers killed"] == WORKER_KILLS
    assert struck.counts["disks filled"] == 1


@pytest.mark.slow
def test_a_search_kept_in_its_folder(tmp_path: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    struck = Struck(tmp_path, disk, None)
    strike(struck, None)
    judge(struck, None, capsys)


@pytest.mark.slow
def test_a_search_kept_on_a_server(
    tmp_path: Path, disk: Path, postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres.database("struck")

    def cut() -> None:
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'struck'", "postgres")

    struck = Struck(tmp_path, disk, url)
    strike(struck, cut)
    judge(struck, url, capsys)
    assert struck.counts["connections cut"] == 1
