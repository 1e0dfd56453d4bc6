"""Trials in the workers of pools: real ones of each kind. Their whole contracts, but one, are `slow`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor as NativePool
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import loky
import psutil
import pytest
from torch import nn

import nas
from nas import Experiment, ExperimentError, NasError, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.execution import Executor, FuturesExecutor
from nas.strategies import GridSearch
from nas.testing import ExecutorContract, fork, is_alive, wait_until

pytestmark = pytest.mark.long

Make = Callable[[], Any]


def spawned() -> NativePool:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def forking() -> Any:
    """A context whose processes are there at once: `fork` has started what they are forked from."""
    fork(int, output=Path(os.devnull)).join()
    return get_context("forkserver")


def forked() -> NativePool:
    return ProcessPoolExecutor(1, mp_context=forking())


@cache
def cluster(pid: int) -> Any:
    import dask
    from distributed import LocalCluster

    forking()
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        return LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)


@pytest.fixture(scope="module", autouse=True)
def ended_clusters() -> Iterator[None]:
    yield
    if cluster.cache_info().currsize:
        cluster(os.getpid()).close()
        cluster.cache_clear()


def client(address: str) -> Any:
    from distributed import Client

    return Client(address)


def dask() -> Make:
    pytest.importorskip("distributed", reason='needs pip install "torch-nas[dask]"')
    return partial(client, cluster(os.getpid()).scheduler_address)


def jobs(folder: str) -> Any:
    from submitit import LocalExecutor

    return LocalExecutor(folder)


def slurm(folder: Path) -> Make:
    pytest.importorskip("submitit", reason='needs pip install "torch-nas[slurm]"')
    return partial(jobs, str(folder))


@pytest.mark.slow
class TestThreads(ExecutorContract):
    def make(self) -> Executor:
        return FuturesExecutor(partial(ThreadPoolExecutor, 2), workers=2, grace=1)


@pytest.mark.slow
class TestProcesses(ExecutorContract):
    def make(self) -> Executor:
        return FuturesExecutor(spawned, workers=2, grace=1)


@pytest.mark.slow
class TestLoky(ExecutorContract):
    def make(self) -> Executor:
        return FuturesExecutor(partial(loky.ProcessPoolExecutor, 2), workers=2, grace=1)


@pytest.mark.slow
class TestDask(ExecutorContract):
    def make(self) -> Executor:
        return FuturesExecutor(dask(), workers=2, grace=1)


@pytest.mark.slow
class TestSubmitit(ExecutorContract):
    warm = False  # A job ends with its trial.

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.jobs = tmp_path / "jobs"

    def make(self) -> Executor:
        return FuturesExecutor(slurm(self.jobs), workers=2, grace=1)


def search(
    folder: Path,
    executor: Executor,
    function: Callable[[Any], float],
    widths: Sequence[int] = (1, 2, 3),
    **options: Any,
) -> list[Any]:
    def space() -> nn.Module:
        return nn.Linear(2, ValueChoice(list(widths), label="width"))

    experiment = Experiment(
        space, FunctionalEvaluator(function), GridSearch(), name="e", directory=folder, executor=executor, **options
    )
    experiment.run(progress="silent")
    assert list((folder / "e" / "trials").glob(".*")) == [], "the folder of the run is left behind"
    return experiment.trials


class StopAtOnce(nas.EarlyStopping):
    def pruner(self) -> Any:
        from optuna.pruners import ThresholdPruner

        return ThresholdPruner(upper=0.5)


@pytest.mark.parametrize(
    "kind", ["processes", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("loky", "dask", "submitit"))]
)
def test_a_search_in_each_kind_of_pool(kind: str, tmp_path: Path) -> None:
    """One trial is complete (save where each takes seconds to begin), one stopped early; one kills its process."""
    widths = [2, 3] if kind == "submitit" else [1, 2, 3]

    def evaluate(model: nn.Linear) -> float:
        print("width", model.out_features)
        if model.out_features == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        nas.report(0.3 * model.out_features)
        return 1.0

    pools: dict[str, Callable[[], Make]] = {
        "processes": lambda: forked,
        "loky": lambda: partial(loky.ProcessPoolExecutor, 1),
        "dask": dask,
        "submitit": lambda: slurm(tmp_path / "jobs"),
    }
    executor = FuturesExecutor(pools[kind](), workers=1)
    trials = search(tmp_path, executor, evaluate, widths, early_stopping=StopAtOnce())
    assert [trial.state.name for trial in trials] == ["COMPLETE", "STOPPED", "FAILED"][-len(widths) :]
    assert [trial.intermediate for trial in trials] == [{0: 0.3}, {0: 0.6}, {}][-len(widths) :]
    assert "The end of its log:\n  width 3\n" in trials[-1].error
    assert "WorkerDied: the process of this trial was killed (SIGKILL(-9))" in trials[-1].error


@pytest.mark.slow
def test_the_trial_of_a_lost_worker_fails_and_the_pool_is_made_anew(tmp_path: Path) -> None:
    def evaluate(model: nn.Linear) -> float:
        if model.out_features == 2:
            psutil.Process(os.getppid()).kill()  # The worker of the pool, which takes the whole pool with it.
            time.sleep(100)
        return 1.0

    trials = search(tmp_path, FuturesExecutor(forked), evaluate)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAILED", "COMPLETE"]
    assert "WorkerDied: the process of this trial was lost with its worker (BrokenProcessPool: " in trials[1].error


def test_a_given_pool_that_is_broken_ends_the_search(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        executor = FuturesExecutor(pool)
    with pytest.raises(ExperimentError, match=r"takes no more trials \(RuntimeError: .*give .* a function that makes"):
        search(tmp_path, executor, lambda model: 1.0)
    assert [t.state.name for t in nas.Experiment.load(tmp_path / "e").trials] == ["RUNNING"]


@pytest.mark.slow
def test_a_trial_that_the_pool_begins_anew_is_followed(tmp_path: Path) -> None:
    """As SLURM after a preemption: the scheduler of Dask gives the trial of a dead worker to another one."""

    def evaluate(model: nn.Linear) -> float:
        first = not (tmp_path / "begun").exists()
        (tmp_path / "begun").touch()
        nas.report(0.1 if first else 0.2, 0)
        if first:
            nas.report(0.1, 1)
            psutil.Process(os.getppid()).kill()
            time.sleep(100)
        return 1.0

    (trial,) = search(tmp_path, FuturesExecutor(dask()), evaluate, [1])
    assert trial.state is TrialState.COMPLETE
    assert trial.intermediate == {0: 0.2}


def hold(folder: Path) -> None:
    def evaluate(model: nn.Linear) -> float:
        (folder / f"draft-{os.getpid()}").touch()
        (folder / f"draft-{os.getpid()}").rename(folder / f"pid-{os.getpid()}")
        time.sleep(1000)
        return 1.0

    search(folder, FuturesExecutor(partial(ThreadPoolExecutor, 1)), evaluate)


def test_trials_do_not_outlive_a_killed_experiment(tmp_path: Path) -> None:
    process = fork(hold, tmp_path, output=tmp_path / "output")
    wait_until(lambda: any(tmp_path.glob("pid-*")))
    process.kill()
    process.join()
    (pid,) = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    wait_until(lambda: not is_alive(pid))


def test_a_process_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    (trial,) = search(tmp_path, FuturesExecutor(partial(ThreadPoolExecutor, 1)), lambda model: 1.0, [1])
    assert trial.state is TrialState.FAILED
    assert "WorkerDied: the process of this trial ended: EXIT(1), saying " in trial.error


class Counting:
    """A pool that runs nothing by itself."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("pool", "options", "message"),
    [
        ("dask", {}, r"a pool has a method submit.*received 'dask'.*ProcessPoolExecutor, a dask"),
        (Counting(), {"workers": 0}, "workers must be an int from 1 on"),
        (Counting(), {"workers": True}, "workers must be an int from 1 on"),
        (Counting(), {"grace": -1}, "grace must be"),
        (Counting(), {"folder": 3}, "folder must be a path"),
    ],
)
def test_what_is_no_pool_is_refused(pool: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(NasError, match=message):
        FuturesExecutor(pool, **options)


def test_a_function_that_makes_no_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="must make a pool"):
        search(tmp_path, FuturesExecutor(lambda: 3), lambda model: 1.0)  # type: ignore[arg-type, return-value]
