"""The executor that runs trials in worker processes, which may die without harm."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import final

from nas.calls import explained
from nas.checks import check_int, check_number
from nas.durations import check_seconds
from nas.errors import NasValueError, explain, told_if_full
from nas.execution.crew import Crew, Worker
from nas.execution.devices import environments
from nas.execution.executor import CrewedExecutor
from nas.execution.pickled import dump_plan
from nas.execution.trial_run import Plan
from nas.execution.worker_process import WorkerProcess, listen
from nas.files import write_whole
from nas.protocols import Place

_MOST = 512
_GRACE = 5.0
_PLAN = "plan.pickle"


@explained()
@final
class ProcessExecutor(CrewedExecutor[WorkerProcess]):
    """Runs trials in processes that stay warm from trial to trial.

    A process that dies, or does not end when its time is up, fails its own trial and is replaced. The processes are
    spawned by loky, one pool of one for each worker, so that each has its own environment and none can take another
    down with it.

    Args:
        workers: how many; None for as many as `Experiment.run(concurrency=...)` asks for.
        threads: CPU threads for each; None divides the cores among them (or leaves OMP_NUM_THREADS as it is set).
        gpus_per_trial: GPUs that each sees, or the fraction of one that it shares; None gives each one GPU, in turn,
            where there are any.
        grace: seconds, or a text as "2m", that a trial may go on after `max_trial_time` before its process is killed.

    Raises:
        NasError: a number that makes no sense.

    Example:
        >>> ProcessExecutor(workers=4, gpus_per_trial=0.5).max_concurrency
        4
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        threads: int | None = None,
        gpus_per_trial: float | None = None,
        grace: float | str = _GRACE,
    ) -> None:
        where = "ProcessExecutor"
        if workers is not None:
            workers = check_int("workers", workers, least=1, or_else="None", where=where)
        if threads is not None:
            threads = check_int("threads", threads, least=1, or_else="None", where=where)
        check_gpus(gpus_per_trial)
        seconds = check_seconds("grace", grace, least=0, below=1e6, where=where)
        self._workers, self._threads, self._gpus, self._grace = workers, threads, gpus_per_trial, float(seconds)
        self._folder: Path | None = None
        self._limit: float | None = None

    @property
    def max_concurrency(self) -> int:
        """The number of workers."""
        return _MOST if self._workers is None else self._workers

    @property
    def usual_concurrency(self) -> int:
        """All its workers; one where nobody said how many there are."""
        return self._workers or 1

    @property
    def is_isolated(self) -> bool:
        """Yes."""
        return True

    @property
    def place(self) -> Place:
        """In processes beside this one."""
        return "this machine"

    def start(self, plan: Plan, concurrency: int) -> None:
        """Makes the workers, each in its environment; a process is spawned when it gets its first trial.

        Raises:
            NasTypeError: the evaluator or the space cannot be pickled.
            NasValueError: there are too few GPUs.
        """
        self.close()
        self._limit = plan.max_trial_time
        divided = self._divided(concurrency)
        pickled = dump_plan(plan)
        with told_if_full(tempfile.gettempdir(), "make room there, or set TMPDIR to a folder on another disk"):
            self._folder = Path(tempfile.mkdtemp(prefix="nas-"))
            write_whole(self._folder / _PLAN, pickled)
        self._crew = Crew(self._places(divided), listen)

    def _divided(self, workers: int) -> list[dict[str, str]]:
        import loky

        cores = loky.cpu_count()
        return environments(cores=cores, workers=workers, threads=self._threads, gpus_per_trial=self._gpus)

    def _places(self, environments: list[dict[str, str]]) -> list[Worker[WorkerProcess]]:
        assert self._folder is not None
        plan = self._folder / _PLAN
        return [
            Worker(
                partial(WorkerProcess, plan, environment),
                limit=self._limit,
                grace=self._grace,
                environment=environment,
            )
            for environment in environments
        ]

    def limit(self, seconds: float | None) -> None:
        """From now on, and for the trials that run."""
        self._limit = seconds
        super().limit(seconds)

    def resize(self, concurrency: int) -> bool:
        """Divides the machine anew; a process that has other threads or GPUs now is replaced when its trial has ended.

        Raises:
            NasValueError: there are too few GPUs.
        """
        self._working.resize(self._places(self._divided(concurrency)))
        return True

    def close(self) -> None:
        """Kills the workers and their children."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def check_gpus(number: object) -> None:
    """Refuses a number of GPUs that makes no sense."""
    if number is None:
        return
    number = check_number("gpus_per_trial", number, least=0, or_else="None", where="ProcessExecutor")
    if number > 1 and number != int(number):
        rule, mend = "gpus_per_trial must be a whole number, or a fraction of one GPU", "gpus_per_trial=2, or 0.5, say"
        raise NasValueError(explain(rule, got=number, where="ProcessExecutor", mend=mend))
