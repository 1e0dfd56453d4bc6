"""Evaluators that look trainings up or predict them, and the budget of simulated seconds."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from sklearn.ensemble import RandomForestRegressor
from torch import nn

from nas import (
    Experiment,
    Job,
    LayerChoice,
    MedianStop,
    ModelSpace,
    NasError,
    Sample,
    SearchSpaceExhausted,
    Task,
    Trial,
    TrialState,
    ValueChoice,
    model_space,
)
from nas.evaluators import Run, SimulatedBudget, Surrogate, Tabular
from nas.strategies import GridSearch, PathEncoding, Random, RegularizedEvolution
from nas.testing import EvaluatorContract, StrategyContract

DIGITS = Path(__file__).parents[2] / "docs" / "benchmark" / "digits.json.gz"


@model_space
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, ValueChoice([1, 2, 3, 4], label="width")), LayerChoice([nn.ReLU, nn.Tanh], label="act")
        )


def rows(epochs: int = 4) -> list[tuple[Sample, Run]]:
    """Wider is better and slower."""
    found = []
    for sample in ModelSpace(Net).grid():
        end = sample["width"] / 10 + (sample["act"] == "Tanh") / 100
        curve = {step: end * (step + 1) / epochs for step in range(epochs)}
        run = Run(metrics={"accuracy": end, "test": end - 0.01}, seconds=10.0 * sample["width"], curve=curve)
        found.append((sample, run))
    return found


def job(sample: Sample, seed: int = 0) -> Job:
    def build(sample: Sample, seed: int) -> Any:
        raise AssertionError("a table builds no model")

    return Job(number=0, sample=sample, seed=seed, build=build)


def search(tmp_path: Path, evaluator: Any, strategy: Any = None, **options: Any) -> Experiment:
    return Experiment(
        Net(), evaluator, Random() if strategy is None else strategy, name="table", directory=tmp_path, **options
    )


def test_the_metrics_and_the_time_of_a_sample_and_no_model() -> None:
    evaluator = Tabular.of(rows())
    one = job({"width": 3, "act": "Tanh"})
    assert evaluator.evaluate(one) == {"accuracy": 0.31, "test": 0.30, "simulated_seconds": 30.0}
    assert one.reports == pytest.approx({0: 0.31 / 4, 1: 0.31 / 2, 2: 0.31 * 3 / 4, 3: 0.31})


def test_a_curve_may_stay_unreported() -> None:
    one = job({"width": 3, "act": "Tanh"})
    Tabular.of(rows(), curves=False).evaluate(one)
    assert one.reports == {}


def test_a_search_finds_the_best_entry_and_sums_the_time(tmp_path: Path) -> None:
    evaluator = Tabular.of(rows())
    experiment = search(tmp_path, evaluator, objective={"accuracy": "maximize"})
    experiment.run()
    assert experiment.best_trial.sample == {"width": 4, "act": "Tanh"}
    assert experiment.best_trial.metrics["test"] == pytest.approx(0.4)
    assert sum(map(evaluator.simulated_seconds, experiment.trials)) == 2 * (10 + 20 + 30 + 40)


def test_keys_of_any_kind() -> None:
    evaluator = Tabular({("small", 0): 1, ("large", 1): {"a": 2.0, "b": 3.0}}, key=lambda s: (s["size"], s["act"]))
    assert evaluator.evaluate(job({"size": "small", "act": 0})) == {"value": 1.0, "simulated_seconds": 0.0}
    assert evaluator.evaluate(job({"size": "large", "act": 1})) == {"a": 2.0, "b": 3.0, "simulated_seconds": 0.0}


def test_several_trainings_are_drawn_by_the_seed_or_averaged() -> None:
    runs = [
        Run(metrics={"accuracy": 0.5, "once": 1.0}, seconds=10, curve={0: 0.1, 1: 0.5}),
        Run(metrics={"accuracy": 0.7}, seconds=30, curve={0: 0.3, 1: 0.7, 2: 0.8}),
    ]
    drawn = Tabular({"a": runs}, key=lambda sample: "a")
    assert [drawn.run({}, seed).metrics["accuracy"] for seed in range(4)] == [0.5, 0.7, 0.5, 0.7]
    mean = Tabular({"a": runs}, key=lambda sample: "a", runs="mean").run({}, 3)
    assert mean.metrics == pytest.approx({"accuracy": 0.6})
    assert mean.seconds == 20.0
    assert mean.curve == pytest.approx({0: 0.2, 1: 0.6})


def test_the_time_of_steps() -> None:
    clock = {0: 5.0, 1: 6.0, 2: 60.0}
    steps = {0: 0.1, 1: 0.2, 2: 0.3}
    assert [Run(metrics={"a": 1}, seconds=60, curve=steps, clock=clock).seconds_at(i) for i in range(3)] == [5, 6, 60]
    assert [Run(metrics={"a": 1}, seconds=60, curve=steps).seconds_at(i) for i in range(3)] == [20, 40, 60]


def test_trials_stopped_early_cost_the_time_until_then(tmp_path: Path) -> None:
    evaluator = Tabular.of(rows())
    rule = MedianStop(warmup_trials=2)
    experiment = search(tmp_path, evaluator, GridSearch(), objective="maximize", early_stopping=rule)
    for width in (4, 3, 1):
        experiment.enqueue({"width": width, "act": "ReLU"})
    experiment.run(max_trials=3)
    stopped = experiment.trials[2]
    assert (stopped.state, max(stopped.intermediate)) == (TrialState.STOPPED, 0)
    assert list(map(evaluator.simulated_seconds, experiment.trials)) == [40.0, 30.0, 2.5]


def test_repeats_count_and_repeated_answers_do_not(tmp_path: Path) -> None:
    evaluator = Tabular.of(rows())
    experiment = search(tmp_path, evaluator, Random(distinct=False), repeats=3)
    experiment.run(max_trials=20)
    again = [trial for trial in experiment.trials if trial.same_as is not None]
    first = experiment.trials[0]
    assert again
    assert evaluator.simulated_seconds(again[0]) == 0.0
    assert evaluator.simulated_seconds(first) == 3 * 10 * first.sample["width"]


def test_what_the_table_lacks_fails_with_an_explanation(tmp_path: Path) -> None:
    evaluator = Tabular.of(rows()[:1])
    experiment = search(tmp_path, evaluator, GridSearch())
    experiment.run(max_trials=2)
    failed = experiment.trials[1]
    assert "Tabular: the table has no such entry" in failed.error_line
    assert evaluator.simulated_seconds(failed) == 0.0


class TestTabularContract(EvaluatorContract):
    def make(self) -> Tabular:
        return Tabular.of(rows())

    def space(self) -> object:
        return Net


class TestSurrogateContract(EvaluatorContract):
    def make(self) -> Surrogate:
        return Surrogate(lambda sample: Run(metrics={"value": 0.5}, curve={0: sample["width"] / 10, 1: 0.5}))

    def space(self) -> object:
        return Net


class TestBudgetContract(StrategyContract):
    def make(self) -> SimulatedBudget:
        return SimulatedBudget(RegularizedEvolution(20, 5), Surrogate(lambda sample: 0.0), seconds=1e9)


def test_a_budget_ends_the_search_with_the_trial_that_passes_it(tmp_path: Path) -> None:
    evaluator = Tabular.of(rows())
    experiment = search(tmp_path, evaluator, SimulatedBudget(GridSearch(), evaluator, seconds=55))
    experiment.run()
    seconds = [evaluator.simulated_seconds(trial) for trial in experiment.trials]
    assert seconds == [10, 10, 20, 20]


def test_a_resumed_search_remembers_what_it_has_spent(tmp_path: Path) -> None:
    evaluator = Tabular.of(rows())
    search(tmp_path, evaluator, SimulatedBudget(GridSearch(), evaluator, seconds=55)).run(max_trials=2)
    resumed = search(tmp_path, evaluator, SimulatedBudget(GridSearch(), evaluator, seconds=55), resume=True)
    resumed.run()
    assert len(resumed.trials) == 4


def test_a_spent_budget_says_so() -> None:
    strategy = SimulatedBudget(Random(), Surrogate(lambda sample: 0.0, seconds=9), seconds=9)
    strategy.start(Task(space=ModelSpace(Net).search_space))
    sample = strategy.ask(0)
    strategy.tell(Trial(number=0, sample=sample))
    assert strategy.ask(1)
    done = {"state": TrialState.COMPLETE, "values": (0.0,), "metrics": {"value": 0.0, "simulated_seconds": 9.0}}
    strategy.tell(Trial(number=0, sample=sample, **done))  # type: ignore[arg-type]
    with pytest.raises(SearchSpaceExhausted, match="simulated budget of 9 s is spent"):
        strategy.ask(1)


def test_the_table_of_digits_is_served(tmp_path: Path) -> None:
    def runs(row: dict[str, Any]) -> list[Run]:
        return [
            Run(
                metrics={"accuracy": curve[-1], "parameters": row["parameters"]},
                seconds=s,
                curve=dict(enumerate(curve)),
            )
            for curve, s in zip(row["accuracy"], row["seconds"], strict=True)
        ]

    table = json.loads(gzip.decompress(DIGITS.read_bytes()))["rows"]
    evaluator = Tabular.of(((row["sample"], runs(row)) for row in table), runs="mean")
    row = table[5]
    metrics = evaluator.evaluate(job(row["sample"]))
    assert metrics["accuracy"] == pytest.approx(numpy.mean([curve[-1] for curve in row["accuracy"]]))
    assert metrics["simulated_seconds"] == pytest.approx(numpy.mean(row["seconds"]))


def test_a_function_and_an_estimator_predict(tmp_path: Path) -> None:
    space = ModelSpace(Net)
    encode = PathEncoding(space.search_space)
    samples = list(space.grid())
    forest = RandomForestRegressor(n_estimators=20, random_state=0).fit(
        [encode(sample) for sample in samples], [sample["width"] / 10 for sample in samples]
    )
    evaluator = Surrogate(forest, encode=encode, seconds=lambda sample: 60.0 * sample["width"])
    experiment = search(tmp_path, evaluator, GridSearch())
    experiment.run()
    assert experiment.best_trial.sample["width"] == 4
    assert evaluator.simulated_seconds(experiment.best_trial) == 240.0
    assert evaluator.run(samples[0], 0).metrics["value"] == pytest.approx(0.1, abs=0.05)


def test_a_function_may_predict_a_whole_run() -> None:
    run = Run(metrics={"accuracy": 0.5}, seconds=7, curve={0: 0.2, 1: 0.5})
    one = job({"width": 1})
    assert Surrogate(lambda sample: run).evaluate(one) == {"accuracy": 0.5, "simulated_seconds": 7}
    assert one.reports == {0: 0.2, 1: 0.5}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Tabular([1]), "a table is a mapping"),  # type: ignore[arg-type]
        (lambda: Tabular({}, key="width"), "function of a sample"),  # type: ignore[arg-type]
        (lambda: Tabular({}, runs="median"), '"draw" or "mean"'),  # type: ignore[arg-type]
        (lambda: Tabular.of([({}, [])]).run({}, 0), "at least one Run"),
        (lambda: Run(metrics={}), "at least one entry"),
        (lambda: Run(metrics={"a": float("nan")}), "must be finite"),
        (lambda: Run(metrics={"a": 1}, seconds=-1), "Run: seconds must be a number from 0 on; received -1"),
        (lambda: Run(metrics={"a": 1}, curve={0: 1, 1: 2}, clock={0: 1}), "the time of each step"),
        (lambda: Surrogate(3), "object with predict"),  # type: ignore[arg-type]
        (lambda: Surrogate(RandomForestRegressor()), "needs an encoding.*PathEncoding"),
        (lambda: Surrogate(lambda sample: 1.0, seconds="long"), "must be a number"),  # type: ignore[arg-type]
        (lambda: SimulatedBudget(Random(), Tabular({}), seconds=0), "above 0"),
        (lambda: SimulatedBudget(Random(), Random(), seconds=1), "a Tabular or a Surrogate"),  # type: ignore[arg-type]
        (lambda: SimulatedBudget("random", Tabular({}), seconds=1), "a nas.Strategy"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_explained(call: object, message: str) -> None:
    with pytest.raises(NasError, match=message):
        call()  # type: ignore[operator]
