"""Experiments at their edges: what struck when the tests of the plain road had all passed."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch
from torch import nn

import nas
from nas import Experiment, ExperimentError, LayerChoice, NasError, Real, TrialState, ValueChoice, model_space
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch, Random


@model_space
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4, 8], label="width")
        self.layers = nn.Sequential(
            nn.Linear(3, width), LayerChoice([nn.ReLU, nn.Tanh], label="act"), nn.Linear(width, 2)
        )


def size(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Experiment]:
    def make(function: Callable[..., object] = size, **options: object) -> Experiment:
        space = options.pop("space", Net)
        strategy = options.pop("strategy", None) or Random()
        values = options.pop("values", {})
        options = {"name": "test", "directory": tmp_path, **options}
        return Experiment(space, FunctionalEvaluator(function, **values), strategy, **options)  # type: ignore[arg-type]

    return make


def quiet(experiment: Experiment, *args: object, **options: object) -> Experiment:
    experiment.run(*args, progress="silent", **options)  # type: ignore[arg-type]
    return experiment


@pytest.mark.slow
def test_results_loaded_without_the_evaluator_export_everything(make: Callable[..., Experiment]) -> None:
    experiment = quiet(make(lambda model, rate: rate, values={"rate": Real(0, 1)}), 3)
    results = Experiment.load(experiment.path, Net)
    (model,) = results.export_top_models(1, "model")
    assert model.layers[0].out_features == experiment.best_trial.sample["width"]
    (code,) = results.export_top_models(1, "code")
    assert f"HYPERPARAMETERS = {{'rate': {experiment.best_trial.sample['rate']!r}}}" in code.read_text()
    with pytest.raises(ExperimentError, match="needs its model space"):
        Experiment.load(experiment.path).export_top_models(1, "model")


def test_load_finds_the_folder_it_stands_in(make: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = quiet(make(), 2)
    monkeypatch.chdir(experiment.path)
    assert Experiment.load(".").trials == experiment.trials
    assert Experiment.load("../test/").trials == experiment.trials


def test_the_order_of_objectives_belongs_to_the_experiment(make: Callable[..., Experiment]) -> None:
    def two(model: nn.Module) -> dict[str, float]:
        return {"good": 1.0, "cost": 2.0}

    quiet(make(two, objective={"good": "maximize", "cost": "minimize"}), 1)
    with pytest.raises(ExperimentError, match="objective: .*'good'.*'cost'.* then, .*'cost'.*'good'.* now"):
        make(two, objective={"cost": "minimize", "good": "maximize"}, resume=True)


def test_two_experiments_made_before_either_ran_do_not_mix(make: Callable[..., Experiment]) -> None:
    first, second = make(), make(seed=1)
    quiet(first, 2)
    with pytest.raises(ExperimentError, match="'test' has been begun by somebody else"):
        quiet(second, 3)
    loaded = Experiment.load(first.path)
    assert loaded.trials == first.trials
    assert loaded.header["seed"] == 0


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "gibberish://user:secret@host/db"])
def test_a_storage_that_cannot_be_opened_is_refused(make: Callable[..., Experiment], url: str) -> None:
    with pytest.raises(ExperimentError, match="the storage cannot be opened") as caught:
        make(storage=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", None, 3])
def test_names_that_are_no_folder_of_their_own_are_refused(make: Callable[..., Experiment], name: object) -> None:
    with pytest.raises(NasError, match="the name of an experiment is the name of its folder"):
        make(name=name)


def test_a_time_limit_may_be_endless(make: Callable[..., Experiment]) -> None:
    experiment = quiet(make(), 2, max_trial_time=math.inf, timeout=math.inf)
    assert [t.error for t in experiment.trials] == [None, None]


@pytest.mark.parametrize("limit", [0, -1, math.nan, "1"])
@pytest.mark.parametrize("name", ["timeout", "max_trial_time"])
def test_impossible_time_limits_are_refused(make: Callable[..., Experiment], name: str, limit: object) -> None:
    with pytest.raises(NasError, match=f"{name} must be a number of seconds above 0"):
        make().run(1, **{name: limit})


def test_names_of_metrics_are_no_markup(make: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]) -> None:
    experiment = make(lambda model: {"acc[/top]": 1.0}, objective={"acc[/top]": "maximize"})
    experiment.run(1, progress="plain")
    assert "acc[/top] (max)" in capsys.readouterr().out


def test_a_strategy_that_proposes_nonsense_is_named(make: Callable[..., Experiment]) -> None:
    class Dull(nas.Strategy):
        proposal: object = None

        def start(self, task: nas.Task) -> None:
            pass

        def ask(self, number: int) -> nas.Sample:
            return self.proposal  # type: ignore[return-value]

        def tell(self, trial: nas.Trial) -> None:
            pass

    strategy = Dull()
    experiment = make(strategy=strategy)
    with pytest.raises(ExperimentError, match="Dull must propose a dict label -> answer, not None"):
        quiet(experiment, 1)
    strategy.proposal = {"width": 3, "act": 0}
    with pytest.raises(ExperimentError, match=r"Dull proposed an impossible sample(.|\n)*'width'"):
        quiet(experiment, 1)
    assert experiment.trials == []


def test_stopped_trials_show_that_the_evaluator_works(make: Callable[..., Experiment]) -> None:
    calls = []

    def stops_first(model: nn.Module) -> float:
        calls.append(model)
        if len(calls) == 1:
            nas.report(1.0)
            raise nas.TrialPruned("enough")
        raise ValueError("late")

    experiment = quiet(make(stops_first, strategy=Random(distinct=False)), 14)
    assert [t.state.name for t in experiment.trials] == ["STOPPED"] + ["FAILED"] * 13


def test_reports_before_an_interrupt_do_not_join_the_curve(make: Callable[..., Experiment]) -> None:
    calls = []

    def curve(model: nn.Module) -> float:
        calls.append(model)
        for step in range(5 if len(calls) == 1 else 2):
            nas.report(float(step), step)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return 1.0

    experiment = make(curve)
    with pytest.raises(KeyboardInterrupt):
        quiet(experiment, 1)
    quiet(experiment, 1)
    assert experiment.trials[0].intermediate == {0: 0.0, 1: 1.0}
    assert Experiment.load(experiment.path).trials == experiment.trials


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([1.7e308, 1.7e308], "the result must be finite; received inf"),
        ([{"a": 1.0}, {"b": 1.0}], "at least one entry"),
        ([10**400, 1.0], "the result must be finite; received inf"),
    ],
)
def test_repeats_without_a_mean_fail_the_trial(
    make: Callable[..., Experiment], results: list[object], message: str
) -> None:
    left = list(results)
    trial = quiet(make(lambda model: left.pop(0), repeats=2), 1).trials[0]
    assert trial.state is TrialState.FAILED
    assert message in (trial.error or "")


def test_median_pruner_stops_the_worse_half(make: Callable[..., Experiment]) -> None:
    def curve(model: nn.Module) -> float:
        for step in range(4):
            nas.report(size(model), step=step)
        return size(model)

    pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1)
    small_last = make(curve, objective="minimize", strategy=GridSearch(), early_stopping=pruner)
    quiet(small_last)
    states = {t.sample["width"]: t.state.name for t in small_last.trials if t.sample["act"] == "ReLU"}
    assert states == {2: "COMPLETE", 4: "STOPPED", 8: "STOPPED"}
    assert small_last.trials[-1].intermediate.keys() == {0, 1}
    assert small_last.best_trial.sample["width"] == 2


def test_the_random_generators_are_put_back_after_failures(make: Callable[..., Experiment]) -> None:
    import random

    import numpy

    def draws_and_fails(model: nn.Module) -> float:
        random.random(), numpy.random.random(), torch.rand(3)
        raise ValueError

    before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    quiet(make(draws_and_fails), 2)
    assert random.getstate() == before[0]
    assert numpy.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_max_trials_counts_the_whole_experiment(make: Callable[..., Experiment]) -> None:
    experiment = quiet(make(), 2)
    assert len(quiet(experiment, 2).trials) == 2
    assert len(quiet(experiment, 3).trials) == 3
    assert len(quiet(make(resume=True), 3).trials) == 3


def test_plain_lines_tell_of_failures_and_resuming(
    make: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(model: nn.Module) -> float:
        raise ValueError("[bold]no data[/bold]")

    experiment = make(broken)
    experiment.run(5, progress="plain")
    out = capsys.readouterr().out
    assert out.count("FAILED: ValueError: [bold]no data[/bold]") == 3  # the first three are enough
    assert "5/5 trials, none complete yet" in out
    assert re.search(r"\nfailed 5 times: ValueError: \[bold\]no data\[/bold\] \(raised at .*py:\d+ in broken\)\n", out)
    assert re.search(r"\nwhat a trial has printed, and its traceback: nas log \S+ 0 -d /", out)
    experiment.run(6, progress="plain")
    assert "resuming after 5 finished trials" in capsys.readouterr().out
