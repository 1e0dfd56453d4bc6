"""Samples that a user enqueues, and samples that come up again."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import (
    Experiment,
    ExperimentError,
    NasValueError,
    Real,
    Sample,
    Strategy,
    Task,
    Trial,
    TrialState,
    ValueChoice,
    model_space,
)
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch, LocalSearch, Random


@model_space
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(ValueChoice([1, 2, 3, 4], label="in"), ValueChoice([1, 2, 3, 4], label="out"))


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: Any) -> float:
        self.calls += 1
        if model.layer.out_features == 4:
            raise ValueError("four")
        return float(model.layer.in_features + model.layer.out_features)


def make(folder: Path, strategy: Strategy, function: Any = None, **options: Any) -> Experiment:
    values = options.pop("values", {})
    return Experiment(
        Net, FunctionalEvaluator(function or Counting(), **values), strategy, name="q", directory=folder, **options
    )


def samples(experiment: Experiment) -> list[Sample]:
    return [trial.sample for trial in experiment.trials]


def test_the_queue_comes_first_and_is_part_of_the_ledger(tmp_path: Path) -> None:
    given = [{"in": 3, "out": 2}, {"in": 1, "out": 1}, {"in": 2, "out": 2}]
    experiment = make(tmp_path, Random())
    assert [experiment.enqueue(sample) for sample in given] == [True] * 3
    experiment.run(2, progress="silent")
    resumed = make(tmp_path, Random(), resume=True)
    assert [resumed.enqueue(sample) for sample in given] == [False] * 3  # the same script, run again
    resumed.run(6, progress="silent")
    assert samples(resumed)[:3] == given
    assert len({str(sample) for sample in samples(resumed)}) == 6
    assert Experiment.load(tmp_path / "q").trials == resumed.trials


def test_a_search_with_a_queue_goes_on_as_if_it_had_not_been_broken_off(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", LocalSearch(3))
    whole.enqueue({"in": 4, "out": 1})
    whole.run(12, progress="silent")
    for trials in (1, 5, 12):
        part = make(tmp_path / "parts", LocalSearch(3), resume=trials > 1)
        part.enqueue({"in": 4, "out": 1})
        part.run(trials, progress="silent")
    assert samples(part) == samples(whole)


def test_what_an_enqueued_sample_lacks_takes_its_default(tmp_path: Path) -> None:
    experiment = make(
        tmp_path, Random(), lambda model, rate, warm: rate, values={"rate": Real(0.1, 1.0), "warm": Real(0, 1)}
    )
    experiment.enqueue({"in": 2, "warm": 0.25})
    experiment.run(1, progress="silent")
    assert experiment.trials[0].sample == {"in": 2, "out": 1, "rate": 0.1, "warm": 0.25}


def test_an_impossible_sample_is_refused_at_once(tmp_path: Path) -> None:
    experiment = make(tmp_path, Random())
    with pytest.raises(NasValueError, match="label 'depth'"):
        experiment.enqueue({"depth": 3})
    with pytest.raises(NasValueError, match="the answer must be one of 1, 2, 3, 4; received 7"):
        experiment.enqueue({"in": 7})
    assert experiment.trials == []


class Stubborn(Strategy):
    """Proposes the same over and over."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def start(self, task: Task) -> None:
        self.told: list[Trial] = []

    def ask(self, number: int) -> Sample:
        return self.sample

    def tell(self, trial: Trial) -> None:
        self.told.append(trial)


def test_a_repeat_is_answered_from_the_ledger(tmp_path: Path) -> None:
    function, strategy = Counting(), Stubborn({"in": 2, "out": 3})
    experiment = make(tmp_path, strategy, function)
    experiment.run(5, progress="silent")
    assert function.calls == 1
    assert [trial.value for trial in experiment.trials] == [5.0] * 5
    assert [trial.same_as for trial in experiment.trials] == [None, 0, 0, 0, 0]
    assert all(trial.state is TrialState.COMPLETE and trial.metrics == {"value": 5.0} for trial in experiment.trials)
    assert len([t for t in strategy.told if t.state.is_finished]) == 5
    assert len(experiment.export_top_models(3)) == 1
    again = make(tmp_path, Stubborn({"in": 2, "out": 3}), function, resume=True)
    again.run(7, progress="silent")
    assert function.calls == 1
    assert again.trials[:5] == experiment.trials
    assert again.trials[6].same_as == 0


def test_a_failure_is_tried_again_when_it_is_proposed_again(tmp_path: Path) -> None:
    function = Counting()
    make(tmp_path, Stubborn({"in": 1, "out": 4}), function).run(3, progress="silent")
    assert function.calls == 3


def test_an_enqueued_sample_is_not_repeated_by_the_grid(tmp_path: Path) -> None:
    function = Counting()
    experiment = make(tmp_path, GridSearch(), function)
    experiment.enqueue({"in": 1, "out": 3})
    experiment.run(progress="silent")
    assert len(experiment.trials) == 16 == function.calls
    with pytest.raises(ExperimentError, match="exists already"):
        make(tmp_path, GridSearch())
