"""What user code sees of the standard streams while they are kept, and what is kept."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas import ExperimentError
from nas.execution.log import logged_only, quote_log, read_log, shown_and_logged


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("some library")
    made.propagate = False
    made.setLevel(logging.INFO)
    yield made
    made.handlers.clear()


def test_a_handler_of_the_first_trial_writes_to_each_trial(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        with shown_and_logged(tmp_path / str(number)):
            if number == 0:
                logger.addHandler(logging.StreamHandler())
            logger.info("trial %d", number)
        assert read_log(tmp_path / str(number)) == f"trial {number}\n"
    logger.info("after")
    assert capsys.readouterr().err == "trial 0\ntrial 1\ntrial 2\nafter\n"
    assert read_log(tmp_path / "2") == "trial 2\n"


def test_a_stream_that_is_kept_stays_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with shown_and_logged(tmp_path / "0"):
        kept = sys.stdout
        assert isinstance(kept, io.TextIOBase)
        assert (kept.encoding, kept.isatty(), kept.closed) == (before.encoding, before.isatty(), False)
    assert sys.stdout is before
    print("between", file=kept)
    with shown_and_logged(tmp_path / "1"):
        assert sys.stdout is kept
        print("again", file=kept)
    assert (read_log(tmp_path / "0"), read_log(tmp_path / "1")) == ("", "again\n")
    assert capsys.readouterr().out == "between\nagain\n"


def test_a_stream_that_a_trial_puts_there_stays_and_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Coloured:
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def write(self, text: str) -> int:
            return self.stream.write(f"<{text.strip()}>") if text.strip() else 0  # type: ignore[attr-defined]

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with shown_and_logged(tmp_path / "0"):
        coloured = sys.stdout = Coloured(sys.stdout)  # type: ignore[assignment]
        print("one")
    assert sys.stdout is coloured
    with shown_and_logged(tmp_path / "1"):
        print("two")
    assert sys.stdout is coloured
    assert (read_log(tmp_path / "0"), read_log(tmp_path / "1").split()) == ("<one>", ["two"])
    assert capsys.readouterr().out == "<one><two>"


def test_a_stream_that_a_trial_closes_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout
    with shown_and_logged(tmp_path / "0"):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.stdout.close()
    assert sys.stdout is before


def test_trials_in_two_threads_have_each_its_own_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = threading.Barrier(2, timeout=30)
    before = sys.stdout

    def trial(number: int) -> None:
        with shown_and_logged(tmp_path / str(number)):
            both.wait()
            print("line of", number)
            both.wait()

    threads = [threading.Thread(target=trial, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [read_log(tmp_path / str(number)) for number in range(2)] == ["line of 0\n", "line of 1\n"]
    print("after")
    assert capsys.readouterr().out.endswith("after\n")
    sys.stdout = before


def _strange(place: Path, kind: str, victim: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to({"a link": victim, "a link to nothing": victim.with_name("nothing")}.get(kind, "/dev/zero"))


@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a pipe", "a device"])
def test_a_log_that_is_no_file_of_its_own_is_neither_written_nor_read(kind: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")
    _strange(tmp_path / "0" / "log.txt", kind, victim)
    with pytest.raises(ExperimentError, match="an ordinary file"), logged_only(tmp_path / "0"):
        raise AssertionError("it was written")
    with pytest.raises(ExperimentError, match="an ordinary file"), shown_and_logged(tmp_path / "0"):
        print("something")
    with pytest.raises(ExperimentError, match="an ordinary file"):
        read_log(tmp_path / "0")
    assert quote_log(tmp_path / "0") == ""
    assert victim.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_no_log_is_read_in_a_folder_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "0").mkdir(parents=True)
    (tmp_path / "elsewhere" / "0" / "log.txt").write_text("a secret")
    (tmp_path / "trials").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "1").symlink_to(tmp_path / "elsewhere" / "0")
    for folder in (tmp_path / "trials" / "0", tmp_path / "1"):
        with pytest.raises(ExperimentError, match="a link"):
            read_log(folder)


def test_of_a_very_long_log_the_end_is_read(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with (tmp_path / "0" / "log.txt").open("wb") as file:
        file.truncate(1 << 34)  # 16 GiB, of which the disk holds nothing
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert read_log(tmp_path / "0", 8) == "the end\n"
    assert len(read_log(tmp_path / "0")) == 1 << 24
    assert quote_log(tmp_path / "0").endswith("  the end\n")
