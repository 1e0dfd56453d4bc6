"""Several processes run one experiment on a PostgreSQL server that the test starts."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from torch import nn

from nas import Assignment, Experiment, Real, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random, RegularizedEvolution
from nas.testing import ended_well, fork, wait_until

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Server


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice(list(range(1, 40)), label="width"))


def search(folder: Path, url: str, trials: int, pause: float) -> None:
    os.environ["NAS_HEARTBEAT"] = "1"

    def evaluate(model: Any, rate: float) -> float:
        with open(folder / f"evaluated-{os.getpid()}", "a") as file:
            file.write(json.dumps([model.out_features, rate]) + "\n")
        time.sleep(pause)
        return float(model.out_features * rate)

    experiment = Experiment(
        space,
        FunctionalEvaluator(evaluate, rate=Real(0, 1)),
        RegularizedEvolution(population_size=10),
        name="joint",
        directory=folder / str(os.getpid()),
        seed=3,
        storage=url,
        resume=True,
    )
    experiment.run(trials, progress="silent")
    found = [[t.number, t.sample["width"], t.sample["rate"], t.value, str(t.state)] for t in experiment.trials]
    (folder / f"found-{os.getpid()}").write_text(json.dumps(found))


def start(folder: Path, url: str, trials: int, pause: float = 0.01) -> BaseProcess:
    return fork(search, folder, url, trials, pause, output=folder / "output")


def finish(folder: Path, process: BaseProcess) -> list[list[Any]]:
    ended_well(process, folder / "output")
    found: list[list[Any]] = json.loads((folder / f"found-{process.pid}").read_text())
    return found


def evaluated(folder: Path) -> list[str]:
    return [line for path in folder.glob("evaluated-*") for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_processes_share_the_trials(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("shared")
    results = [finish(tmp_path, process) for process in [start(tmp_path, url, 40) for _ in range(3)]]
    assert results[0] == results[1] == results[2]
    trials = results[0]
    assert [trial[0] for trial in trials] == list(range(40))
    assert {trial[4] for trial in trials} == {"COMPLETE"}
    lines = evaluated(tmp_path)
    assert sorted(lines) == sorted({json.dumps(trial[1:3]) for trial in trials}), "each sample is evaluated once"
    assert len(list(tmp_path.glob("evaluated-*"))) >= 2, "at least two took part"


@pytest.mark.slow
def test_the_trials_of_a_dead_process_are_run_by_another(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("dead")
    victim = start(tmp_path, url, 12, pause=1000)
    wait_until(lambda: len(evaluated(tmp_path)) == 1)
    victim.kill()
    victim.join()
    begin = time.monotonic()
    trials = finish(tmp_path, start(tmp_path, url, 12))
    assert [trial[0] for trial in trials] == list(range(12))
    assert {trial[4] for trial in trials} == {"COMPLETE"}
    lines = evaluated(tmp_path)
    assert len(lines) == 13, "one of twelve was run twice"
    assert len(set(lines)) == 12
    assert time.monotonic() - begin > 1, "not before its heart has stopped"


@pytest.mark.slow
def test_a_connection_that_is_cut_is_survived(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("cut")
    processes = [start(tmp_path, url, 40, pause=0.05) for _ in range(2)]
    for goal in (8, 24):
        wait_until(lambda goal=goal: len(evaluated(tmp_path)) >= goal)  # type: ignore[misc]
        cut = postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cut'", "postgres")
        assert (True,) in cut
    results = [finish(tmp_path, process) for process in processes]
    assert results[0] == results[1]
    assert [trial[0] for trial in results[0]] == list(range(40))
    assert {trial[4] for trial in results[0]} == {"COMPLETE"}
    assert set(evaluated(tmp_path)) == {json.dumps(trial[1:3]) for trial in results[0]}


class Disturbed(Random):
    """While its search holds the turn to begin the third trial, something happens in another process."""

    happens: ClassVar[list[Callable[[], object]]] = []

    def ask(self, number: int) -> Any:
        if number == 2 and self.happens:
            with ThreadPoolExecutor() as pool:
                pool.submit(self.happens.pop()).result()
        return super().ask(number)


@pytest.mark.parametrize("what", ["begin", "finish", "enqueue"])
def test_a_turn_that_was_lost_is_taken_again(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("NAS_HEARTBEAT", "1")
    url, foreign = postgres.database(what), {"width": 7, "rate": 0.25}

    def made(folder: str) -> Experiment:
        evaluator, where = FunctionalEvaluator(value, rate=Real(0, 1)), tmp_path / folder
        return Experiment(space, evaluator, Disturbed(), name="lost", directory=where, storage=url, resume=True)

    def happens() -> None:
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{what}'"
        assert (True,) in postgres.sql(cut, "postgres")
        if what == "enqueue":
            assert made("b").enqueue(foreign)
            return
        other = made("b")._session.begun()
        trial = other.in_turn(lambda: other.begin(foreign, 5))
        assert trial.number == 2, "the one that lost its turn has not written"
        if what == "finish":
            outcome = Assignment(number=2, sample=foreign, seed=5).failed("of the other")
            assert other.in_turn(lambda: other.finish(2, outcome)).state is TrialState.FAILED
        other._ledger.sharing.end()

    Disturbed.happens.append(happens)
    disturbed = made("a")
    disturbed.run(3, progress="silent")
    assert [trial.number for trial in disturbed.trials] == list(range(3))
    assert disturbed.trials[2].sample == foreign
    orders = sorted(record.order for record in disturbed._session.ledger.read())
    assert orders == list(range(3)), "each ended once, after the one before"


def value(model: Any, rate: float) -> float:
    return float(model.out_features * rate)


def make(folder: Path, url: str | None) -> Experiment:
    evaluator = FunctionalEvaluator(value, rate=Real(0, 1))
    return Experiment(space, evaluator, Random(), name="one", directory=folder, storage=url, resume=True)


def test_one_process_finds_what_it_finds_with_a_journal(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("one")
    make(tmp_path / "a", url).run(5, progress="silent")
    resumed = make(tmp_path / "b", url)
    resumed.run(12, progress="silent")
    journal = make(tmp_path / "c", None)
    journal.run(12, progress="silent")
    assert [(t.sample, t.value, t.seed) for t in resumed.trials] == [
        (t.sample, t.value, t.seed) for t in journal.trials
    ]
    assert not any(thread.name == "nas-heartbeat" for thread in threading.enumerate())


def test_a_late_result_of_one_that_was_thought_dead_is_dropped(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("late")
    made = make(tmp_path, url)
    made.run(2, progress="silent")
    one, two = made._session.begun(), make(tmp_path, url)._session.begun()
    trial = one.in_turn(lambda: one.begin({"width": 3, "rate": 0.5}, 1))
    assert two.in_turn(two.adopt) is None, "its heart beats"
    assert trial.number in two.running
    postgres.sql("UPDATE trial_heartbeats SET heartbeat = now() - interval '1 day'", "late")
    assert two.in_turn(two.adopt) == trial
    failed = Assignment(number=trial.number, sample=trial.sample, seed=1).failed("of the second")
    assert two.in_turn(lambda: two.finish(trial.number, failed)).state is TrialState.FAILED
    late = Assignment(number=trial.number, sample=trial.sample, seed=1).failed("of the first, late")
    assert one.in_turn(lambda: one.finish(trial.number, late)).error == "of the second\n"
    for history in (one, two):
        history._ledger.sharing.end()


def test_what_is_enqueued_is_run_by_any(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("queue")
    make(tmp_path / "a", url).run(1, progress="silent")
    running = make(tmp_path / "b", url)
    assert make(tmp_path / "c", url).enqueue({"width": 7, "rate": 0.25})
    running.run(2, progress="silent")
    assert running.trials[1].sample == {"width": 7, "rate": 0.25}


def test_an_unreachable_server_is_an_error_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(Exception, match="the storage cannot be opened") as caught:
        make(tmp_path, "postgresql://nas:secret@127.0.0.1:9/none")
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_a_limit_of_one_host_shrinks_none_of_another(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("limits")
    first = start(tmp_path, url, 60, pause=0.05)
    wait_until(lambda: len(evaluated(tmp_path)) > 3)
    ended_well(start(tmp_path, url, 30), tmp_path / "output")
    assert Experiment.load(tmp_path / str(first.pid) / "joint", storage=url).run["max_trials"] == 60
    assert len(finish(tmp_path, first)) == 60
