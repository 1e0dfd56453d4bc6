"""The contract of executors, as a pytest suite: subclass it, say how to make one, and run pytest."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

from torch import nn

from nas.execution import Assignment, Executor, InlineExecutor, Outcome, Plan
from nas.protocols import Evaluator, Job, Objectives, TrialState
from nas.space import ModelSpace, ValueChoice
from nas.testing.interrupted_search import search_and_wait
from nas.testing.processes import PATIENCE, ended_well, fork, held, is_alive, pack, unpack, wait_until


@final
class _Calls(Evaluator):
    """Calls a function with the job: what an executor is to run."""

    def __init__(self, function: Callable[[Job], float]) -> None:
        self.function = function

    def evaluate(self, job: Job) -> float:
        return self.function(job)


@final
@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What there is to see of a run when it is over."""

    executor: Executor
    """Closed."""
    outcomes: dict[int, Outcome]
    """By number, in the order in which they came."""
    reports: list[tuple[int, float, int]]
    """Step, value, and the process that was told."""
    files: dict[str, str]
    """Texts in the folder of the trials, as `0/log.txt`."""


def _once(run: Callable[[Any, Path], _Seen]) -> Callable[[Any, Path], _Seen]:
    """Makes a run once for each class: its workers take far longer to start than each test that looks at it."""
    kept: dict[type, _Seen] = {}

    @wraps(run)
    def kept_run(contract: Any, folder: Path) -> _Seen:
        if type(contract) not in kept:
            kept[type(contract)] = run(contract, folder)
        return kept[type(contract)]

    return kept_run


