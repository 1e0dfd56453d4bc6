"""What a search found out about its subnets, in files beside its checkpoints: nothing is judged twice."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, final

from nas.domains import Sample, dumps_sample, loads_sample, sample_key
from nas.errors import ExperimentError, NasError, explain, told_if_full
from nas.files import open_to_append, parse_json, read_json, read_text, write_whole

Key: TypeAlias = tuple[str, int | None]
"""Of a judgement: the sample's, and the batches of validation data."""
_PACE, _SLOWER, _SLOWEST = 5.0, 1.5, 300.0
"""Seconds between two lines of progress: the first, by how much each is longer than the one before, and the last."""


def _damaged(path: Path, line: int, reason: str) -> ExperimentError:
    return ExperimentError(
        explain(
            f"the file is damaged in line {line}: {reason}",
            got=str(path),
            mend="restore it from a copy, or remove it: then the ranking begins anew",
        )
    )


@final
class Ranking:
    """The best samples of a supernet.

    Args:
        path: of the file, which may not be there yet.
        steps: of the supernet's training; what was ranked by another one does not count.
        wanted: how many samples are asked for; where fewer were, they are to be ranked anew.

    Attributes:
        samples: best first; None where nothing is ranked yet.
    """

    def __init__(self, path: Path, steps: int, wanted: int = 0) -> None:
        self._path, self._steps, self._wanted = path, steps, wanted
        self.samples: list[Sample] | None = None
        if os.path.lexists(path):
            self.samples = self._read()

    def _read(self) -> list[Sample] | None:
        found = read_json(self._path)
        if not isinstance(found, dict) or not all(type(found.get(name, 0)) is int for name in ("steps", "wanted")):
            raise _damaged(self._path, 1, "no ranking")
        if found.get("steps") != self._steps or found.get("wanted", self._wanted) < self._wanted:
            return None
        texts = found.get("samples")
        if not isinstance(texts, list) or not texts:
            raise _damaged(self._path, 1, "no list of samples")
        try:
            return [loads_sample(text) for text in texts]
        except NasError as error:
            raise _damaged(self._path, 1, str(error)) from error

    def write(self, samples: list[Sample]) -> None:
        """Writes the file, whole or not at all.

        Raises:
            DiskFull: there is no room.
        """
        found = {"steps": self._steps, "wanted": self._wanted, "samples": [dumps_sample(each) for each in samples]}
        with told_if_full(self._path):
            write_whole(self._path, json.dumps(found))
        self.samples = samples


@final
class Passes:
    """How many batches the judgement of a sample runs.

    Args:
        validation: counts the batches of validation data of a whole judgement; asked when that is first needed.
        recalibration: counts those of training data before them, for the batch statistics; asked once too, for it may
            build an architecture.
    """

    def __init__(self, validation: Callable[[], int], recalibration: Callable[[], int]) -> None:
        self._count_validation, self._count_recalibration = validation, recalibration

    @cached_property
    def validation(self) -> int:
        """Of a whole judgement."""
        return self._count_validation()

    @cached_property
    def _recalibration(self) -> int:
        return self._count_recalibration()

    def recalibration(self, batches: int | None) -> int:
        """How many batches of training data come before so many of validation data: the same share of all of them."""
        whole = self._recalibration
        return whole if batches is None else math.ceil(whole * min(batches / self.validation, 1))

    def total(self, batches: int | None = None) -> int:
        """Of both, for so many of validation data; None for all of them."""
        return (self.validation if batches is None else min(batches, self.validation)) + self.recalibration(batches)


class TimeUp(Exception):  # noqa: N818 - it is no error
    """The time of the run is up; what was judged is written."""


