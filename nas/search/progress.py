"""What a search says while it runs and at its end: a live line, plain lines, or nothing."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, cast, final, get_args

from nas.checks import check_word
from nas.domains import Answer
from nas.plain_text import printable, without_passwords
from nas.protocols import Objectives, Trial, TrialState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.table import Table

ProgressMode: TypeAlias = Literal["auto", "rich", "plain", "silent"]
_SHOWN_FAILURES = 3
_LONGEST = 10 * 365 * 86400.0
"""Seconds."""
_PLAIN_INTERVAL = 10.0
"""Seconds: a log of a search of days should stay readable."""


@final
@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a search stands."""

    objectives: Objectives
    leaders: Sequence[Trial]
    """The best trial, or the front of several objectives; empty while none is COMPLETE."""
    complete: int
    """How many trials are."""

    @property
    def lead(self) -> str:
        """What is best, in a few words; empty while nothing is."""
        if not self.leaders:
            return ""
        if len(self.objectives.names) > 1:
            return f"front of {len(self.leaders)}"
        return printable(f"best {self.objectives.text(self.leaders[0])} (trial {self.leaders[0].number})")

    def __str__(self) -> str:
        """The same, and of several objectives how many are complete."""
        if not self.leaders:
            return "none complete yet"
        return f"{self.complete} complete, {self.lead}" if len(self.objectives.names) > 1 else self.lead


class Progress(ABC):
    """Follows one call of `run`."""

    @abstractmethod
    def begin(self, total: int | None, done: int, size: int | None = None) -> None:
        """The search starts.

        Args:
            total: how many trials there may be; None where that is not limited.
            done: how many of them are in the ledger already.
            size: of the space, where it is known: most strategies try no sample twice.
        """

    @abstractmethod
    def finished(self, trial: Trial, standing: Standing) -> None:
        """A trial has ended."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Something worth a line of its own."""

    def aim(self, total: int | None) -> None:  # noqa: B027 - some show nothing of it
        """There are to be so many trials now; None where nobody says how many."""

    @abstractmethod
    def end(self) -> None:
        """The search is over."""

    @abstractmethod
    def summary(self, text: str, top: Sequence[Trial], objectives: Objectives) -> None:
        """What came out: a table of the top trials, and a closing text."""


def make_progress(mode: ProgressMode) -> Progress:
    """The progress for a mode: "auto" is a live line on a terminal and plain lines elsewhere.

    Raises:
        NasValueError: an unknown mode.
    """
    check_word("progress", mode, get_args(ProgressMode), where="run")
    if mode == "silent":
        return _Silent()
    from rich.console import Console

    console = Console(file=cast(IO[str], _Undeterred()))  # rich asks no more of it than it has
    live = mode == "rich" or (mode == "auto" and console.is_terminal)
    return _Live(console) if live else _Plain(console)


def count_text(trials: Sequence[Trial]) -> str:
    """How many trials ended how: "20 trials: 18 complete, 2 failed"."""
    parts = []
    for state in TrialState:
        number = sum(trial.state is state for trial in trials)
        if number:
            parts.append(f"{number} {state.lower()}")
    return _number(len(trials)) + (": " + ", ".join(parts) if parts else "")


def _number(trials: object) -> str:
    return f"{trials} trial" if trials in (1, "1") else f"{trials} trials"


def sample_text(sample: Mapping[str, Answer]) -> str:
    """label=answer, ... in the order of the space; numbers rounded for the eye."""
    return ", ".join(
        printable(f"{label}={answer:.5g}" if isinstance(answer, float) else f"{label}={answer}")
        for label, answer in sample.items()
    )


@final
class _Undeterred:
    """The standard output of now; what it cannot encode it shows escaped, and what it cannot take at all it drops.

    A search must not end because of a label with an umlaut, a terminal that was closed or a full disk behind a pipe.
    """

    @property
    def _stream(self) -> Any:
        return getattr(sys.stdout, "rich_proxied_file", sys.stdout)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # A UnicodeEncodeError is a ValueError.
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@final
class _Silent(Progress):
    def begin(self, total: int | None, done: int, size: int | None = None) -> None:
        pass

    def finished(self, trial: Trial, standing: Standing) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def end(self) -> None:
        pass

    def summary(self, text: str, top: Sequence[Trial], objectives: Objectives) -> None:
        pass


