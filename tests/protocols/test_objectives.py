"""Which way a metric is better: as its name tells, as the user says, or asked for; never the wrong way in silence."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import Experiment, ExperimentError, Objectives, TrialState, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.protocols import usual_direction
from nas.strategies import Random

SMALL = [
    *(
        "loss",
        "val_loss",
        "valLoss",
        "ValLoss",
        "MSELoss",
        "valloss",
        "test/Loss",
        "loss1",
        "Validation Loss",
        "losses",
    ),
    *("error", "top1_error", "top5err", "err", "errorRate", "mean squared error", "valMSE", "RMSE", "MAE", "mape"),
    *(
        "perplexity",
        "ppl",
        "nll",
        "negative_log_likelihood",
        "cross_entropy",
        "val/cross-entropy",
        "CrossEntropy",
        "WER",
    ),
]
LARGE = ["accuracy", "valAcc", "acc1", "top5_accuracy", "F1", "R2", "mAP", "log_likelihood", "neg_mean_squared_error"]
UNKNOWN = ["reward", "value", "score", "accuracy_std", "loss_std", "negative_recall", "lossless", "entropy", "top1"]


@pytest.mark.parametrize(
    ("names", "direction"),
    [(SMALL, "minimize"), (LARGE, "maximize"), (UNKNOWN, None)],
    ids=["small", "large", "unknown"],
)
def test_a_name_tells_which_way_its_metric_is_better(names: list[str], direction: str | None) -> None:
    assert {name: usual_direction(name) for name in names} == dict.fromkeys(names, direction)


def space() -> nn.Module:
    return nn.Linear(1, ValueChoice([1, 2, 3], label="width"))


def judge(model: nn.Linear, metric: str) -> dict[str, float]:
    return {metric: float(model.out_features), "accuracy": 0.5}


def searched(folder: Path, metric: str, **options: Any) -> Experiment:
    evaluator = FunctionalEvaluator(judge, metric=metric)
    return Experiment(space, evaluator, Random(), name="search", directory=folder, **options)


@pytest.mark.parametrize("metric", ["loss", "val_error", "perplexity"])
def test_a_lone_loss_is_asked_for_and_what_was_measured_is_kept(tmp_path: Path, metric: str) -> None:
    experiment = searched(tmp_path, metric)
    with pytest.raises(ExperimentError, match=f"nothing says which way '{metric}' is better.*objective='minimize'"):
        experiment.run(3, progress="silent")
    (trial,) = experiment.trials
    assert trial.state is TrialState.FAILED
    assert set(trial.metrics) == {metric, "accuracy"}
    assert trial.error_line.startswith("ExperimentError: nothing says")


def test_a_search_that_was_asked_goes_on_as_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError):
        searched(tmp_path, "loss").run(3, progress="silent")
    loaded = Experiment.load(tmp_path / "search", space, FunctionalEvaluator(judge, metric="loss"), Random())
    with pytest.raises(ExperimentError, match="nothing says which way"):
        loaded.run(3, progress="silent")
    told = searched(tmp_path, "loss", objective="minimize")
    told.run(3, progress="silent")
    assert told.best_trial.value == 1.0
    again = Experiment.load(tmp_path / "search")
    assert again.objectives.directions == ("minimize",)


def test_who_says_maximize_gets_it(tmp_path: Path) -> None:
    first = searched(tmp_path, "loss", resume=False)
    with pytest.raises(ExperimentError):
        first.run(3, progress="silent")
    experiment = searched(tmp_path, "loss", objective="maximize", resume=True)
    experiment.run(4, progress="silent")
    assert experiment.best_trial.value == 3.0
    assert not Experiment.load(tmp_path / "search").objectives.assumed


def test_a_metric_that_is_assumed_rightly_or_of_no_known_name_is_not_asked_for() -> None:
    assumed = Objectives("maximize", assumed=True)
    assert [assumed.doubt({name: 1.0}) for name in ("accuracy", "value", "reward")] == ["", "", ""]
    assert Objectives("maximize").doubt({"loss": 1.0}) == ""
    assert assumed.doubt({"accuracy": 0.5, "loss": 1.0}) == ""
