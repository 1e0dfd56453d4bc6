"""What is particular to worker processes: their environments, their warmth, and who may kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nas import Evaluator, Experiment, Job, ModelSpace, NasError, Objectives, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.execution import Assignment, Executor, Outcome, Plan, ProcessExecutor, RayExecutor
from nas.execution.devices import divide_gpus, environments, visible_gpus
from nas.strategies import GridSearch
from nas.testing import PATIENCE, is_alive, wait_until

pytestmark = pytest.mark.long


def plan(function: Callable[..., float]) -> Plan:
    space = ModelSpace(lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="width")))
    return Plan(
        evaluator=FunctionalEvaluator(function),
        objectives=Objectives("maximize"),
        build=space.build_completed,
        hyperparameters=frozenset(),
    )


def run_at_once(executor: Executor, function: Callable[..., float], count: int, folder: Path) -> list[str]:
    """What each of so many trials, all at a time, prints."""

    def evaluate(model: nn.Module) -> float:
        import nas

        result = function(model)
        (nas.trial_directory() / "here").touch()
        while len(list(folder.glob("*/here"))) < count:
            time.sleep(0.01)
        return result

    executor.start(plan(evaluate), count)
    try:
        for number in range(count):
            executor.submit(Assignment(number=number, sample={"width": 1}, seed=1, directory=folder / str(number)))
        outcomes: list[Outcome] = [executor.collect()[1] for _ in range(count)]
    finally:
        executor.close()
    assert [outcome.error for outcome in outcomes] == [None] * count
    return [(folder / str(number) / "log.txt").read_text().strip() for number in range(count)]


def say_environment(model: nn.Module) -> float:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    print(*(os.environ.get(name) for name in names), torch.get_num_threads())
    return 1.0


@pytest.mark.slow
def test_each_worker_sees_its_own_gpus_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    executor = ProcessExecutor(threads=2, gpus_per_trial=1)
    said = run_at_once(executor, say_environment, 2, tmp_path)
    assert sorted(said) == ["GPU-a 2 2", "GPU-b 2 2"]


def test_gpus_that_torch_does_not_see_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.cuda.device_count()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(["4711"] * (there + 1)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)  # with a GPU it would be read anew
    for gpus in (None, 1, 0.5):
        with pytest.raises(NasError, match=r"CUDA_VISIBLE_DEVICES names devices.*received '4711.*gpus_per_trial=0"):
            ProcessExecutor(gpus_per_trial=gpus).start(plan(lambda model: 1.0), 1)
    assert environments(cores=1, workers=1, threads=1, gpus_per_trial=0)[0]["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in environments(cores=1, workers=1, threads=1, gpus_per_trial=None)[0]


def test_gpus_and_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    four = ["0", "1", "2", "3"]
    assert divide_gpus(four, 2, 2) == ["0,1", "2,3"]
    assert divide_gpus(four, 4, None) == four
    assert divide_gpus([], 3, None) == [None] * 3
    assert divide_gpus(four, 2, 0) == ["", ""]
    assert divide_gpus(["0"], 3, 1 / 3) == ["0"] * 3
    assert divide_gpus(["0", "1"], 3, 0.5) == ["0", "0", "1"]
    with pytest.raises(NasError, match=r"4 visible GPUs serve 2 trials at a time.*concurrency=2"):
        divide_gpus(four, 3, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = environments(cores=16, workers=3, threads=None, gpus_per_trial=None)
    assert [one["OMP_NUM_THREADS"] for one in made] == ["5"] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert environments(cores=16, workers=3, threads=None, gpus_per_trial=None) == [{}] * 3


@pytest.mark.slow
def test_an_idle_worker_that_is_killed_costs_no_trial(tmp_path: Path) -> None:
    executor = ProcessExecutor(workers=1)
    executor.start(plan(lambda model: float(os.getpid())), 1)
    try:
        pids = []
        for number in range(4):
            executor.submit(Assignment(number=number, sample={"width": 1}, seed=1))
            outcome = executor.collect()[1]
            assert outcome.values is not None, outcome.error
            pids.append(int(outcome.values[0]))
            if number % 2:
                os.kill(pids[-1], signal.SIGKILL)
                wait_until(lambda: not is_alive(pids[-1]))
    finally:
        executor.close()
    assert pids[0] == pids[1] != pids[2] == pids[3]


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_experiment(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        """
import os, sys, time
from pathlib import Path
from torch import nn
from nas import Experiment, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch

