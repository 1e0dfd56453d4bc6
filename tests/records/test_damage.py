"""Damaged and edited journals and databases: all that is wrong with one is told, and nothing is lost in silence."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import nas
from nas import Experiment, ExperimentError, LayerChoice, NasError, Repeat, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.records.disk.lines import CHECKSUM, read_line
from nas.strategies import Random

Edit = Callable[[random.Random, list[bytes]], None]


def space() -> nn.Module:
    width = ValueChoice([2, 4, (8, 8)], label="width")
    size = width if isinstance(width, int) else width[0]
    return nn.Sequential(
        nn.Linear(3, size),
        LayerChoice([nn.ReLU, nn.Tanh], label="act"),
        Repeat(lambda i: nn.Linear(size, size), (1, 6)),
    )


def score(model: nn.Module, rate: float) -> dict[str, float]:
    size = float(sum(p.numel() for p in model.parameters()))
    nas.report(size, step=1)
    if size > 300:
        raise ValueError("too large")
    return {"size": size * rate, "rate": rate}


def search(folder: Path, trials: int, **options: Any) -> Experiment:
    evaluator = FunctionalEvaluator(score, rate=nas.Real(0.5, 1.0))
    made = Experiment(space, evaluator, Random(), name="search", directory=folder, objective="minimize", **options)
    made.enqueue({"width": 4})
    made.set(max_trials=trials)
    made.run(trials, progress="silent")
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment, with its journal."""
    folder = tmp_path_factory.mktemp("whole")
    return search(folder, 32).path


def found(folder: Path) -> Any:
    """All that is read of an experiment."""
    results = Experiment.load(folder)
    shown = [repr(results), results.top(3), results.pareto_front, results.run, sorted(results.retried)]
    return [results.trials, results.header, results.inputs, results.objectives.describe(), *map(repr, shown)]


def test_each_flipped_bit_is_harmless_or_told(whole: Path, tmp_path: Path) -> None:
    expected, content = found(whole), (whole / "journal.log").read_bytes()
    journal = tmp_path / "search" / "journal.log"
    journal.parent.mkdir()
    rng, told = random.Random(0), 0
    last = len(content) - 1
    for place in [*(rng.randrange(len(content)) for _ in range(300)), *[last] * 8]:
        bit = rng.randrange(8) if place != last else told % 8
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        journal.write_bytes(flipped)
        line = content.count(b"\n", 0, place) + 1
        text = ""
        try:
            assert found(journal.parent) == expected, (place, bit)
        except ExperimentError as error:
            text = str(error)
        assert not text or f"{journal}, line {line}," in text, (place, bit)
        told += bool(text)
    assert told > 250


def without_checksums(content: bytes) -> list[bytes]:
    """The lines of an older journal."""
    records = [read_line(line, number)[0] for number, line in enumerate(content.splitlines(keepends=True), 1)]
    return [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records]


def test_a_journal_without_checksums_is_read_and_gone_on_with(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "search")
    journal = tmp_path / "search" / "journal.log"
    lines = without_checksums(journal.read_bytes())
    journal.write_bytes(b"".join(lines))
    assert found(tmp_path / "search")[0] == found(whole)[0]
    resumed = search(tmp_path, 36, resume=True)
    assert len(resumed.trials) == 36
    after = journal.read_bytes().splitlines(keepends=True)
    assert after[: len(lines)] == lines
    assert all(CHECKSUM.encode() in line for line in after[len(lines) :])


def test_optunas_own_tools_read_and_write_it(whole: Path, tmp_path: Path) -> None:
    import optuna

    shutil.copytree(whole, tmp_path / "search")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "search" / "journal.log"))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    expected = Experiment.load(whole)
    complete = {trial.number: trial.value for trial in study.trials if trial.values is not None}
    assert complete == {trial.number: trial.value for trial in expected.trials if trial.values is not None}
    study.set_user_attr("mine", {"any": ["thing"]})
    assert Experiment.load(tmp_path / "search").trials == expected.trials
    assert len(search(tmp_path, 34, resume=True).trials) == 34


