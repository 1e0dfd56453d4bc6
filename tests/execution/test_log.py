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

from nas.execution.log import read_log, shown_and_logged


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