def evaluate(model):
    draft = Path(sys.argv[1]) / f"draft-{os.getpid()}"
    draft.touch()
    draft.rename(draft.with_name(f"pid-{os.getpid()}"))
    time.sleep(1000)

space = lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="width"))
experiment = Experiment(space, FunctionalEvaluator(evaluate), GridSearch(), name="e", directory=sys.argv[1],
                        executor="process")
experiment.run(progress="silent")
""".replace("sys.argv[1]", repr(str(tmp_path)))
    )
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py")])
    wait_until(lambda: any(tmp_path.glob("pid-*")))
    process.kill()
    process.wait(PATIENCE)
    (pid,) = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    wait_until(lambda: not is_alive(pid))


def test_what_cannot_be_pickled_is_told_before_anything_runs(tmp_path: Path) -> None:
    lock = threading.Lock()

    def evaluate(model: nn.Module) -> float:
        with lock:
            return 1.0

    space = lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="width"))  # noqa: E731
    experiment = Experiment(
        space, FunctionalEvaluator(evaluate), GridSearch(), name="locked", directory=tmp_path, executor="process"
    )
    with pytest.raises(NasError, match=r"picklable, but the evaluator cannot be .*lock"):
        experiment.run(progress="silent")
    assert experiment.trials == []


SESSION = """
from torch import nn
from nas import Evaluator, Experiment, ValueChoice
from nas.strategies import GridSearch

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = ValueChoice([1, 2, 3], label="width")

FACTOR = 10

class Judge(Evaluator):
    def evaluate(self, job):
        return job.model.width * FACTOR

experiment = Experiment(Net, Judge(), GridSearch(), name="session", executor="process")
experiment.run(progress="silent")
print([trial.error or trial.value for trial in experiment.trials])
"""


@pytest.mark.slow
def test_classes_of_an_interactive_session_travel(tmp_path: Path) -> None:
    """As in a notebook: there is no file that a worker could import them from."""
    done = subprocess.run([sys.executable, "-"], input=SESSION, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "[10.0, 20.0, 30.0]\n", (done.stdout, done.stderr)


def test_the_search_is_the_same_as_inline(tmp_path: Path) -> None:
    found = []
    for executor in ("inline", "process"):
        experiment = Experiment(
            lambda: nn.Linear(2, ValueChoice([1, 2, 3, 4], label="width")),
            FunctionalEvaluator(lambda model: float(model.weight.detach().sum())),
            GridSearch(),
            name=executor,
            directory=tmp_path,
            executor=executor,  # type: ignore[arg-type]
        )
        experiment.run(progress="silent")
        found.append([(trial.sample, trial.value, trial.seed) for trial in experiment.trials])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be an int from 1 on, or None"),
        ({"threads": 1.5}, "threads must be an int"),
        ({"gpus_per_trial": 1.5}, "whole number, or a fraction"),
        ({"gpus_per_trial": "all"}, "must be a number"),
        ({"grace": -1}, "grace must be"),
    ],
)
def test_bad_numbers_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(NasError, match=message):
        ProcessExecutor(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be an int from 1 on"),
        ({"resources_per_trial": {"CPU": "two"}}, r"resources_per_trial\['CPU'\] must be a number from 0 on"),
        ({"resources_per_trial": {"GPU": -1}}, r"resources_per_trial\['GPU'\] must be a number from 0 on; received -1"),
        ({"grace": "long"}, "grace must be"),
    ],
)
def test_bad_numbers_for_ray_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(NasError, match=message):
        RayExecutor(**options)  # type: ignore[arg-type]


class Closes(Evaluator):
    """Leaves a file when it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def evaluate(self, job: Job) -> float:
        return 1.0

    def close(self) -> None:
        (self.folder / "closed").touch()


@pytest.mark.slow
def test_an_idle_worker_closes_its_evaluator_before_it_ends(tmp_path: Path) -> None:
    experiment = Experiment(
        lambda: nn.Linear(2, ValueChoice([1, 2], label="width")),
        Closes(tmp_path),
        GridSearch(),
        name="closes",
        directory=tmp_path,
        executor="process",
    )
    experiment.run(1, progress="silent")
    assert experiment.trials[0].error is None
    assert (tmp_path / "closed").exists()
