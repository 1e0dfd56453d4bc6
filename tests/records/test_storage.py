"""The ledger: what a killed process leaves behind, and samples as Optuna's parameters."""

import contextlib
import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import Experiment, ExperimentError, Real, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random


def space() -> nn.Module:
    return nn.Linear(3, ValueChoice(list(range(1, 30)), label="width"))


def experiment(folder: Path, trials: int, name: str = "ledger") -> Experiment:
    evaluator = FunctionalEvaluator(lambda model, rate: model.out_features * rate, rate=Real(0, 1))
    made = Experiment(space, evaluator, Random(), name=name, directory=folder, resume=True)
    made.run(trials, progress="silent")
    return made


@pytest.mark.slow
def test_wherever_the_journal_is_cut_the_search_comes_to_the_same_end(tmp_path: Path) -> None:
    whole = experiment(tmp_path, 6, "whole")
    expected = [(t.sample, t.value, t.seed) for t in whole.trials]
    experiment(tmp_path, 4)
    journal = tmp_path / "ledger" / "journal.log"
    content = journal.read_bytes()
    assert content.count(b'"op_code":6') == 4
    rng = random.Random(2)
    cuts = {rng.randrange(len(content)) for _ in range(40)}
    position = 0
    for line in content.splitlines(keepends=True):
        cuts |= {position, position + 1, position + len(line) - 1}
        position += len(line)
    for cut in sorted(cuts):
        # What was whole in the file is there; what was finished in it is not run again.
        journal.write_bytes(content[:cut])
        shutil.rmtree(journal.parent / "trials")  # Where nothing is left of the ledger, nothing is begun over them.
        seen: list[int] = []
        evaluator = FunctionalEvaluator(
            lambda model, rate, seen=seen: seen.append(model.out_features) or model.out_features * rate, rate=Real(0, 1)
        )
        again = Experiment(
            space, evaluator, Random(), name="ledger", directory=tmp_path, resume=True, accept_changes=True
        )
        finished = [t for t in again.trials if t.state is TrialState.COMPLETE]
        # In the journal of optuna, operation 6 sets the state of a trial.
        kept = content[:cut].rpartition(b"\n")[0].count(b'"op_code":6')
        assert len(finished) == kept, cut
        assert [(t.sample, t.value, t.seed) for t in finished] == expected[: len(finished)]
        again.run(6, progress="silent")
        assert [(t.sample, t.value, t.seed) for t in again.trials] == expected, cut
        assert len(seen) == 6 - len(finished), cut


def test_a_full_disk_is_told_and_leaves_nothing_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = experiment(tmp_path, 3)
    journal = tmp_path / "ledger" / "journal.log"
    real, room = os.write, [1000]

    def write(file: int, data: bytes) -> int:
        if os.path.realpath(f"/proc/self/fd/{file}") != str(journal):
            return real(file, data)
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= (written := real(file, data[: room[0]]))
        return written

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(ExperimentError, match="no space left on the disk"):
        experiment(tmp_path, 9)
    monkeypatch.undo()
    assert journal.read_bytes().endswith(b"\n")
    resumed = experiment(tmp_path, 9)
    assert resumed.trials[:3] == first.trials
    assert [t.sample for t in resumed.trials] == [t.sample for t in experiment(tmp_path, 9, "whole").trials]


KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 2")
connection.execute("BEGIN")
connection.execute("UPDATE trial_user_attributes SET value_json = value_json || 'x'")
connection.execute("UPDATE studies SET study_name = 'another'")
os._exit(9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_whose_writer_was_killed_is_looked_into_and_left_to_who_runs_it(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "all.db"
    options: dict[str, Any] = {"name": "ledger", "directory": tmp_path, "storage": f"sqlite:///{file}"}
    evaluator = FunctionalEvaluator(lambda model, rate: model.out_features * rate, rate=Real(0, 1))
    Experiment(space, evaluator, Random(), **options).run(30, progress="silent")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        if mode == "wal":  # What has been committed is there.
            connection.execute("UPDATE studies SET study_name = 'ledger'")
    whole = Experiment.load(tmp_path / "ledger", storage=options["storage"]).trials
    if mode == "delete":
        subprocess.run([sys.executable, "-c", KILLED, file], check=False)
        assert Path(f"{file}-journal").stat().st_size
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert Experiment.load(tmp_path / "ledger", storage=options["storage"]).trials == whole
    again = Experiment(space, evaluator, Random(), **options, resume=True)
    assert again.trials == whole
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    again.run(33, progress="silent")
    assert again.trials[:30] == whole
    assert not Path(f"{file}-journal").exists()
