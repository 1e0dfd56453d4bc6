"""Words through files: whole lines only, the last attempt only, and who has not been heard of for long."""

from __future__ import annotations

import pickle
import shutil
import threading
import time
from pathlib import Path

import pytest

from nas.execution import Assignment, futures_worker
from nas.execution.futures_mail import Inbox, Lifeline, Outbox, Pulse
from nas.execution.futures_worker import Errand, run_errand
from nas.testing import wait_until


def test_a_report_waits_for_its_answer(tmp_path: Path) -> None:
    inbox, answers = Inbox(tmp_path / "words"), list[bool]()
    outbox = Outbox(tmp_path / "words", Outbox.claim(tmp_path / "words"))

    def report() -> None:
        outbox.say("begun")
        answers.extend(outbox.ask(step, 0.1 * step) for step in range(3))

    thread = threading.Thread(target=report)
    thread.start()
    heard: list[list[object]] = []
    while thread.is_alive():
        for word in inbox.read():
            heard.append(word)
            if word[0] == "report":
                assert len(answers) == word[1], "it went on without an answer"
                inbox.answer(word[1] == 1)
        time.sleep(0.001)
    assert heard == [["begun"], ["report", 0, 0.0], ["report", 1, 0.1], ["report", 2, 0.2]]
    assert answers == [False, True, False]


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "words")
    number = Outbox.claim(tmp_path / "words")
    with (tmp_path / "words" / f"{number}.words").open("a", buffering=1) as file:
        file.write('["report", 0')
        file.flush()
        assert inbox.read() == []
        file.write(', 0.5]\n["rep')
        file.flush()
        assert inbox.read() == [["report", 0, 0.5]]


def test_only_who_has_begun_last_is_heard(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    inbox = Inbox(folder)
    first = Outbox(folder, Outbox.claim(folder))
    first.say("begun")
    assert inbox.read() == [["begun"]]
    second = Outbox(folder, Outbox.claim(folder))
    first.say("report", 0, 1.0)
    second.say("begun")
    assert inbox.read() == [["begun"]]
    first.say("report", 1, 1.0)
    second.say("report", 0, 2.0)
    assert inbox.read() == [["report", 0, 2.0]]


def test_a_run_is_over_when_it_says_so_or_says_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.execution.futures_mail._BEAT", 0.05)
    pulse = Pulse(tmp_path)
    patient, short = Lifeline(tmp_path), Lifeline(tmp_path, silence=20)
    time.sleep(0.3)
    assert not patient.is_cut()
    assert not short.is_cut()
    pulse.end()
    assert patient.is_cut()

    (tmp_path / "pulse").write_text("of a process that has died")
    orphan = Lifeline(tmp_path, silence=0.2)
    assert not orphan.is_cut()
    wait_until(orphan.is_cut)


def test_a_folder_that_workers_do_not_see_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(futures_worker, "_APPEARS", 0.0)
    errand = Errand(
        run=tmp_path / "elsewhere",
        words=tmp_path / "elsewhere" / "0",
        modules=(),
        assignment=Assignment(number=0, sample={}, seed=0),
    )
    kind, reason = run_errand(pickle.dumps(errand))
    assert kind == "refused"
    assert f"does not find {tmp_path / 'elsewhere'}. To mend: FuturesExecutor(..., folder=...)" in reason


def test_an_outcome_is_there_whole_and_after_all_words(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "words")
    outbox = Outbox(tmp_path / "words", Outbox.claim(tmp_path / "words"))
    outcome, seen = b"x" * 2**22, list[int]()

    def watch() -> None:
        inbox.read()
        while (found := inbox.outcome()) is None:
            pass
        seen.append(len(found))
        shutil.rmtree(tmp_path / "words")  # What the other side writes after this would fail.

    thread = threading.Thread(target=watch)
    thread.start()
    outbox.end(outcome)
    thread.join()
    assert seen == [len(outcome)]
