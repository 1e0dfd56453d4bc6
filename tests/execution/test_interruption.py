"""Trials are ended from outside, in the main thread and in others, and never in the middle of what is ours."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas import NasError
from nas.execution.interruption import Interruption
from nas.testing import wait_until


def in_main(function: Callable[[], object]) -> BaseException | None:
    try:
        function()
    except BaseException as error:
        return error
    return None


def in_another(function: Callable[[], object]) -> BaseException | None:
    found: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: found.append(in_main(function)))
    thread.start()
    thread.join(60)
    return found[0]


THREADS = pytest.mark.parametrize("run", [in_main, in_another])


def works(interruption: Interruption) -> None:
    with interruption.around():
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.001)


def soon(action: Callable[[], object]) -> None:
    timer = threading.Timer(0.05, action)
    timer.daemon = True
    timer.start()


@THREADS
def test_it_is_killed_and_says_why(run: Callable[..., BaseException | None]) -> None:
    interruption = Interruption(None)
    soon(lambda: interruption.kill("enough"))
    error = run(lambda: works(interruption))
    assert type(error).__name__ == "TrialKilled"
    assert str(error) == "enough"
    before = Interruption(None)
    before.kill("at once")
    assert str(run(lambda: works(before))) == "at once"


@THREADS
def test_its_time_is_up(run: Callable[..., BaseException | None]) -> None:
    error = run(lambda: works(Interruption(0.05)))
    assert type(error).__name__ == "TrialTimeout"
    assert str(error) == "the trial ran longer than max_trial_time, 0.05 s"


@THREADS
def test_its_time_is_changed(run: Callable[..., BaseException | None]) -> None:
    shorter = Interruption(1000.0)
    soon(lambda: shorter.limit(0.01))
    assert "max_trial_time, 0.01 s" in str(run(lambda: works(shorter)))
    longer, done = Interruption(0.2), []
    soon(lambda: longer.limit(None))

    def trial() -> None:
        with longer.around():
            time.sleep(0.3)
            done.append("all")

    assert run(trial) is None
    assert done == ["all"]


@THREADS
def test_what_a_library_makes_of_it_says_what_it_was(run: Callable[..., BaseException | None]) -> None:
    interruption = Interruption(0.05)

    def trial() -> None:
        with interruption.around():
            try:
                end = time.monotonic() + 60
                while time.monotonic() < end:
                    time.sleep(0.001)
            except Exception as error:
                raise ValueError("a library's own") from error

    error = run(trial)
    assert type(error).__name__ == "TrialTimeout"
    assert "0.05 s" in str(error)


@THREADS
def test_it_waits_for_what_must_not_be_broken_off(run: Callable[..., BaseException | None]) -> None:
    interruption, steps = Interruption(None), list[str]()
    soon(lambda: interruption.kill("enough"))

    def trial() -> None:
        with interruption.around():
            with interruption.shielded():
                end = time.monotonic() + 0.2
                while time.monotonic() < end:
                    time.sleep(0.001)
                steps.append("written")
            steps.append("never")

    assert str(run(trial)) == "enough"
    assert steps == ["written"]


@THREADS
def test_nothing_strikes_afterwards(run: Callable[..., BaseException | None]) -> None:
    def trials() -> None:
        for number in range(200):
            interruption = Interruption(1e-4 * (number % 7))
            killer = threading.Timer(1e-4 * (number % 5), interruption.kill, ["enough"])
            killer.start()
            try:
                with interruption.around():
                    time.sleep(1e-4 * (number % 6))
            except NasError:
                pass
            killer.join()
            sum(range(1000))

    before = signal.getsignal(signal.SIGURG)
    assert run(trials) is None
    assert signal.getsignal(signal.SIGURG) is before


def test_a_wait_in_the_main_thread_is_ended() -> None:
    interruption = Interruption(None)
    soon(lambda: interruption.kill("enough"))

    def trial() -> None:
        with interruption.around():
            time.sleep(60)

    begin = time.monotonic()
    assert type(in_main(trial)).__name__ == "TrialKilled"
    assert time.monotonic() - begin < 30


def test_alarms_are_the_trial_s_own() -> None:
    """`max_trial_time` takes no signal away that a trial may use."""
    rung: list[Any] = []
    before = signal.signal(signal.SIGALRM, lambda *arguments: rung.append(arguments))
    try:
        with Interruption(1000.0).around():
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            wait_until(lambda: bool(rung))
    finally:
        signal.signal(signal.SIGALRM, before)


@THREADS
def test_an_import_is_let_finish(
    run: Callable[..., BaseException | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"slow_to_import_{run.__name__}"
    (tmp_path / f"{name}.py").write_text(
        "import time\nend = time.monotonic() + 0.3\nwhile time.monotonic() < end:\n    time.sleep(0.001)\nDONE = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    interruption = Interruption(0.05)

    def trial() -> None:
        with interruption.around():
            importlib.import_module(name)
            time.sleep(0.2)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.001)

    assert type(run(trial)).__name__ == "TrialTimeout"
    assert sys.modules[name].DONE