class ExecutorContract(ABC):
    """What an experiment relies on. Subclass it in a test file under a name that begins with `Test`.

    Class attributes say what the executor does not promise:
        warm: a process that has run a trial runs others too; else each trial may take seconds to begin.

    Example:
        >>> from nas import InlineExecutor
        >>> class TestInline(ExecutorContract):
        ...     def make(self):
        ...         return InlineExecutor()
        >>> TestInline().test_many_trials_leave_nothing_behind(Path("."))
    """

    warm = True

    @abstractmethod
    def make(self) -> Executor:
        """A new executor; with two workers, where it runs trials in other processes. It must survive cloudpickle."""

    # How the tests below use it.

    def _plan(self, function: Callable[[Job], float], **options: Any) -> Plan:
        space = ModelSpace(lambda: nn.Linear(2, ValueChoice(list(range(1, 9)), label="width")))
        return Plan(
            evaluator=_Calls(function),
            objectives=Objectives("maximize"),
            build=space.build_completed,
            hyperparameters=frozenset(),
            **options,
        )

    def _assignment(self, number: int, folder: Path | None = None, **options: Any) -> Assignment:
        directory = None if folder is None else folder / str(number)
        return Assignment(number=number, sample={"width": 1 + number % 8}, seed=number, directory=directory, **options)

    def _run(
        self,
        function: Callable[[Job], float],
        count: int = 1,
        *,
        folder: Path | None = None,
        executor: Executor | None = None,
        on_report: Callable[[int, float], bool] | None = None,
        **options: Any,
    ) -> dict[int, Outcome]:
        """Outcomes by number, in the order in which they came."""
        executor = self.make() if executor is None else executor
        found: dict[int, Outcome] = {}
        try:
            executor.start(self._plan(function, **options), executor.usual_concurrency)
            waiting = [self._assignment(number, folder, on_report=on_report) for number in range(count)]
            under_way = 0
            while waiting or under_way:
                while waiting and under_way < executor.usual_concurrency:
                    executor.submit(waiting.pop(0))
                    under_way += 1
                number, outcome = executor.collect()
                assert number not in found
                found[number] = outcome
                under_way -= 1
        finally:
            executor.close()
        return found

    def _look(self, folder: Path, function: Callable[[Job], float], count: int, stop_at: int, **options: Any) -> _Seen:
        """Runs trials with folders; each is told to stop at a step."""
        executor, reports = self.make(), list[tuple[int, float, int]]()

        def on_report(step: int, value: float) -> bool:
            reports.append((step, value, os.getpid()))
            return step == stop_at

        with TemporaryDirectory(dir=folder.resolve()) as place:
            trials = Path(place)
            outcomes = self._run(function, count, folder=trials, executor=executor, on_report=on_report, **options)
            files = {path.relative_to(trials).as_posix(): path.read_text() for path in trials.rglob("*.txt")}
        return _Seen(executor=executor, outcomes=outcomes, reports=reports, files=files)

    @_once
    def _ordinary(self, tmp_path: Path) -> _Seen:
        """Trials that save a file, print, and return a value; but number 1 raises, and 2 reports until it is stopped.

        Where two run at a time, 0 waits for 3, which begins when two others have been collected.
        """
        at_a_time = self.make().usual_concurrency

        def raises_here() -> None:
            raise ValueError("a peculiar message")

        def evaluate(job: Job) -> float:
            assert job.directory is not None
            (job.directory / "saved.txt").write_text(str(job.number))
            print(f"to the output, {job.number}")
            print(f"to the error, {job.number}", file=sys.stderr)
            if job.number == 0 and at_a_time > 1:
                wait_until((job.directory.parent / "3" / "saved.txt").exists)
            if job.number == 1:
                raises_here()
            for step in range(5 if job.number == 2 else 0):
                job.report(0.5 * step, step)
            layer: Any = job.model
            return float(1000 * job.number + 10 * layer.out_features + (job.seed == job.number))

        return self._look(tmp_path, evaluate, 6, stop_at=2)

    def test_metrics_and_numbers_come_back(self, tmp_path: Path) -> None:
        """Each outcome belongs to its assignment: number, sample, seed and model."""
        found = self._ordinary(tmp_path).outcomes
        complete = {n: outcome for n, outcome in found.items() if n not in (1, 2)}
        assert {n: outcome.values for n, outcome in complete.items()} == {
            n: (1000.0 * n + 10 * (1 + n % 8) + 1,) for n in (0, 3, 4, 5)
        }
        assert all(outcome.state is TrialState.COMPLETE for outcome in complete.values())
        assert all(outcome.sample == {"width": 1 + n % 8} for n, outcome in found.items())
        assert all(outcome.duration > 0 for outcome in found.values())

    def test_outcomes_come_as_trials_end(self, tmp_path: Path) -> None:
        """A trial that ends first is collected first; one after the other they come in order."""
        order = list(self._ordinary(tmp_path).outcomes)
        if self.make().usual_concurrency == 1:
            assert order == list(range(6))
        else:
            assert set(order[: order.index(0)]) >= {1, 2}

    def test_errors_have_the_traceback_of_where_they_were_raised(self, tmp_path: Path) -> None:
        """The function that raised is named, and the message is there; the next trial is not touched by it."""
        found = self._ordinary(tmp_path).outcomes
        assert found[1].state is TrialState.FAILED
        assert "raises_here" in (found[1].error or "")
        assert (found[1].error or "").rstrip().endswith("ValueError: a peculiar message")
        assert found[3].state is found[4].state is TrialState.COMPLETE

    def test_prints_are_kept_with_their_trial(self, tmp_path: Path) -> None:
        """Each trial's standard output and error are in the log of its folder, whatever became of it."""
        files = self._ordinary(tmp_path).files
        for number in range(6):
            lines = files[f"{number}/log.txt"].splitlines()
            assert sorted(lines) == [f"to the error, {number}", f"to the output, {number}"]

    def test_files_go_to_the_folder_of_the_trial(self, tmp_path: Path) -> None:
        """What an evaluator saves in `job.directory` is there afterwards."""
        files = self._ordinary(tmp_path).files
        assert [files[f"{number}/saved.txt"] for number in range(6)] == list("012345")

    def test_reports_reach_the_experiment_and_stop_the_trial(self, tmp_path: Path) -> None:
        """Each report is passed on at once, in the process of the experiment; the trial stops when it is told to."""
        seen = self._ordinary(tmp_path)
        outcome = seen.outcomes[2]
        assert seen.reports == [(step, 0.5 * step, os.getpid()) for step in range(3)]
        assert outcome.state is TrialState.STOPPED, outcome.error
        assert outcome.intermediate == {0: 0.0, 1: 0.5, 2: 1.0}
        assert outcome.values == (1.0,)

    @_once
    def _timed(self, tmp_path: Path) -> _Seen:
        """Trials that have a second. 0 takes longer; so does 1, which ignores all signals where it can be killed."""
        isolated = self.make().is_isolated

        def evaluate(job: Job) -> float:
            if job.number == 0:
                time.sleep(PATIENCE)
            if job.number == 1 and isolated:
                for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGURG, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                assert job.directory is not None
                (job.directory / "pid.txt").write_text(str(os.getpid()))
                end = time.monotonic() + 10 * PATIENCE
                while time.monotonic() < end:
                    time.sleep(1)
            return 1.0

        return self._look(tmp_path, evaluate, 4, stop_at=0, max_trial_time=1.0)

    def test_a_trial_ends_when_its_time_is_up(self, tmp_path: Path) -> None:
        """It is FAILED with the reason; the others are not touched."""
        found = self._timed(tmp_path).outcomes
        assert found[0].state is TrialState.FAILED
        assert "max_trial_time" in (found[0].error or "")
        assert 1.0 <= found[0].duration < PATIENCE / 2
        assert found[2].state is found[3].state is TrialState.COMPLETE, (found[2].error, found[3].error)

    def test_it_can_be_started_again(self, tmp_path: Path) -> None:
        """After `close`, which may be called at any time, with another plan."""
        self.make().close()
        executor = self._ordinary(tmp_path).executor
        executor.close()
        assert self._run(lambda job: 2.0, executor=executor)[0].values == (2.0,)
        executor.close()

    # What only trials in other processes can survive.

    def test_a_trial_that_kills_its_process_fails_alone(self, tmp_path: Path) -> None:
        """By a segmentation fault, a kill, an exit, or for want of memory: FAILED with the reason, and replaced."""
        if not self.make().is_isolated:
            return

        def evaluate(job: Job) -> float:
            print("its last words", flush=True)
            if job.number == 0:
                import resource

                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                before = resource.getrlimit(resource.RLIMIT_AS)
                resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, before[1]))
                try:
                    bytearray(2**30)
                finally:
                    resource.setrlimit(resource.RLIMIT_AS, before)
            if job.number == 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            if job.number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if job.number == 3:
                os._exit(7)
            return 1.0

        found = self._run(evaluate, 5, folder=tmp_path)
        states = {number: outcome.state.name for number, outcome in sorted(found.items())}
        assert states == {**dict.fromkeys(range(4), "FAILED"), 4: "COMPLETE"}, found
        assert all("its last words" in (found[n].error or "") for n in (1, 2, 3))
        assert all("WorkerDied" in (found[n].error or "").splitlines()[-1] for n in (1, 2, 3))
        assert "MemoryError" in (found[0].error or "")

    def test_close_ends_what_runs(self, tmp_path: Path) -> None:
        """Cancellation: the processes of running trials are gone, and those that they have started."""
        if not self.make().is_isolated:
            return

        def evaluate(job: Job) -> float:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            draft = tmp_path / f"draft-{job.number}"
            draft.write_text(f"{os.getpid()}")
            draft.rename(tmp_path / f"pid-{job.number}")
            child.wait()
            return 1.0

        executor = self.make()
        try:
            executor.start(self._plan(evaluate), 2)
            executor.submit(self._assignment(0))
            executor.submit(self._assignment(1))
            wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        finally:
            executor.close()
        pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
        wait_until(lambda: not any(map(is_alive, pids)))

    def test_a_trial_that_ignores_all_signals_is_killed(self, tmp_path: Path) -> None:
        """Its process does not end by itself, so it is ended."""
        if not self.make().is_isolated:
            return
        seen, found = self._timed(tmp_path), self._timed(tmp_path).outcomes
        assert [found[n].state.name for n in range(4)] == ["FAILED", "FAILED", "COMPLETE", "COMPLETE"], found
        assert "max_trial_time" in (found[1].error or "").splitlines()[-1]
        assert "killed" in (found[1].error or "").splitlines()[-1]
        wait_until(lambda: not is_alive(int(seen.files["1/pid.txt"])))

    def test_ctrl_c_once_and_twice(self, tmp_path: Path) -> None:
        """Once: running trials are let finish (those in this very process break off). Twice: they are broken off."""
        count, isolated = self.make().usual_concurrency, self.make().is_isolated

        process = self._search(tmp_path, count)
        _interrupt(process)
        if isolated:
            time.sleep(0.5)
            assert process.is_alive(), "it did not wait for its trials"
            (tmp_path / "go").touch()
        states = self._states(process, tmp_path)
        assert states == ["COMPLETE" if isolated else "RUNNING"] * count

        (tmp_path / "go").unlink(missing_ok=True)
        for path in tmp_path.glob("begun-*"):
            path.unlink()
        process = self._search(tmp_path, count)
        _interrupt(process)
        if isolated:
            time.sleep(0.5)
            _interrupt(process)
        states = self._states(process, tmp_path)
        assert states.count("RUNNING") == count, states

        (tmp_path / "go").touch()
        search_and_wait(tmp_path, InlineExecutor())
        assert (tmp_path / "states").read_text().split() == ["COMPLETE"] * 6

    def _search(self, folder: Path, begun: int) -> BaseProcess:
        process = fork(search_and_wait, folder, self.make(), output=folder / "output")
        wait_until(lambda: not process.is_alive() or len(list(folder.glob("begun-*"))) >= begun)
        assert process.is_alive(), (folder / "output").read_text()
        return process

    def _states(self, process: BaseProcess, folder: Path) -> list[str]:
        ended_well(process, folder / "output")
        return (folder / "states").read_text().split()

    def test_many_trials_leave_nothing_behind(self, tmp_path: Path) -> None:
        """Trivial trials: memory, file handles, threads and processes stay what they were, here and in warm workers."""
        count = 500 if self.warm else 6
        here: list[tuple[int, int]] = []
        there: dict[int, list[tuple[int, int]]] = {}

        def evaluate(job: Job) -> float:
            assert job.model is not None
            job.report(1.0, 0)
            return pack(os.getpid(), *held())

        def note(step: int, value: float) -> bool:
            here.append(held())
            return False

        found = self._run(evaluate, count, on_report=note)
        assert len(found) == count
        for outcome in found.values():
            assert outcome.values is not None, outcome.error
            pid, files, memory = unpack(outcome.values[0])
            there.setdefault(pid, []).append((files, memory))
        assert len(there) <= 2 or not self.warm, "workers were not kept warm"
        for course in (here, *there.values()):
            early, late = course[len(course) // 5], course[-1]
            assert late[0] <= early[0] + 3, f"file handles went from {early[0]} to {late[0]}"
            assert late[1] <= early[1] + 20, f"memory went from {early[1]} to {late[1]} MiB"
        gc.collect()
        wait_until(lambda: not any(is_alive(pid) for pid in there if pid != os.getpid()))
        assert sum(thread.is_alive() and "loky" in thread.name.lower() for thread in threading.enumerate()) == 0


def _interrupt(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
