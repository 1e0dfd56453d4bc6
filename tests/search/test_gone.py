"""What is deleted while a search runs, or does not fit on the disk: it stops with one clear message, and goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

from nas import Experiment, ExperimentError, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

WIDTHS = list(range(1, 60))


def space() -> nn.Module:
    return nn.Linear(3, ValueChoice(WIDTHS, label="width"))


def width(model: nn.Linear) -> float:
    return float(model.out_features)


def make(folder: Path, function: Callable[[nn.Linear], float] = width, **options: object) -> Experiment:
    options = {"name": "e", "resume": True, "accept_changes": True, **options}
    return Experiment(space, FunctionalEvaluator(function), Random(), directory=folder, **options)  # type: ignore[arg-type]


def at_trial(number: int, action: Callable[[], object]) -> Callable[[nn.Linear], float]:
    """An evaluation that does something in the trial of a number."""
    seen: list[int] = []

    def evaluate(model: nn.Linear) -> float:
        seen.append(1)
        if len(seen) == number + 1:
            action()
        return width(model)

    return evaluate


STORAGES = ["journal", "SQLite"]


def url(folder: Path, storage: str) -> str | None:
    return None if storage == "journal" else f"sqlite:///{folder}/all.db"


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_lock_that_is_deleted_lets_no_two_search_on(tmp_path: Path, storage: str, how: str) -> None:
    where, ran = url(tmp_path, storage), Counter[str]()

    def second(model: nn.Linear) -> float:
        ran["second"] += 1
        return width(model)

    def strike() -> None:
        for lock in [*tmp_path.glob("*running.lock"), tmp_path / "e" / "running.lock"]:
            lock.unlink()
            if how == "replaced":
                lock.touch()
        make(tmp_path, second, storage=where).run(30, progress="silent")

    first = make(tmp_path, at_trial(10, strike), storage=where)
    with pytest.raises(ExperimentError, match="the lock of a search was deleted or replaced while the search ran"):
        first.run(30, progress="silent")
    trials = make(tmp_path, storage=where).trials
    assert [trial.number for trial in trials] == list(range(30))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert ran["second"] == 20, "one trial was run by both"
    expected = make(tmp_path, name="alone")
    expected.run(30, progress="silent")
    assert [(trial.sample, trial.value) for trial in trials] == [(t.sample, t.value) for t in expected.trials]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_ledger_that_is_deleted_while_the_search_runs(tmp_path: Path, storage: str) -> None:
    ledger = tmp_path / "e" / "journal.log" if storage == "journal" else tmp_path / "all.db"
    experiment = make(tmp_path, at_trial(3, ledger.unlink), storage=url(tmp_path, storage))
    with pytest.raises(ExperimentError, match=r"deleted|cannot be used") as raised:
        experiment.run(9, progress="silent")
    assert str(ledger) in str(raised.value)
    assert len(list((tmp_path / "e" / "trials").iterdir())) == 4
    assert not ledger.exists() or not ledger.stat().st_size
    for again in (True, False):
        with pytest.raises(ExperimentError, match="folders of 4 trials, and no ledger"):
            make(tmp_path, storage=url(tmp_path, storage), resume=again)


def test_a_folder_that_is_deleted_while_the_search_runs(tmp_path: Path) -> None:
    experiment = make(tmp_path, at_trial(3, lambda: shutil.rmtree(tmp_path / "e")))
    with pytest.raises(ExperimentError, match="the folder of an experiment was deleted") as raised:
        experiment.run(9, progress="silent")
    assert str(tmp_path / "e") in str(raised.value)
    assert not (tmp_path / "e").exists(), "nothing is made anew"


def test_two_folders_with_one_database_do_not_run_one_experiment_at_once(tmp_path: Path) -> None:
    where, told = url(tmp_path, "SQLite"), []

    def strike() -> None:
        with pytest.raises(ExperimentError, match="another process runs the experiment 'e'") as raised:
            make(tmp_path / "b", storage=where).run(9, progress="silent")
        told.append(raised.value)

    make(tmp_path / "a", at_trial(2, strike), storage=where).run(6, progress="silent")
    assert told
    assert len(make(tmp_path / "a", storage=where).trials) == 6


def test_a_folder_of_another_name_is_not_begun_anew(tmp_path: Path) -> None:
    make(tmp_path).run(3, progress="silent")
    (tmp_path / "e").rename(tmp_path / "f")
    before = {path: path.read_bytes() for path in (tmp_path / "f").rglob("*") if path.is_file()}
    for action in (lambda: make(tmp_path, name="f"), lambda: Experiment.load(tmp_path / "f")):
        with pytest.raises(ExperimentError, match="the journal in the folder.* is one of.*'e'"):
            action()
    assert {path: path.read_bytes() for path in (tmp_path / "f").rglob("*") if path.is_file()} == before


def test_a_supernet_without_a_ledger_is_not_begun_over(tmp_path: Path) -> None:
    (tmp_path / "e" / "supernet").mkdir(parents=True)
    make(tmp_path)
    (tmp_path / "e" / "supernet" / "weights.ckpt").write_bytes(b"weeks of training")
    for again in (True, False, "auto"):
        with pytest.raises(ExperimentError, match="a supernet, and no ledger"):
            make(tmp_path, resume=again)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only who may mount can make a small disk")
    yield place
    subprocess.run(["umount", "-l", place], capture_output=True, check=False)


def fill(disk: Path, left: int = 0) -> Path:
    """A file that takes what room there is, but for some bytes."""
    path = disk / "filling"
    with path.open("wb", buffering=0) as file:
        free = os.statvfs(disk)
        for _ in range(max(0, free.f_bavail - left // free.f_bsize)):
            file.write(b"0" * free.f_bsize)
    return path


@pytest.mark.parametrize("left", [0, 4096, 20_000])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_is_told_and_the_search_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, storage: str, left: int
) -> None:
    where = url(small_disk, storage)
    experiment = make(small_disk, at_trial(5, lambda: fill(small_disk, left)), storage=where)
    with pytest.raises(ExperimentError, match=r"[Nn]o space left|disk is full") as raised:
        experiment.run(200, progress="silent")
    assert "resume" in str(raised.value)
    trials = Experiment.load(small_disk / "e", storage=where).trials
    assert len([trial for trial in trials if trial.state is TrialState.COMPLETE]) >= 5
    (small_disk / "filling").unlink()
    assert Experiment.load(small_disk / "e", storage=where).trials == trials
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    more = len(trials) + 3
    resumed = make(small_disk, storage=where)
    resumed.run(more, progress="silent")
    expected = make(tmp_path, name="alone")
    expected.run(more, progress="silent")
    assert [(t.number, t.sample, t.value, t.seed) for t in resumed.trials] == [
        (t.number, t.sample, t.value, t.seed) for t in expected.trials
    ]


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_noted_on_a_full_disk_is_told(small_disk: Path, storage: str) -> None:
    experiment = make(small_disk, storage=url(small_disk, storage))
    experiment.run(3, progress="silent")
    filling = fill(small_disk)
    widths = iter(WIDTHS * 9)

    def fill_the_queue() -> None:
        while True:  # A block of the ledger may have had some room.
            experiment.enqueue({"width": next(widths)}, again=True)

    with pytest.raises(ExperimentError, match=r"no space left"):
        fill_the_queue()
    filling.unlink()
    assert len(Experiment.load(small_disk / "e", storage=url(small_disk, storage)).trials) == 3
    experiment.set(max_trials=5)
    experiment.stop()