@final
class _Pace:
    """Rate and time left, counted from where this run began."""

    def __init__(self, total: int | None, done: int, size: int | None) -> None:
        self.done, self._goal, self._size, self._before, self._start = done, total, size, done, time.monotonic()

    def aim(self, total: int | None) -> None:
        """There are to be so many."""
        self._goal = total

    @property
    def total(self) -> int | None:
        """How many trials there will be, as far as that is known."""
        ends = [end for end in (self._goal, self._size) if end is not None and end >= self.done]
        return min(ends, default=self._goal)

    @property
    def rate(self) -> str:
        per_second = (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)
        return f"{per_second:.1f}/s" if per_second >= 1 else f"{per_second * 60:.1f}/min"

    @property
    def left(self) -> str:
        new = self.done - self._before
        if self.total is None or not new:
            return ""
        seconds = (time.monotonic() - self._start) / new * max(self.total - self.done, 0)
        # Of a space without an end, almost, the time is no news; and it may be more than a timedelta holds.
        return f"{timedelta(seconds=round(seconds))} left" if seconds < _LONGEST else ""


@final
class _Plain(Progress):
    """A line at most every ten seconds; each of the first failures at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._failures = 0
        self._last: float | None = None

    def begin(self, total: int | None, done: int, size: int | None = None) -> None:
        self._pace, self._begin = _Pace(total, done, size), time.monotonic()
        if done:
            self.note(f"resuming after {done} finished trial{'' if done == 1 else 's'}")

    def finished(self, trial: Trial, standing: Standing) -> None:
        pace = self._pace
        pace.done += 1
        if trial.state is TrialState.FAILED:
            self._failures += 1
            if self._failures <= _SHOWN_FAILURES:
                self.note(_failure(trial))
        now = time.monotonic()
        # A short search has one line, at its end; a long one none at its end that comes upon the heels of another.
        since = self._begin if self._last is None and pace.done != pace.total else self._last
        if since is not None and now - since < _PLAIN_INTERVAL:
            return
        self._last = now
        done = f"{pace.done}/{pace.total}" if pace.total is not None else f"{pace.done}"
        self.note(", ".join(part for part in (_number(done), str(standing), pace.rate, pace.left) if part))

    def note(self, text: str) -> None:
        _print(self._console, text)

    def aim(self, total: int | None) -> None:
        self._pace.aim(total)

    def end(self) -> None:
        pass

    def summary(self, text: str, top: Sequence[Trial], objectives: Objectives) -> None:
        _print_summary(self._console, text, top, objectives)


@final
class _Live(Progress):
    """One line that redraws itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None
        self._failures = 0

    def begin(self, total: int | None, done: int, size: int | None = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._pace = _Pace(total, done, size)
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("searching", total=self._pace.total, completed=done, pace="")
        self._bar.start()

    def finished(self, trial: Trial, standing: Standing) -> None:
        assert self._bar is not None
        if trial.state is TrialState.FAILED:
            self._failures += 1
            if self._failures <= _SHOWN_FAILURES:
                self.note(_failure(trial))
        pace = self._pace
        pace.done += 1
        text = ", ".join(part for part in (str(standing), pace.rate, pace.left) if part)
        self._bar.update(self._task, total=pace.total, completed=pace.done, pace=text)

    def note(self, text: str) -> None:
        _print(self._console, text)

    def aim(self, total: int | None) -> None:
        assert self._bar is not None
        self._pace.aim(total)
        self._bar.update(self._task, total=self._pace.total)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def summary(self, text: str, top: Sequence[Trial], objectives: Objectives) -> None:
        _print_summary(self._console, text, top, objectives)


def _failure(trial: Trial) -> str:
    return printable(f"trial {trial.number} FAILED: {trial.error_line} ({sample_text(trial.sample)})")


def _print_summary(console: Console, text: str, top: Sequence[Trial], objectives: Objectives) -> None:
    if top:
        console.print(trials_table(top, objectives))
    _print(console, text)


def _print(console: Console, text: str) -> None:
    console.print(without_passwords(printable(text, lines=True)), highlight=False, soft_wrap=True, markup=False)


def trials_table(top: Sequence[Trial], objectives: Objectives) -> Table:
    """The best trials, a column for each objective."""
    from rich.table import Table
    from rich.text import Text

    several = len(objectives.names) > 1
    table = Table(title="Pareto front" if several else "Top trials", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("trial", justify="right")
    for name, direction in objectives.shown(top).items():
        table.add_column(Text(f"{printable(name)} ({'max' if direction == 'maximize' else 'min'})"), justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("sample")
    for rank, trial in enumerate(top, 1):
        values = [f"{value:.6g}" for value in trial.values or ()]
        seconds = f"{trial.duration:.2f}" if trial.duration is not None else ""
        table.add_row(str(rank), str(trial.number), *values, seconds, Text(sample_text(trial.sample)))
    return table