STRANGE: list[Any] = [
    None, True, -1, 0, 7, 10**30, 1.5, float("nan"), float("inf"), "", "x", "\0", "\ud800", [], {}, [None], {"": {}},
    [[]] * 3, {"step": -1}, "maximize", 2**63, {"__tuple__": 5}, '{"a":{"__tuple__":5}}', "[" * 2000 + "]" * 2000,
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a JSON value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def change_field(rng: random.Random, lines: list[bytes]) -> None:
    number = rng.randrange(len(lines))
    try:
        record = json.loads(lines[number])
    except (ValueError, RecursionError):
        return  # An earlier edit has made it no JSON.
    container, key = rng.choice(list(places(record)) or [({"": 0}, "")])
    kind = rng.randrange(4)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[key + "'"] = container.pop(key)
    elif kind == 2 and isinstance(container[key], str) and container[key][:1] in "{[":
        inner = json.loads(container[key])
        inside = list(places(inner))
        if inside:
            holder, name = rng.choice(inside)
            holder[name] = rng.choice(STRANGE)
        container[key] = json.dumps(inner)
    else:
        container[key] = rng.choice(STRANGE)
    lines[number] = json.dumps(record, separators=(",", ":")).encode() + b"\n"


def change_lines(rng: random.Random, lines: list[bytes]) -> None:
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(first, lines[second])
    elif kind == 2:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        del lines[first:second]


def change_bytes(rng: random.Random, lines: list[bytes]) -> None:
    number = rng.randrange(len(lines))
    line = lines[number]
    place = rng.randrange(len(line))
    piece = rng.choice(
        [b"\0", b"\xff", b"\n", b"\r\n", b"{", b"[" * 5000, b'"', b"9" * 5000, b"\xed\xa0\x80", rng.randbytes(3), line]
    )
    lines[number] = line[:place] + piece + line[place + rng.randrange(4) :]


EDITS: list[Edit] = [change_field, change_field, change_field, change_lines, change_bytes]


def attack(folder: Path, seed: int, count: int) -> dict[str, int]:
    """Reads mutants of a journal, with and without checksums; how many were told, and how many are as they were."""
    journal = folder / "journal.log"
    content = journal.read_bytes()
    kinds = [without_checksums(content), content.splitlines(keepends=True)]
    rng, outcomes = random.Random(seed), {"told": 0, "read": 0}
    for number in range(count):
        lines = list(kinds[number % 4 == 3])
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            if lines:
                rng.choice(EDITS)(rng, lines)
        journal.write_bytes(b"".join(lines))
        try:
            found(folder)
            outcomes["read"] += 1
        except NasError as error:
            outcomes["told"] += 1
            text = str(error)
            assert str(folder) in text, text
            assert len(text) < 2000, text
        except Exception as error:
            raise AssertionError(f"mutant {number} of seed {seed}") from error
    return outcomes


def in_a_process(whole: Path, tmp_path: Path, seed: int, count: int) -> dict[str, int]:
    """Does it where a crash, or gigabytes of memory, would be seen."""
    shutil.copytree(whole, tmp_path / "search", ignore=shutil.ignore_patterns("trials"))
    command = [sys.executable, __file__, str(tmp_path / "search"), str(seed), str(count)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=environment, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


def test_mutants_of_a_journal_are_read_or_told(whole: Path, tmp_path: Path) -> None:
    outcomes = in_a_process(whole, tmp_path, seed=1, count=100)
    assert outcomes["told"] > 40


@pytest.mark.slow
@pytest.mark.fuzz
def test_many_mutants_of_a_journal_are_read_or_told(whole: Path, tmp_path: Path) -> None:
    assert sum(in_a_process(whole, tmp_path, seed=2, count=100_000).values()) == 100_000


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with an experiment."""
    folder = tmp_path_factory.mktemp("database")
    search(folder, 12, storage=f"sqlite:///{folder}/all.db")
    return folder / "all.db"


def read_database(file: Path) -> Any:
    results = Experiment.load(file.parent / "search", storage=f"sqlite:///{file}")
    return [results.trials, results.header, repr(results), results.top(3), results.run]


@pytest.mark.parametrize(
    "content", [b"mine, and no database at all" * 50, b"SQLite format 3\0", b"\0" * 5000, b"SQLite format 3\0" * 600]
)
def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (file := tmp_path / "all.db").write_bytes(content)
    for action in (lambda: read_database(file), lambda: search(tmp_path, 3, storage=f"sqlite:///{file}")):
        with pytest.raises(ExperimentError, match=str(file)):
            action()
    assert file.read_bytes() == content


def test_a_database_of_something_else_is_told_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "all.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE studies (name TEXT)")
        connection.commit()
    content = file.read_bytes()
    for action in (lambda: read_database(file), lambda: search(tmp_path, 3, storage=f"sqlite:///{file}")):
        with pytest.raises(ExperimentError, match=f"a database of something else.*{file}"):
            action()
    assert file.read_bytes() == content
    (tmp_path / "empty.db").touch()
    with pytest.raises(ExperimentError, match="the storage holds no experiment"):
        read_database(tmp_path / "empty.db")
    assert not (tmp_path / "empty.db").stat().st_size
    with pytest.raises(ExperimentError, match="the storage holds no experiment"):
        read_database(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.slow
def test_damaged_pages_of_a_database_are_read_or_told(database: Path, tmp_path: Path) -> None:
    rng, content, told = random.Random(3), database.read_bytes(), 0
    file = tmp_path / "all.db"
    for number in range(24):
        damaged = bytearray(content)
        if number % 3 == 0:
            del damaged[rng.randrange(len(damaged)) :]
        for _ in range(rng.choice([1, 5, 500])):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            read_database(file)
        except NasError as error:
            told += 1
            text = str(error)
        else:
            text = str(file)
        assert str(tmp_path) in text
    assert told > 5


def test_what_was_edited_in_a_database_is_told(database: Path, tmp_path: Path) -> None:
    rng, told = random.Random(4), 0
    for number in range(24):
        shutil.copy(database, file := tmp_path / "all.db")
        table = rng.choice(["study_user_attributes", "trial_user_attributes", "trial_user_attributes"])
        with contextlib.closing(sqlite3.connect(file)) as connection:
            rows = connection.execute(f"SELECT rowid, value_json FROM {table} WHERE key LIKE 'nas:%'").fetchall()
            row, text = rng.choice(rows)
            lines = [text.encode() + b"\n"]
            rng.choice([change_field, change_bytes])(rng, lines)
            value = b"".join(lines).decode("utf-8", errors="replace")
            connection.execute(f"UPDATE {table} SET value_json = ? WHERE rowid = ?", (value, row))
            connection.commit()
        try:
            read_database(file)
        except NasError as error:
            told += 1
            assert str(file) in str(error), number  # noqa: PT017
    assert told > 8


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    folder, seed, count = sys.argv[1:]
    print(json.dumps(attack(Path(folder), int(seed), int(count))))


if __name__ == "__main__":
    main()
