"""The table of faults: how many cases were tried of each kind, and in how many something was lost or changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TRIALS = 8
PATIENCE = 60.0
"""Seconds that a case may take; one that takes longer hangs."""
_PROPERTY = "fault"


@dataclass
class Tally:
    """The cases of one kind of fault.

    Lost is a case after which a trial is gone, changed, or there twice; or a file that is not the experiment's own was
    changed; or the program hung, or said what is wrong in no words of its own.
    """

    kind: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)

    def case(self, name: object, *problems: str) -> None:
        """Counts one; it is lost where there is any problem."""
        self.tried += 1
        found = [problem for problem in problems if problem]
        if found:
            self.lost.append(f"{name}: {'; '.join(found)}")


@dataclass
class Tallies:
    """Those of one test."""

    all: list[Tally] = field(default_factory=list)

    def __call__(self, kind: str) -> Tally:
        self.all.append(Tally(kind))
        return self.all[-1]


@pytest.fixture
def tally(record_property: Any) -> Iterator[Tallies]:
    """Begins to count the cases of a kind; the test fails at its end where something was lost."""
    tallies = Tallies()
    yield tallies
    for each in tallies.all:
        record_property(_PROPERTY, [each.kind, each.tried, len(each.lost)])
    lost = [f"{each.kind}, {problem}" for each in tallies.all for problem in each.lost]
    if lost:
        pytest.fail(f"{len(lost)} cases were lost:\n" + "\n".join(lost[:20]), pytrace=False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the table."""
    rows: dict[str, list[int]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == _PROPERTY and getattr(report, "when", "") == "teardown":
                    row = rows.setdefault(value[0], [0, 0])
                    row[0] += value[1]
                    row[1] += value[2]
    if rows:
        terminalreporter.section("faults")
        width = max(map(len, rows))
        terminalreporter.write_line(f"{'fault':<{width}}  tried   lost")
        for kind, (tried, lost) in rows.items():
            terminalreporter.write_line(f"{kind:<{width}}  {tried:>5}  {lost:>5}")


class Target:
    """The program of `target.py`: runs cases, each in a process of its own."""

    def __init__(self, place: Path) -> None:
        self.place, self._count = place, 0
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("target.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def _tell(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return self._read()

    def folder(self) -> Path:
        """A new folder for experiments."""
        self._count += 1
        made = self.place / str(self._count)
        made.mkdir()
        return made

    def begin(self, folder: Path, **case: Any) -> tuple[int, Path]:
        """Begins a case: the number of its process, and where its answer will be."""
        self._count += 1
        answer = self.place / f"answer-{self._count}"
        case = {"folder": str(folder), "answer": str(answer), "trials": TRIALS, **case}
        return self._tell(case)["pid"], answer

    def end(self, begun: tuple[int, Path], *, kill_after: float | None = None) -> dict[str, Any]:
        """What a case came to: its answer; {"killed": True} or, where that was no purpose, {"hung": True}."""
        pid, answer = begun
        timer = threading.Timer(PATIENCE if kill_after is None else kill_after, _kill, [pid])
        timer.start()
        self._tell({"wait": pid})
        timer.cancel()
        if not answer.exists():
            return {"hung" if kill_after is None else "killed": True}
        found: dict[str, Any] = json.loads(answer.read_text())
        return found

    def play(self, folder: Path, **case: Any) -> dict[str, Any]:
        """A case from its beginning to its end."""
        return self.end(self.begin(folder, **case))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        time.sleep(0.05)  # It has not made its group yet, or is gone.
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """What is struck."""
    made = Target(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


@dataclass(frozen=True)
class Reference:
    """A search that nothing has struck."""

    folder: Path
    trials: list[Any]
    """Once it has gone on to its end."""
    seen: list[Any]
    """As it is now."""

    def copy(self, target: Target) -> Path:
        """A copy of its folder, for a case."""
        folder = target.folder()
        shutil.copytree(self.folder / "struck", folder / "struck", symlinks=True)
        return folder

    def differences(self, answer: dict[str, Any], *, whole: bool = True) -> str:
        """What is lost or changed in the trials of an answer; nothing where the answer is an error in our words.

        Args:
            answer: of a case.
            whole: whether the search has gone on to its end.
        """
        if answer.get("hung"):
            return "it hung"
        if "error" in answer:
            return "" if answer["told"] else f"a raw error: {answer['error'][:200]}"
        trials = answer["trials"]
        expected = self.trials if whole else self.seen
        if len(trials) != len(expected):
            return f"{len(trials)} trials in place of {len(expected)}"
        changed = [mine[0] for mine, theirs in zip(trials, expected, strict=True) if mine != theirs]
        return f"trials {changed} are others" if changed else ""


@pytest.fixture(scope="session")
def reference(target: Target) -> Reference:
    """A whole search."""
    folder = target.folder()
    answer = target.play(folder, resume=False)
    assert "error" not in answer, answer["traceback"]
    assert len(answer["trials"]) == TRIALS
    return Reference(folder, answer["trials"], answer["trials"])


@pytest.fixture(scope="session")
def half(target: Target, reference: Reference) -> Reference:
    """The same search, killed in its middle: the folder holds a trial that was begun and has not ended."""
    for pause in range(40):
        folder = target.folder()
        begun = target.begin(folder, resume=False, slow=0.05)
        target.end(begun, kill_after=0.4 + 0.05 * pause)
        answer = target.play(folder, load=True)
        states = [trial[2] for trial in answer.get("trials", ())]
        if states.count("COMPLETE") >= 3 and "RUNNING" in states:
            return Reference(folder, reference.trials, answer["trials"])
    raise AssertionError("the search was never caught in its middle")