@final
class Judged:
    """A judge that remembers, also after a kill: a line for each judgement, a torn last one left out.

    Args:
        path: of the file.
        steps: of the supernet's training.
        judge: is asked once for each sample and number of batches of validation data, None for all of them; begins to
            judge it, and what it returns says what it is worth.
        passes: what a judgement runs.
        most: batches of validation data of a whole judgement; all of them where None.
        progress: is told of each judgement.
        deadline: says what it is now, of `time.monotonic()`; None for none.
        at_once: says how many judgements are to be begun before the first is waited for.

    Raises:
        TimeUp: from a judgement that is to begin after the deadline; one is made all the same, so that a search of
            many short runs comes to its end.
    """

    def __init__(
        self,
        path: Path,
        steps: int,
        judge: Callable[[Sample, int | None], Callable[[], float]],
        *,
        passes: Passes,
        most: int | None = None,
        progress: RankingProgress | None = None,
        deadline: Callable[[], float | None] = lambda: None,
        at_once: Callable[[], int] = lambda: 1,
    ) -> None:
        self._path, self._steps, self._judge = path, steps, judge
        self._passes, self._most, self._progress, self._deadline = passes, most, progress, deadline
        self._is_first, self._at_once = True, at_once
        self._known: dict[Key, float] = {}
        text = read_text(path) if os.path.lexists(path) else ""
        *lines, torn = text.split("\n")
        for number, line in enumerate(lines, start=1):
            self._take(parse_json(line, where=str(path), line=number), number)
        if torn:  # by a kill, in the middle of the last line
            with told_if_full(path):
                write_whole(path, "".join(f"{line}\n" for line in lines))

    def _take(self, row: Any, number: int) -> None:
        """One line of the file."""
        row = row if isinstance(row, dict) else {}
        steps, sample, batches = row.get("steps"), row.get("sample"), row.get("batches")
        value: Any = row.get("value")
        is_number = (type(value) is float and not math.isnan(value)) or (type(value) is int and abs(value) < 1 << 53)
        if type(steps) is not int or type(sample) is not str or not is_number:
            raise _damaged(self._path, number, "no judgement")
        if batches is not None and (type(batches) is not int or batches < 1):
            raise _damaged(self._path, number, "no number of batches")
        if steps == self._steps:
            self._known[sample, batches] = float(value)

    @property
    def batches(self) -> int:
        """Of validation data, in a whole judgement."""
        return self._passes.validation

    def passes(self, batches: int | None = None) -> int:
        """How many batches a judgement runs, those for the batch statistics among them."""
        return self._passes.total(batches)

    def expect(self, paths: int, whole: float) -> None:
        """Says how many samples will be judged, and that it is as much work as so many whole judgements."""
        if self._progress is not None:
            self._progress.begin(paths, whole)

    def __call__(self, sample: Sample, batches: int | None = None) -> float:
        """What it is worth on so many batches of validation data; more is better."""
        (value,) = self.each([sample], batches)
        return value

    def each(self, samples: Iterable[Sample], batches: int | None = None) -> Iterator[float]:
        """What several are worth, in their order.

        Where this is broken off, what was begun is ended first, and remembered.
        """
        if batches is not None and batches >= self.batches:
            batches = None
        begun: deque[tuple[Key, Callable[[], float] | None]] = deque()
        try:
            for sample in samples:
                key = sample_key(sample), self._most if batches is None else batches
                known = key in self._known or any(key == other for other, _ in begun)
                begun.append((key, None if known else self._begin(sample, key[1])))
                while len(begun) >= self._at_once():
                    yield self._end(*begun.popleft(), batches)
            while begun:
                yield self._end(*begun.popleft(), batches)
        finally:
            for key, worth in begun:
                self._end(key, worth, batches)

    def _begin(self, sample: Sample, batches: int | None) -> Callable[[], float]:
        deadline = self._deadline()
        if deadline is not None and not self._is_first and time.monotonic() > deadline:
            raise TimeUp
        self._is_first = False
        return self._judge(sample, batches)

    def _end(self, key: Key, worth: Callable[[], float] | None, batches: int | None) -> float:
        if worth is not None:
            value = worth()
            self._known[key] = -math.inf if math.isnan(value) else value
            row = {"steps": self._steps, "sample": key[0], "value": self._known[key]}
            line = json.dumps(row if key[1] is None else row | {"batches": key[1]}) + "\n"
            with told_if_full(self._path), os.fdopen(open_to_append(self._path), "w", encoding="utf-8") as file:
                file.write(line)
        if self._progress is not None:
            share = 1.0 if batches is None else self.passes(batches) / self.passes()
            self._progress.judged(key[0], self._known[key], share, new=worth is not None)
        return self._known[key]


@final
class RankingProgress:
    """Says now and then how far a ranking is: lines ever further apart, so that there are a dozen or two at the most.

    Args:
        note: shows a line.
        metric: its name.
        sign: -1 where less of the metric is better, so that it is shown as it is; else 1.
        clock: seconds that go by.

    Example:
        >>> seconds = iter(range(0, 60, 6))
        >>> progress = RankingProgress(print, metric="accuracy", clock=lambda: next(seconds))
        >>> progress.begin(paths=4, whole=4.0)
        >>> for name in "abc":
        ...     progress.judged(name, 0.5, 1.0, new=True)
        ranking: 1 of 4 paths, best accuracy 0.5, 18 s left
        ranking: 3 of 4 paths, best accuracy 0.5, 6 s left
    """

    def __init__(
        self,
        note: Callable[[str], None],
        *,
        metric: str = "",
        sign: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note, self._sign, self._clock = note, sign, clock
        self._name = f"best {metric}" if metric else "best"
        self._paths: int | None = None
        self._whole = self._done = self._new = 0.0
        self._seen: set[str] = set()
        self._best = (0.0, -math.inf)
        self._begin = self._last = clock()
        self._pace = _PACE

    def begin(self, paths: int, whole: float) -> None:
        """So many paths are judged, with as much work as so many whole judgements."""
        self._paths, self._whole = paths, whole

    def judged(self, key: str, value: float, share: float, *, new: bool) -> None:
        """A sample was judged by this share of a whole judgement; anew, or it was known."""
        self._seen.add(key)
        self._done += share
        self._new += share if new else 0.0
        self._best = max(self._best, (share, value))
        now = self._clock()
        if new and now - self._last >= self._pace:
            self._last, self._pace = now, min(self._pace * _SLOWER, _SLOWEST)
            left = (now - self._begin) / self._new * max(self._whole - self._done, 0.0)
            self._note(f"{self._line()}, {_span(left)} left" if self._paths is not None else self._line())

    def end(self) -> None:
        """Says what it came to, where anything was judged."""
        if self._new:
            self._note(f"{self._line()}, in {_span(self._clock() - self._begin)}")

    def _line(self) -> str:
        number = len(self._seen)
        total = number if self._paths is None else max(self._paths, number)
        shown = f"{number}" if self._paths is None else f"{number} of {total}"
        return f"ranking: {shown} path{'' if total == 1 else 's'}, {self._name} {self._sign * self._best[1]:.4g}"


def _span(seconds: float) -> str:
    """A time for the eye: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
