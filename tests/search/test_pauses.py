"""Trials that wait at the rungs of Hyperband, and go on from their checkpoints."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import nas
from nas import Experiment, Hyperband, Real, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random
from nas.testing import ended_well, fork

if TYPE_CHECKING:
    from conftest import Server

RULE = Hyperband(max_resource=9, pauses=True)
STEPS: list[tuple[str, int]] = []
"""The folder of the trial, and the epoch that it has been trained in."""


def space() -> nn.Module:
    return nn.Linear(1, ValueChoice([1, 2, 3], label="width"))


def train(model: nn.Linear, rate: float) -> float:
    """Goes on from its checkpoint; the value is the rate, so that who passes is known beforehand."""
    begin, done = 0, torch.zeros(())
    if (state := nas.load_checkpoint()) is not None:
        begin, done = state["epoch"] + 1, state["done"]
    trial = nas.trial_directory().name
    for epoch in range(begin, 9):
        if os.environ.get("NAS_TEST_STOP_AT") == f"{trial}:{epoch}":
            raise KeyboardInterrupt
        if os.environ.get("NAS_TEST_FAIL") == trial:
            raise ValueError("as it was told")
        done = done + 1
        STEPS.append((trial, epoch))
        nas.save_checkpoint({"epoch": epoch, "done": done})
        nas.report(rate, step=epoch)
    assert done == 9
    return rate


def make(folder: Path, **options: Any) -> Experiment:
    STEPS.clear()
    given: dict[str, Any] = {"name": "search", "directory": folder, "early_stopping": RULE, **options}
    return Experiment(space, FunctionalEvaluator(train, rate=Real(0, 1)), Random(), **given)


def epochs(experiment: Experiment) -> dict[int, int]:
    return {trial.number: len(trial.intermediate) for trial in experiment.trials}


def best(experiment: Experiment, numbers: Any, k: int) -> set[int]:
    trials = experiment.trials
    return {*sorted(numbers, key=lambda number: -trials[number].sample["rate"])[:k]}


def test_as_many_pass_each_rung_as_published_and_none_is_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make(tmp_path)
    experiment.run(2 * RULE.trials_per_round, progress="plain")
    assert len(experiment.trials) == 34
    came = epochs(experiment)
    for first in (0, 17):
        for bracket, members in enumerate((range(first, first + 9), range(first + 9, first + 14))):
            published = RULE.brackets[bracket]
            assert RULE.members(members[0]) == members
            alive: Any = members
            for trials, resource in published:
                alive = best(experiment, alive, trials)
                assert {number for number in members if came[number] >= resource} == alive
        assert all(came[number] == 9 for number in range(first + 14, first + 17))
    assert max(Counter(STEPS).values()) == 1
    for trial in experiment.trials:
        assert list(trial.intermediate) == list(range(len(trial.intermediate)))
        assert trial.state is (TrialState.COMPLETE if len(trial.intermediate) == 9 else TrialState.STOPPED)
        assert trial.value == trial.sample["rate"]
        assert trial.duration is not None
    assert not [*(tmp_path / "search").glob("trials/*/checkpoint-*")]
    said = capsys.readouterr().out
    assert said.count("of 9 trials that have come to resource 1, 3 go on") == 2
    assert said.count("of 3 trials that have come to resource 3, 1 go on") == 2


def test_a_search_that_is_broken_off_goes_on_as_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(tmp_path, name="whole")
    whole.run(17, progress="silent")
    (promoted,) = best(whole, range(9), 1)
    for place in ("4:0", f"{promoted}:1", f"{promoted}:2", f"{promoted}:6"):
        monkeypatch.setenv("NAS_TEST_STOP_AT", place)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, name="search", resume=True).run(17, progress="silent")
    monkeypatch.delenv("NAS_TEST_STOP_AT")
    broken = make(tmp_path, resume=True)
    broken.run(17, progress="silent")
    assert epochs(broken) == epochs(whole)
    assert [(t.sample, t.state, t.values, t.intermediate) for t in broken.trials] == [
        (t.sample, t.state, t.values, t.intermediate) for t in whole.trials
    ]
    assert max(Counter(STEPS).values()) == 1


def test_what_has_no_checkpoint_begins_anew_and_passes_what_it_has_passed(tmp_path: Path) -> None:
    def forgetful(model: nn.Linear, rate: float) -> float:
        for epoch in range(9):
            nas.report(rate, step=epoch)
        return rate

    experiment = Experiment(
        space,
        FunctionalEvaluator(forgetful, rate=Real(0, 1)),
        Random(),
        name="search",
        directory=tmp_path,
        early_stopping=RULE,
    )
    experiment.run(17, progress="silent")
    other = make(tmp_path, name="other")
    other.run(17, progress="silent")
    assert epochs(experiment) == epochs(other)


def test_a_search_of_less_than_a_bracket_ends_and_can_be_made_longer(tmp_path: Path) -> None:
    experiment = make(tmp_path)
    experiment.run(4, progress="silent")
    assert sorted(epochs(experiment).values()) == [1, 1, 1, 9]
    longer = make(tmp_path, resume=True)
    longer.run(17, progress="silent")
    assert not [trial for trial in longer.trials if trial.state is TrialState.RUNNING]
    assert len(longer.trials) == 17


def test_one_that_fails_does_not_hold_the_others_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_TEST_FAIL", "2")
    experiment = make(tmp_path)
    experiment.run(17, progress="silent")
    states = Counter(trial.state for trial in experiment.trials)
    assert states[TrialState.FAILED] == 1
    assert states[TrialState.RUNNING] == 0
    passed = {number for number, count in epochs(experiment).items() if number < 9 and count > 1}
    assert passed == best(experiment, {*range(9)} - {2}, 2)


def test_trials_that_wait_are_not_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_TEST_STOP_AT", "3:0")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path).run(17, progress="silent")
    with pytest.raises(nas.ExperimentError, match="exists already"):
        make(tmp_path)


@pytest.mark.parametrize(
    "rule", [Hyperband(max_resource=3, pauses=True), Hyperband(min_resource=9, max_resource=9), None]
)
def test_a_search_may_be_gone_on_with_by_another_rule(
    tmp_path: Path, rule: Hyperband | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_TEST_STOP_AT", "16:2")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, early_stopping=Hyperband(min_resource=2, max_resource=9, pauses=True)).run(20, progress="silent")
    monkeypatch.delenv("NAS_TEST_STOP_AT")
    experiment = make(tmp_path, early_stopping=rule, resume=True)
    experiment.run(20, progress="silent")
    assert len(experiment.trials) == 20
    assert not [trial for trial in experiment.trials if trial.state is TrialState.RUNNING]
    assert all([*trial.intermediate] == [*range(len(trial.intermediate))] for trial in experiment.trials)


def test_a_space_that_is_exhausted_ends_the_waiting(tmp_path: Path) -> None:
    experiment = Experiment(
        space,
        FunctionalEvaluator(train, rate=0.5),
        Random(),
        name="search",
        directory=tmp_path,
        early_stopping=RULE,
    )
    experiment.run(progress="silent")
    assert sorted(epochs(experiment).values()) == [1, 1, 9]


@pytest.mark.slow
def test_trials_in_worker_processes_pause_too(tmp_path: Path) -> None:
    inline, parallel = make(tmp_path, name="inline"), make(tmp_path, name="parallel", executor="process")
    inline.run(17, progress="silent")
    parallel.run(17, progress="silent", concurrency=3)
    assert epochs(parallel) == epochs(inline)
    assert [t.intermediate for t in parallel.trials] == [t.intermediate for t in inline.trials]


def test_a_trial_that_was_killed_goes_on_and_keeps_its_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_TEST_STOP_AT", "0:5")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, early_stopping=None).run(1, progress="silent")
    monkeypatch.delenv("NAS_TEST_STOP_AT")
    experiment = make(tmp_path, early_stopping=None, resume=True)
    experiment.run(1, progress="silent")
    assert [("0", epoch) for epoch in range(5, 9)] == STEPS
    assert list(experiment.trials[0].intermediate) == [*range(9)]


def test_the_checkpoint_of_another_experiment_in_the_same_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_TEST_STOP_AT", "0:5")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, early_stopping=None, seed=1).run(1, progress="silent")
    monkeypatch.delenv("NAS_TEST_STOP_AT")
    (tmp_path / "search" / "journal.log").unlink()
    trials = (tmp_path / "search" / "trials").rename(tmp_path / "trials")
    assert [*(trials / "0").glob("checkpoint-*")]
    experiment = make(tmp_path, early_stopping=None, seed=2)  # It would not be made over the trials of another one.
    trials.rename(tmp_path / "search" / "trials")
    experiment.run(1, progress="silent")
    assert [("0", epoch) for epoch in range(9)] == STEPS


def _share(folder: Path, url: str) -> None:
    os.environ["NAS_HEARTBEAT"] = "1"
    experiment = make(folder, storage=url, resume=True)
    experiment.run(34, progress="silent")
    (folder / f"found-{os.getpid()}").write_text(json.dumps([epochs(experiment), STEPS]))


@pytest.mark.slow
def test_processes_that_share_a_search_decide_as_one(postgres: Server, tmp_path: Path) -> None:
    url = postgres.database("pauses")
    processes = [fork(_share, tmp_path, url, output=tmp_path / "output") for _ in range(2)]
    for process in processes:
        ended_well(process, tmp_path / "output")
    alone = make(tmp_path, name="alone")
    alone.run(34, progress="silent")
    found = [json.loads((tmp_path / f"found-{process.pid}").read_text()) for process in processes]
    for came, _ in found:
        assert {int(number): count for number, count in came.items()} == epochs(alone)
    assert max(Counter((trial, epoch) for _, steps in found for trial, epoch in steps).values()) == 1


def test_a_trial_that_waits_is_killed(tmp_path: Path) -> None:
    def kills(model: nn.Linear, rate: float) -> float:
        if nas.trial_directory().name == "4" and not experiment.trials[0].state.is_finished:
            experiment.kill(0)
        return train(model, rate)

    evaluator = FunctionalEvaluator(kills, rate=Real(0, 1))
    experiment = Experiment(space, evaluator, Random(), name="search", directory=tmp_path, early_stopping=RULE)
    experiment.run(9, progress="silent")
    states = [trial.state for trial in experiment.trials]
    assert states[0] is TrialState.FAILED
    assert "TrialKilled: somebody has asked" in experiment.trials[0].error_line
    assert set(states[1:]) <= {TrialState.COMPLETE, TrialState.STOPPED}
    assert states.count(TrialState.COMPLETE) >= 1
