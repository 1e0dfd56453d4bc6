"""Words between an experiment and the workers of a pool, through files in a folder that both see.

The folder of a run holds the plan, the pulse of the experiment, and a folder for each trial that was handed to the
pool: `1.words` of whoever began it first, `2.words` if the pool has begun it anew elsewhere, answers in `1.answers`,
and `end` when it is to be killed.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from nas.files import open_file, open_to_append, read_bytes, read_text, write_whole

PLAN, END = "plan.pickle", "end"
MOST = 1 << 40
"""Bytes of a file: as many as it has, for this program has written it, in a folder that it has made."""
_PULSE = "pulse"
_BEAT = 5.0
_SILENCE = 300.0
"""Seconds without a beat of the pulse after which workers take the experiment to be dead."""
_SHORT, _LONG = 0.001, 0.25
"""Seconds between two looks at a file."""


def pause_after(seconds: float) -> float:
    """How long to wait before the next look at a file that has not changed for so many seconds.

    Example:
        >>> pause_after(0.0), pause_after(1.0), pause_after(100.0)
        (0.001, 0.05, 0.25)
    """
    return min(max(seconds / 20, _SHORT), _LONG)


@final
class _Tail:
    """The lines that somebody else appends to a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def lines(self) -> list[str]:
        """Whole lines that have been added since it was asked last."""
        try:
            with open_file(self._path) as file:  # Opened anew each time, so that a network's file system looks again.
                file.seek(self._read)
                new = file.read()
        except OSError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode().splitlines()


@final
class Inbox:
    """What the worker of a trial says, and the way to answer it, in the process of the experiment.

    Args:
        folder: of the trial's words.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._number = folder, 0
        self._tail: _Tail | None = None

    @property
    def is_claimed(self) -> bool:
        """Whether a worker has taken the trial up."""
        return (self._folder / "1.words").exists()

    def read(self) -> list[list[Any]]:
        """New words: those of the worker that has begun it last."""
        if (self._folder / f"{self._number + 1}.words").exists():
            self._number += 1
            self._tail = _Tail(self._folder / f"{self._number}.words")
        return [] if self._tail is None else [json.loads(line) for line in self._tail.lines()]

    def outcome(self) -> bytes | None:
        """What has come of the trial, once that is seen from here."""
        try:
            return read_bytes(outcome_of(self._folder, self._number), most=MOST)
        except OSError:
            return None

    def answer(self, stop: bool) -> None:
        """Answers the last report."""
        _append(self._folder / f"{self._number}.answers", f"{int(stop)}")

    def end(self) -> None:
        """Tells the worker to kill the trial."""
        with suppress(OSError):
            (self._folder / END).touch()


@final
class Outbox:
    """The way from the worker of a trial to the experiment.

    Args:
        folder: of the trial's words.
        number: how often the trial was begun, this time included.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._words, self._outcome = folder / f"{number}.words", outcome_of(folder, number)
        self._answers = _Tail(folder / f"{number}.answers")

    @staticmethod
    def claim(folder: Path) -> int:
        """A number that nobody else has."""
        number = 1
        while True:
            try:
                (folder / f"{number}.words").touch(exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return number

    def say(self, *word: str | float) -> None:
        """Appends a word."""
        _append(self._words, json.dumps(word))

    def ask(self, step: int, value: float) -> bool:
        """Reports, and waits for whether to stop."""
        self.say("report", step, value)
        begin = time.monotonic()
        while not (answers := self._answers.lines()):
            time.sleep(pause_after(time.monotonic() - begin))
        return answers[-1] == "1"

    def end(self, outcome: bytes) -> None:
        """Says what has come of the trial; with that the last word is written, and the folder may be removed."""
        draft = self._outcome.with_suffix(".draft")
        draft.write_bytes(outcome)
        self.say("done")
        os.replace(draft, self._outcome)


@final
class Pulse:
    """Beats in the folder of a run as long as this process lives and the run is not over.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._over = folder / _PULSE, threading.Event()
        write_whole(self._path, "0")
        self._thread = threading.Thread(target=self._beat, name="nas-pulse", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        number = 0
        while not self._over.wait(_BEAT):
            number += 1
            with suppress(OSError):  # A full disk, say: workers wait for long.
                write_whole(self._path, str(number))

    def end(self) -> None:
        """The run is over."""
        self._over.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)


@final
class Lifeline:
    """Whether a run still goes on, seen from a worker; clocks of other machines are not asked.

    Args:
        folder: of the run.
        silence: seconds without a beat after which it is taken to be over.
    """

    def __init__(self, folder: Path, silence: float = _SILENCE) -> None:
        self._path, self._silence = folder / _PULSE, silence
        self._seen, self._when = "", time.monotonic()

    def is_cut(self) -> bool:
        """Whether the run is over, or its process has not been heard of for too long."""
        try:
            seen = read_text(self._path)
        except FileNotFoundError:
            return True
        except OSError:  # A network's file system that does not answer just now.
            seen = self._seen
        if seen != self._seen:
            self._seen, self._when = seen, time.monotonic()
        return time.monotonic() > self._when + self._silence


def _append(path: Path, line: str) -> None:
    with os.fdopen(open_to_append(path), "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def outcome_of(folder: Path, number: int) -> Path:
    """The file that gets what comes of a trial: whole or not at all."""
    return folder / f"{number}.outcome"
