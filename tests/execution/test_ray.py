"""Trials on a real Ray instance on this machine. Their whole contract is `slow`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

import nas
from nas import Experiment, ExperimentError, ModelSpace, Objectives, Patience, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.execution import Executor, Plan, RayExecutor
from nas.strategies import GridSearch
from nas.testing import ExecutorContract

pytestmark = pytest.mark.long

ray = pytest.importorskip("ray")


@pytest.fixture(scope="class")
def instance() -> Iterator[None]:
    """One for the whole contract: it takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        # With a token, who joins it by its address needs this variable: processes forked earlier do not have it.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("instance")
class TestRay(ExecutorContract):
    def make(self) -> Executor:
        # The processes that are interrupted join this instance, too.
        return RayExecutor(workers=2, grace=1, address=ray.get_runtime_context().gcs_address)


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice(list(range(1, 9)), label="width"))


@pytest.fixture(scope="module")
def owner() -> Iterator[Executor]:
    """One that has started a cluster, which others in this process join."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        executor = RayExecutor()
        build = ModelSpace(space).build_completed
        evaluator, objectives = FunctionalEvaluator(lambda model: 1.0), Objectives("maximize")
        executor.start(Plan(evaluator=evaluator, objectives=objectives, build=build, hyperparameters=frozenset()), 1)
        yield executor
        executor.close()


@pytest.mark.slow
@pytest.mark.usefixtures("owner")
def test_a_search(tmp_path: Path) -> None:
    """One trial is complete, one stopped early, one raises, and one kills its process."""

    def evaluate(model: nn.Linear) -> float:
        width = model.out_features
        print("width", width)
        (nas.trial_directory() / "saved.txt").write_text(str(width))
        for _ in range(2 if width == 2 else 1):
            nas.report(0.5)
        if width == 3:
            raise ValueError("a peculiar message")
        if width == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    evaluator, stopping = FunctionalEvaluator(evaluate), Patience(1)
    experiment = Experiment(
        space, evaluator, GridSearch(), name="e", directory=tmp_path, executor="ray", early_stopping=stopping
    )
    experiment.run(4, progress="silent")
    trials = experiment.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "STOPPED", "FAILED", "FAILED"]
    assert [trial.intermediate for trial in trials] == [{0: 0.5}, {0: 0.5, 1: 0.5}, {0: 0.5}, {0: 0.5}]
    assert (trials[2].error or "").endswith("ValueError: a peculiar message\n")
    assert "The end of its log:\n  width 4\nWorkerDied: the actor of this trial has died" in (trials[3].error or "")
    for number, width in enumerate("1234"):
        folder = tmp_path / "e" / "trials" / str(number)
        assert (folder / "log.txt").read_text() == f"width {width}\n"
        assert (folder / "saved.txt").read_text() == width


@pytest.mark.slow
@pytest.mark.usefixtures("owner")
def test_a_request_that_no_node_can_meet_is_refused(tmp_path: Path) -> None:
    executor = RayExecutor(resources_per_trial={"CPU": 1000})
    experiment = Experiment(
        space, FunctionalEvaluator(lambda model: 1.0), GridSearch(), name="e", directory=tmp_path, executor=executor
    )
    with pytest.raises(ExperimentError, match=r"no node of the cluster has what a trial needs.*the nodes have"):
        experiment.run(progress="silent")
    assert experiment.trials == []


@pytest.mark.slow
def test_a_cluster_ends_with_the_run_that_has_started_it(owner: Executor) -> None:
    assert ray.is_initialized(), "those that have joined it have left it running"
    owner.close()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_the_trial_of_a_lost_node_is_run_again_on_another(tmp_path: Path) -> None:
    """In a cluster of its own; each node offers one place."""
    script = tmp_path / "script.py"
    script.write_text(LOST)
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=400)
    assert (tmp_path / "ended").exists(), done.stderr[-3000:]  # Ray's own status tells that a node was killed.
    assert (tmp_path / "ended").read_text() == "COMPLETE COMPLETE COMPLETE"
    nodes = [path.read_text().split() for path in tmp_path.glob("begun-*")]
    assert len(nodes) == 4, "one of three trials began twice"
    twice = [number for number, _ in nodes if [n for n, _ in nodes].count(number) == 2]
    assert len({node for number, node in nodes if number in twice}) == 2, "on two nodes"


LOST = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from torch import nn
from nas import Evaluator, Experiment, ValueChoice
from nas.execution import RayExecutor
from nas.strategies import GridSearch

folder = Path(sys.argv[1])

class Waits(Evaluator):
    def evaluate(self, job):
        import ray
        node = ray.get_runtime_context().get_node_id()
        draft = folder / f"draft-{job.number}-{node}"
        draft.write_text(f"{job.number} {node}")
        draft.rename(folder / f"begun-{job.number}-{node}")
        lost = folder / "lost"
        while job.number < 2 and (not lost.exists() or lost.read_text() == node):  # It ends by losing its node alone.
            time.sleep(0.02)
        return job.number

cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 0,
    "include_dashboard": False,
    "_system_config": {  # A node counts as lost sooner; but not yet when the machine is busy.
        "health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 8,
    },
})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)

def lose():
    while len(list(folder.glob("begun-*"))) < 2:
        time.sleep(0.02)
    cluster.remove_node(nodes[0], allow_graceful=False)
    (folder / "draft-lost").write_text(nodes[0].node_id)
    (folder / "draft-lost").rename(folder / "lost")

threading.Thread(target=lose).start()
experiment = Experiment(lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="width")), Waits(), GridSearch(),
                        name="nodes", directory=folder, executor=RayExecutor(workers=2))
experiment.run(progress="silent")
(folder / "ended").write_text(" ".join(trial.error or trial.state.name for trial in experiment.trials))
"""
