"""What strikes while the journal is written leaves its lock free, and the record whole."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import filelock
import pytest

from nas import ExperimentError
from nas.records.disk import JournalFile, Running, locks
from nas.records.disk.lines import read_line

LOG = {"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [1]}
LINE = b'{"op_code":0,"worker_id":"w","study_name":"s","directions":[1]}\n'
"""A line without a checksum, as Optuna writes it."""


def journal_in(folder: Path) -> JournalFile:
    return JournalFile(folder / "journal.log", Running(folder))


class TimeIsUpError(Exception):
    """What a time limit raises."""


def is_free(path: Path) -> bool:
    try:
        with filelock.FileLock(str(path)).acquire(timeout=0):
            return True
    except filelock.Timeout:
        return False


@pytest.mark.parametrize(("number", "raised"), [("SIGINT", KeyboardInterrupt), ("SIGALRM", TimeIsUpError)])
def test_a_signal_that_strikes_while_the_lock_is_taken(
    number: str, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(*_: Any) -> None:
        raise raised

    chosen, path = getattr(signal, number), tmp_path / "journal.log"
    before = signal.signal(chosen, strike)
    lock = locks._lock

    def struck(*given: Any, **named: Any) -> None:
        lock(*given, **named)
        os.kill(os.getpid(), chosen)

    monkeypatch.setattr(locks, "_lock", struck)
    try:
        with pytest.raises(raised):
            journal_in(tmp_path).append_logs([LOG])
        assert signal.getsignal(chosen) is strike
    finally:
        signal.signal(chosen, before)
    assert is_free(Path(f"{path}.lock"))
    monkeypatch.undo()
    journal = journal_in(tmp_path)
    journal.append_logs([LOG])
    assert list(journal.read_logs(0)) == [LOG, LOG], "what struck came after the record was written"


def test_other_threads_write_as_they_are(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    thread = threading.Thread(target=journal.append_logs, args=([LOG],))
    thread.start()
    thread.join()
    assert list(journal.read_logs(0)) == [LOG]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def read(folder: Path) -> list[dict[str, Any]]:
    return list(journal_in(folder).read_logs(0))


@pytest.mark.parametrize(
    "tear",
    [
        b"{",
        b'{"op_code":4,"worker_id":"x","trial_',  # half a line
        LINE[:-1],  # no end
        b"\0" * 4096,  # a page that was never written
        b'{"op_code":4,' + b"\0" * 100,
        b"\xff\xfe{",  # no text at all
    ],
)
def test_a_torn_end_is_passed_over_and_cut_off_by_the_next_that_writes(tmp_path: Path, tear: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(LINE * 3 + tear)
    assert read(tmp_path) == [LOG] * 3
    assert path.read_bytes() == LINE * 3 + tear, "reading mends nothing"
    journal_in(tmp_path).append_logs([LOG])
    assert lines(path)[:3] == [LINE] * 3
    assert read_line(lines(path)[3], 4) == (LOG, True)


@pytest.mark.parametrize(
    "damage",
    [
        b'{"op_code":4,"wor\n',
        b"\0\0\0\n",
        b"\n",
        b"[1, 2]\n",
        b"\xff\n",
        LINE.replace(b"}", b',"nas:crc":"00000000"}'),
        LINE.replace(b"}", b', "nas:crc": "00000000"}'),
    ],
)
@pytest.mark.parametrize("more", [0, 1])
def test_a_whole_line_that_cannot_be_read_is_told_and_left_alone(tmp_path: Path, damage: bytes, more: int) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(LINE + damage + LINE * more)
    which = "a line in the middle" if more else "the last line"
    with pytest.raises(ExperimentError, match=rf"{which} of the journal is damaged.*line 2, byte {len(LINE)}"):
        read(tmp_path)
    assert path.read_bytes() == LINE + damage + LINE * more


@pytest.mark.parametrize("end", [b"J", b"\x0b", b" \x8a"])
def test_an_end_that_goes_on_after_a_record_is_no_torn_one(tmp_path: Path, end: bytes) -> None:
    journal_in(tmp_path).append_logs([LOG, LOG])
    path = tmp_path / "journal.log"
    for whole in (path.read_bytes()[:-1] + end, LINE + LINE[:-1] + end):
        path.write_bytes(whole)
        for action in (lambda: read(tmp_path), lambda: journal_in(tmp_path).append_logs([LOG])):
            with pytest.raises(ExperimentError, match=r"the last line of the journal is damaged: it goes on"):
                action()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("change", ["delete", "double", "swap"])
def test_lines_that_were_moved_are_told(tmp_path: Path, change: str) -> None:
    journal_in(tmp_path).append_logs([LOG, LOG, LOG | {"study_name": "t"}, LOG])
    path = tmp_path / "journal.log"
    first, second, third, fourth = lines(path)
    changed = {"delete": [first, third, fourth], "double": [first, second, second], "swap": [first, third, second]}
    path.write_bytes(b"".join(changed[change]))
    with pytest.raises(ExperimentError, match=r"its checksum does not fit.*line [23]"):
        read(tmp_path)


def test_a_file_of_something_else_is_neither_cut_nor_added_to(tmp_path: Path) -> None:
    for content in (b"one line of mine, without an end", b"one line of mine\n"):
        (tmp_path / "journal.log").write_bytes(content)
        for action in (lambda: read(tmp_path), lambda: journal_in(tmp_path).append_logs([LOG])):
            with pytest.raises(ExperimentError, match=r"journal\.log, line 1"):
                action()
        assert (tmp_path / "journal.log").read_bytes() == content


def test_a_link_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "journal.log").symlink_to(victim)
    for action in (lambda: read(tmp_path), lambda: journal_in(tmp_path).append_logs([LOG])):
        with pytest.raises(ExperimentError, match="a link"):
            action()
    assert victim.read_bytes() == b"mine"


def test_there_may_be_no_journal_or_an_empty_one(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert not any(tmp_path.iterdir())
    (tmp_path / "journal.log").touch()
    assert read(tmp_path) == []


@pytest.mark.parametrize("how", ["deleted", "replaced", "cut"])
def test_a_journal_that_is_gone_is_not_written_to_again(tmp_path: Path, how: str) -> None:
    journal, path = journal_in(tmp_path), tmp_path / "journal.log"
    journal.append_logs([LOG, LOG])
    assert len(list(journal.read_logs(0))) == 2
    whole = path.read_bytes()
    if how == "cut":
        os.truncate(path, 10)
    else:
        path.unlink()
    if how == "replaced":
        journal_in(tmp_path).append_logs([LOG | {"study_name": "another"}, LOG, LOG])
    left = path.read_bytes() if path.exists() else None
    for action in (lambda: journal.append_logs([LOG]), lambda: list(journal.read_logs(2))):
        with pytest.raises(ExperimentError, match="was deleted, cut or replaced since it was opened"):
            action()
    assert (path.read_bytes() if path.exists() else None) == left
    path.write_bytes(whole)
    journal.append_logs([LOG])
    assert len(list(journal.read_logs(2))) == 1, "a copy does as well as the file"


def test_an_end_is_cut_off_by_nobody_else_while_the_experiment_runs(tmp_path: Path) -> None:
    path, running = tmp_path / "journal.log", Running(tmp_path)
    path.write_bytes(LINE + LINE[:9])
    with running.taken():
        with pytest.raises(ExperimentError, match="ends in the middle of a line"):
            journal_in(tmp_path).append_logs([LOG])
        assert path.read_bytes() == LINE + LINE[:9]
        JournalFile(path, running).append_logs([LOG])
    assert len(lines(path)) == 2


@pytest.mark.parametrize("content", [b'{"op_code":', b"", LINE])
def test_a_line_without_bounds_is_told_before_it_is_read_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(content)
    os.truncate(path, 1 << 36)  # 64 GiB, of which the disk holds nothing
    for action in (lambda: read(tmp_path), lambda: journal_in(tmp_path).append_logs([LOG])):
        with pytest.raises(ExperimentError, match=rf"longer than.*line {1 + content.count(LINE)}"):
            action()
    assert path.stat().st_size == 1 << 36
