"""What failed is tried again; what never succeeded is begun anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import Experiment, ExperimentError, NasError, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch, Random, RegularizedEvolution

STATES = {TrialState.COMPLETE: "C", TrialState.FAILED: "F", TrialState.RUNNING: "R", TrialState.STOPPED: "S"}


@pytest.fixture(autouse=True)
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says the widths whose evaluation fails, as a full disk or a missing file would let them; it is no code."""

    def fail(*widths: int) -> None:
        monkeypatch.setenv("FAULTY_WIDTHS", " ".join(map(str, widths)))

    fail()
    return fail


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice([1, 2, 3, 4, 5, 6], label="width"))


def evaluate(model: Any) -> float:
    if str(model.out_features) in os.environ["FAULTY_WIDTHS"].split():
        raise OSError(f"no room for {model.out_features}\nmake some")
    return float(model.out_features)


def other_code(model: Any) -> float:
    return float(model.out_features) + 0.5


def make(folder: Path, strategy: Any = None, value: Callable[[Any], float] = evaluate, **given: Any) -> Experiment:
    strategy = GridSearch() if strategy is None else strategy
    return Experiment(space, FunctionalEvaluator(value), strategy, name="e", directory=folder, **given)


def states(experiment: Experiment) -> str:
    return "".join(STATES[trial.state] for trial in experiment.trials)


@pytest.mark.parametrize("strategy", [GridSearch, Random, lambda: RegularizedEvolution(population_size=3)])
def test_what_failed_is_tried_again(strategy: Any, faulty: Callable[..., None], tmp_path: Path) -> None:
    faulty(2, 5)
    experiment = make(tmp_path, strategy())
    experiment.run(6, progress="silent")
    failed = [trial for trial in experiment.trials if trial.state is TrialState.FAILED]
    faulty()
    assert experiment.retry() == [trial.number for trial in failed]
    assert experiment.retry() == [], "they are in the queue"
    experiment.run(6, progress="silent")
    again = experiment.trials[6:]
    assert [trial.sample for trial in again] == [trial.sample for trial in failed]
    assert {trial.state for trial in again} == {TrialState.COMPLETE}
    assert [trial.state for trial in experiment.trials[:6]].count(TrialState.FAILED) == len(failed), "that is history"
    experiment.run(6, progress="silent")
    assert len(experiment.trials) == 6 + len(failed), "what is tried again counts once"


def test_the_search_is_the_same_when_it_is_gone_on_with(faulty: Callable[..., None], tmp_path: Path) -> None:
    found = []
    for stops in ([9], [6, 7, 9]):
        folder = tmp_path / str(len(stops))
        faulty(2, 5)
        make(folder, Random(), seed=1).run(6, progress="silent")
        faulty()
        make(folder, Random(), seed=1, resume=True).retry()
        for stop in stops:
            experiment = make(folder, Random(), seed=1, resume=True)
            experiment.run(stop, progress="silent")
        found.append([(trial.sample, trial.value, trial.seed) for trial in experiment.trials])
    assert found[0] == found[1]


def test_some_of_them_and_what_fails_once_more(faulty: Callable[..., None], tmp_path: Path) -> None:
    faulty(1, 2, 3)
    experiment = make(tmp_path)
    experiment.run(progress="silent")
    assert states(experiment) == "FFFCCC"
    faulty(1, 3)
    assert experiment.retry(1) == [1]
    assert experiment.retry([0, 1]) == [0]
    experiment.run(progress="silent")
    assert states(experiment) == "FFFCCCCF"
    assert experiment.retry() == [2, 7], "and that which has failed again"
    for wrong, words in ((4, "trial 4 is COMPLETE"), (20, "trial 20 is not there")):
        with pytest.raises(NasError, match=words):
            experiment.retry(wrong)


def test_a_sample_may_be_enqueued_again(tmp_path: Path) -> None:
    experiment = make(tmp_path)
    experiment.run(2, progress="silent")
    assert not experiment.enqueue({"width": 1})
    assert experiment.enqueue({"width": 1}, again=True)
    assert not experiment.enqueue({"width": 1}, again=True), "it waits"
    experiment.run(3, progress="silent")
    assert [trial.sample["width"] for trial in experiment.trials] == [1, 2, 1]
    assert experiment.trials[2].same_as is None
    assert experiment.trials[2].seed != experiment.trials[0].seed
    assert experiment.enqueue({"width": 1}, again=True)
    with pytest.raises(NasError, match="again must be True or False"):
        experiment.enqueue({"width": 1}, again="yes")  # type: ignore[arg-type]


def test_an_experiment_without_a_success_is_begun_anew(
    faulty: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty(*range(10))
    make(tmp_path).run(3, progress="silent")
    mended = make(tmp_path, value=other_code)
    assert mended.trials == []
    mended.run(2, progress="plain")
    assert states(mended) == "CC"
    assert f"begins anew; what it held is in {tmp_path / 'e' / 'earlier' / '0'}" in capsys.readouterr().out.replace(
        "\n", ""
    )
    kept = tmp_path / "e" / "earlier" / "0"
    assert (kept / "journal.log").exists()
    assert sorted(path.name for path in (kept / "trials").iterdir()) == ["0", "1", "2"]
    with pytest.raises(ExperimentError, match="exists already"):
        make(tmp_path, value=other_code)


def test_an_experiment_that_never_ran_is_begun_anew_without_a_word(tmp_path: Path) -> None:
    make(tmp_path)._session.begun()
    again = make(tmp_path, Random(), value=other_code)
    again.run(1, progress="silent")
    assert states(again) == "C"
    assert not (tmp_path / "e" / "earlier").exists()


def test_what_waits_in_the_queue_is_not_lost(tmp_path: Path) -> None:
    make(tmp_path).enqueue({"width": 6})
    with pytest.raises(ExperimentError, match="exists already"):
        make(tmp_path)
    resumed = make(tmp_path, resume="auto")
    resumed.run(1, progress="silent")
    assert resumed.trials[0].sample == {"width": 6}


def test_auto_goes_on_or_begins_anew(faulty: Callable[..., None], tmp_path: Path) -> None:
    first = make(tmp_path, resume="auto")
    faulty(*range(10))
    first.run(3, progress="silent")
    second = make(tmp_path, value=other_code, resume="auto")
    assert second.trials == []
    second.run(2, progress="silent")
    third = make(tmp_path, value=other_code, resume="auto")
    third.run(3, progress="silent")
    assert states(third) == "CCC"
    with pytest.raises(ExperimentError, match="is another one than this"):
        make(tmp_path, resume="auto")
    with pytest.raises(NasError, match='resume must be True, False or "auto"|resume must be True or False'):
        make(tmp_path, resume="maybe")
