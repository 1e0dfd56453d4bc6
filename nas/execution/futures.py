"""The executor that hands trials to a pool of futures: concurrent.futures, loky, Dask, or SLURM through submitit."""

from __future__ import annotations

import math
import pickle
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeAlias, final

from nas.calls import explained
from nas.checks import absolute, check_int
from nas.durations import check_seconds
from nas.errors import ExperimentError, NasTypeError, explain, told_if_full
from nas.execution.crew import Begun, Crew, Done, Gone, Line, Report, Word, Worker
from nas.execution.executor import CrewedExecutor
from nas.execution.futures_mail import PLAN, Inbox, Pulse, pause_after
from nas.execution.futures_worker import Errand, run_errand
from nas.execution.pickled import dump_plan
from nas.execution.trial_run import Assignment, Plan
from nas.execution.worker_process import describe_end
from nas.files import write_whole
from nas.protocols import bounded

_MOST = 4096
_GRACE = 5.0
_FAREWELL = 10.0
"""Seconds in which workers of the pool surely have ended what they were told to end."""


class Pool(Protocol):
    """What takes functions, and returns futures: objects with `done()`, `result()` and `cancel()`."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """A future for the function's result."""


PoolOrFactory: TypeAlias = Pool | Callable[[], Pool]


@explained()
@final
class FuturesExecutor(CrewedExecutor["PooledWorker"]):
    """Runs trials in the workers of a pool: of `concurrent.futures` or loky, a Dask client, or submitit's for SLURM.

    The pool says where a trial runs. There the trial gets a process of its own beside the pool's worker, which stays
    warm as long as the worker does: so a trial that crashes or is killed for its time takes no worker with it, and
    threads are as safe as processes. A trial whose worker itself is lost, as by a time limit of SLURM, is FAILED with
    what the pool says; where the pool begins it anew by itself, as after a preemption, it is followed there. What the
    workers' environments say (CUDA_VISIBLE_DEVICES, OMP_NUM_THREADS) is what the trials see.

    Experiment and workers talk through files, so all of them must see the folder of the experiment, and `nas` must be
    installed for the workers.

    Args:
        pool: with `submit(function, *arguments)`, which returns a future with `done`, `result` and `cancel`; or a
            function without arguments that makes one, which is then made anew when it breaks, and closed with the run.
        workers: trials at a time at most; None for as many as `Experiment.run(concurrency=...)` asks for. More than
            the pool can run wait their turn in it.
        folder: for the files, on a disk that all workers see; None for one beside the folders of the trials.
        grace: seconds, or a text as "2m", that a trial may go on after `max_trial_time` before its process is killed.

    Raises:
        NasError: something that is no pool, a number that makes no sense.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> FuturesExecutor(ThreadPoolExecutor(4), workers=4).max_concurrency
        4
    """

    def __init__(
        self,
        pool: PoolOrFactory,
        workers: int | None = None,
        *,
        folder: str | Path | None = None,
        grace: float | str = _GRACE,
    ) -> None:
        is_pool = callable(getattr(pool, "submit", None)) and not isinstance(pool, type)
        if not is_pool and not callable(pool):
            raise NasTypeError(
                explain(
                    "a pool has a method submit(function, *arguments), which returns a future",
                    got=pool,
                    mend="give a ProcessPoolExecutor, a dask.distributed.Client, a submitit.AutoExecutor, ..., or a "
                    "function that makes one",
                )
            )
        if workers is not None:
            workers = check_int("workers", workers, least=1, or_else="None", where="FuturesExecutor")
        if not isinstance(folder, str | Path | None):
            raise NasTypeError(explain("folder must be a path, or None", got=folder))
        seconds = check_seconds("grace", grace, least=0, below=1e6, where="FuturesExecutor")
        self._pool: Any = pool if is_pool else None
        self._make: Any = None if is_pool else pool
        self._limit, self._grace = workers, float(seconds)
        self._folder = None if folder is None else absolute(folder)
        self._pickled = b""
        self._run: Path | None = None
        self._pulse: Pulse | None = None
        self._numbers = count()
        self._leaving: list[_Leaving] = []
        self._time: float | None = None

    @property
    def max_concurrency(self) -> int:
        """The number of workers."""
        return _MOST if self._limit is None else self._limit

    @property
    def usual_concurrency(self) -> int:
        """All its workers; one where nobody said how many there are."""
        return self._limit or 1

    @property
    def is_isolated(self) -> bool:
        """Yes."""
        return True

    def start(self, plan: Plan, concurrency: int) -> None:
        """Makes the pool, where a function was given for that.

        Raises:
            NasTypeError: the evaluator or the space cannot be pickled; or what was made is no pool.
        """
        self.close()
        self._pickled = dump_plan(plan)
        if self._make is not None:
            self._pool = self._made()
        self._time = plan.max_trial_time
        self._crew = Crew(self._places(concurrency), listen)

    def _places(self, number: int) -> list[Worker[PooledWorker]]:
        return [Worker(self._worker, limit=self._time, grace=self._grace) for _ in range(number)]

    def _made(self) -> Pool:
        pool = self._make()
        if not callable(getattr(pool, "submit", None)):
            raise NasTypeError(explain("the function must make a pool, with a method submit", got=pool))
        made: Pool = pool
        return made

    def _worker(self) -> PooledWorker:
        assert self._run is not None
        return PooledWorker(self._run, self._numbers, self._submit, self._leaving)

    def _submit(self, payload: bytes) -> Any:
        tidy_up(self._leaving)
        try:
            return self._pool.submit(run_errand, payload)
        except Exception as error:  # Each kind of pool breaks in its own way.
            if self._make is None:
                raise ExperimentError(
                    explain(
                        f"the pool takes no more trials ({type(error).__name__}: {error}); those that run are run "
                        "again on resume",
                        got=self._pool,
                        mend="give FuturesExecutor a function that makes the pool, so that it can be made anew",
                    )
                ) from error
            self._close_pool()
            self._pool = self._made()
            return self._pool.submit(run_errand, payload)

    def submit(self, assignment: Assignment) -> None:
        """Hands a trial to the pool.

        Raises:
            ExperimentError: the pool takes no more.
        """
        if self._run is None:
            self._open(assignment.directory)
        super().submit(assignment)

    def _open(self, directory: Path | None) -> None:
        """Makes the folder of the run, where workers surely see it: they see those of the trials."""
        parent = directory.parent if self._folder is None and directory is not None else self._folder
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        self._run = Path(tempfile.mkdtemp(prefix=".run-", dir=parent)).resolve()
        write_whole(self._run / PLAN, self._pickled)
        self._pulse = Pulse(self._run)

    def limit(self, seconds: float | None) -> None:
        """For trials that begin from now on; those that run may get less time by it, but not more."""
        self._time = seconds
        super().limit(seconds)

    def resize(self, concurrency: int) -> bool:
        """Makes room for so many."""
        self._working.resize(self._places(concurrency))
        return True

    def close(self) -> None:
        """Has all trials killed, takes those that wait from the pool, and closes the pool where it was made here."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None
        if self._pulse is not None:
            self._pulse.end()
            self._pulse = None
        self._wait_for_the_leaving()
        self._close_pool()
        if self._run is not None:
            _remove(self._run)
            self._run = None

    def _wait_for_the_leaving(self) -> None:
        begin = time.monotonic()
        while self._leaving and time.monotonic() < begin + _FAREWELL:
            tidy_up(self._leaving)
            time.sleep(pause_after(time.monotonic() - begin))
        for leaving in self._leaving:
            cancel(leaving.future)
        self._leaving.clear()

    def _close_pool(self) -> None:
        if self._make is not None and self._pool is not None:
            pool, self._pool = self._pool, None
            if isinstance(pool, AbstractContextManager):
                with suppress(Exception):  # It may be broken.
                    pool.__exit__(None, None, None)


@final
@dataclass(frozen=True, kw_only=True)
class _Leaving:
    """A function that has nothing to tell any more, but has not returned to the pool yet."""

    future: Any
    folder: Path


def tidy_up(leaving: list[_Leaving]) -> None:
    """Forgets those that have returned, and their files."""
    for one in [one for one in leaving if one.future.done()]:
        _remove(one.folder)
        leaving.remove(one)


def _remove(folder: Path) -> None:
    """Removes a folder where others may still write last words."""
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)


@final
class PooledWorker(Line):
    """A process beside some worker of the pool, seen from the process of the experiment.

    Args:
        run: the folder of the run.
        numbers: one for each trial that is handed over.
        submit: hands the pool an errand, and returns its future.
        leaving: gets the functions whose trials have ended, or been told to.
    """

    def __init__(
        self, run: Path, numbers: Iterator[int], submit: Callable[[bytes], Any], leaving: list[_Leaving]
    ) -> None:
        self._run, self._numbers, self._submit, self._leaving = run, numbers, submit, leaving
        self._future: Any = None
        self._inbox: Inbox | None = None
        self._words: deque[Word] = deque()
        self._folder = run
        self._assignment: Assignment | None = None
        self._is_done = False
        self._cause = ""

    @property
    def noun(self) -> str:
        """A process."""
        return "process"

    @property
    def is_starved(self) -> bool:
        """Never: the pool has a queue of its own."""
        return False

    def send(self, assignment: Assignment) -> bool:
        """Hands the trial to the pool."""
        self._folder = self._run / str(next(self._numbers))
        self._inbox, self._assignment, self._is_done = Inbox(self._folder), assignment, False
        errand = Errand(run=self._run, words=self._folder, modules=tuple(sys.path), assignment=assignment)
        self._future = self._submit(pickle.dumps(errand))
        return False

    def answer(self, stop: bool) -> None:
        """Answers a report."""
        assert self._inbox is not None
        with told_if_full(self._folder):  # Else it would be taken for the death of the worker.
            self._inbox.answer(stop)

    def words(self) -> Iterator[Word]:
        """What it has said, and how it has ended if it has."""
        assert self._inbox is not None
        is_over = self._future is not None and self._future.done()
        for kind, *rest in self._inbox.read():
            if kind == "done":
                self._is_done = True
            else:
                self._words.append(Begun() if kind == "begun" else Report(step=rest[0], value=rest[1]))
        # Taken at once: a job may need seconds, which are not the trial's, to end after it.
        outcome = self._inbox.outcome() if self._is_done and self._future is not None else None
        if outcome is not None:
            self._words.append(Done(outcome=pickle.loads(outcome)))
            self._leave()
        elif is_over:
            self._words.append(self._last_word())
        while self._words:
            yield self._words.popleft()

    def _leave(self) -> None:
        self._leaving.append(_Leaving(future=self._future, folder=self._folder))
        self._future = None

    def _last_word(self) -> Word:
        assert self._assignment is not None
        future = self._future
        self._leave()
        try:
            kind, result = future.result()
        except Exception as error:  # What each kind of pool raises when a worker of it is lost.
            lines = bounded(f"{type(error).__name__}: {error}", line=500).strip().splitlines()
            self._cause = f"was lost with its worker ({'; '.join(line.strip() for line in lines[:3])})"
            return Gone()
        if kind == "done":
            return Done(outcome=pickle.loads(result))
        if kind == "refused":
            return Done(outcome=self._assignment.failed(result))
        if kind == "full":
            return Done(outcome=replace(self._assignment.failed("OSError: No space left on device"), no_room=True))
        if kind == "died":
            code, last_words = result
            self._cause = describe_end(code) + (f", saying {last_words!r}" if last_words else "")
        else:
            self._cause = "was ended"
        return Gone()

    def cause(self) -> str:
        """How the process ended, or what the pool says."""
        return self._cause

    def end(self) -> None:
        """Has the process killed by the worker of the pool, or takes the trial from the queue."""
        if self._inbox is None or self._future is None:
            return
        self._inbox.end()
        if not self._inbox.is_claimed:
            cancel(self._future)
        self._leave()


def cancel(future: Any) -> None:
    """Takes something from the pool, or breaks it off, as far as the pool can."""
    with suppress(Exception):  # It may have ended just now, in as many ways as there are pools.
        future.cancel()


def listen(workers: list[PooledWorker], timeout: float | None) -> Iterator[tuple[PooledWorker, Word]]:
    """What they say next."""
    begin = time.monotonic()
    end = math.inf if timeout is None else begin + timeout
    while True:
        silent = True
        for worker in workers:
            for word in worker.words():
                silent = False
                yield worker, word
        now = time.monotonic()
        if not silent or now >= end:
            return
        time.sleep(min(pause_after(now - begin), end - now))
