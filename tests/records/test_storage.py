"""The ledger: what a killed process leaves behind, and samples as Optuna's parameters."""

import errno
import os
import random
from pathlib import Path

import pytest
from torch import nn

from nas import Experiment, ExperimentError, Real, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.records.storage import mend_journal
from nas.strategies import Random

LINE = b'{"op_code":0}\n'


def space() -> nn.Module:
    return nn.Linear(3, ValueChoice(list(range(1, 30)), label="width"))


def experiment(folder: Path, trials: int, name: str = "ledger") -> Experiment:
    evaluator = FunctionalEvaluator(lambda model, rate: model.out_features * rate, rate=Real(0, 1))
    made = Experiment(space, evaluator, Random(), name=name, directory=folder, resume=True)
    made.run(trials, progress="silent")
    return made


@pytest.mark.parametrize(
    "tear",
    [
        b"",
        b"{",
        b'{"op_code":4,"worker_id":"x","trial_',  # half a line
        LINE[:-1],  # no newline
        b'{"op_code":4,"wor\n',  # half a line, then a newline
        b"[1, 2]\n",  # JSON, but no record
        b"\0" * 4096,  # a page that was never written
        b"\0" * 40 + b"\n",
        b'{"op_code":4,' + b"\0" * 100,
        b"\xff\xfe{",  # no text at all
    ],
)
def test_a_torn_end_is_cut_off_and_nothing_else(tmp_path: Path, tear: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(LINE * 3 + tear)
    assert mend_journal(path) == len(tear)
    assert path.read_bytes() == LINE * 3
    assert mend_journal(path) == 0


@pytest.mark.parametrize("damage", [b'{"op_code":4,"wor\n', b"\0\0\0\n", b"\n", b"[]\n", b"\xff\n"])
def test_damage_before_whole_lines_is_refused_and_left_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(LINE + damage + LINE)
    with pytest.raises(ExperimentError, match=f"in the middle of the journal is damaged.*byte {len(LINE)}"):
        mend_journal(path)
    assert path.read_bytes() == LINE + damage + LINE


def test_there_may_be_no_journal_or_an_empty_one(tmp_path: Path) -> None:
    assert mend_journal(tmp_path / "none") == 0
    (tmp_path / "empty").touch()
    assert mend_journal(tmp_path / "empty") == 0
    assert not (tmp_path / "none").exists()


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
    with pytest.raises((ExperimentError, OSError), match="No space left on device"):
        experiment(tmp_path, 9)
    monkeypatch.undo()
    assert mend_journal(journal) == 0
    resumed = experiment(tmp_path, 9)
    assert resumed.trials[:3] == first.trials
    assert [t.sample for t in resumed.trials] == [t.sample for t in experiment(tmp_path, 9, "whole").trials]
