"""Searches over programs in which choices depend on the value of others, in ordinary Python."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from nas import Experiment, Integer, Real, Strategy, ValueChoice, search_space
from nas.evaluators import FunctionalEvaluator
from nas.strategies import (
    BANANAS,
    PPO,
    TPE,
    Anneal,
    GaussianProcess,
    GridSearch,
    LocalSearch,
    Random,
    RegularizedEvolution,
)

ALL = [GridSearch, Random, LocalSearch, Anneal, RegularizedEvolution, TPE, GaussianProcess, BANANAS, PPO]


def widths() -> list[int]:
    """1,110 samples; the greatest sum is 30."""
    return [ValueChoice(list(range(1, 11)), label=f"w{i}") for i in range(ValueChoice([1, 2, 3], label="depth"))]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.filterwarnings("ignore:RegularizedEvolution")
def test_no_strategy_ends_before_it_has_tried_what_it_was_asked_for(kind: type[Strategy], tmp_path: Path) -> None:
    space = search_space(widths)
    assert space.size == 1110
    experiment = Experiment(space, FunctionalEvaluator(sum), kind(), name="e", directory=tmp_path)
    experiment.run(60, progress="silent")
    samples = [tuple(trial.sample.values()) for trial in experiment.trials]
    assert len(set(samples)) == 60
    if kind not in (GridSearch, Random):
        assert experiment.best_trial.value is not None
        assert experiment.best_trial.value >= 24


def test_a_small_space_is_exhausted_when_all_of_it_was_tried(tmp_path: Path) -> None:
    space = search_space(
        lambda: [ValueChoice([1, 2], label=f"w{i}") for i in range(ValueChoice([1, 2], label="depth"))]
    )
    experiment = Experiment(space, FunctionalEvaluator(sum), Random(distinct=True), name="e", directory=tmp_path)
    experiment.run(progress="silent")
    assert len(experiment.trials) == space.size == 6
    assert "all 6 samples" in experiment.ending


def either() -> float:
    """One label with other answers in each branch; the best of 12 samples is 40 + 3."""
    kind = ValueChoice(["small", "large"], label="kind")
    width = ValueChoice([1, 2, 3, 4] if kind == "small" else [20, 30, 40], label="width")
    return float(width + (0 if kind == "small" and width < 3 else ValueChoice([0, 3], label="bonus")))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.filterwarnings("ignore:RegularizedEvolution")
def test_a_label_with_other_answers_in_each_branch_is_searched(kind: type[Strategy], tmp_path: Path) -> None:
    space = search_space(either)
    assert space.size == 12
    arguments = (FunctionalEvaluator(float), kind())
    whole = Experiment(space, *arguments, name="whole", directory=tmp_path)
    whole.run(10, progress="silent")
    assert not any(trial.error for trial in whole.trials)
    if kind is not GridSearch:
        assert whole.best_trial.value == 43
    Experiment(space, *arguments, name="parts", directory=tmp_path).run(4, progress="silent")
    goes_on = Experiment(space, *arguments, name="parts", directory=tmp_path, resume=True)
    goes_on.run(10, progress="silent")
    assert [trial.sample for trial in goes_on.trials] == [trial.sample for trial in whole.trials]


def limits() -> int:
    """The domain of one number follows another, in more ways than are tried."""
    most = ValueChoice(Integer(1, 90), label="most")
    return most + ValueChoice(Integer(most, 2 * most), label="number")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow if k in (TPE, RegularizedEvolution) else ()) for k in ALL[1:]]
)
@pytest.mark.filterwarnings("ignore:The search space of limits is not exact")
@pytest.mark.filterwarnings("ignore:RegularizedEvolution")
def test_a_domain_that_follows_a_number_is_met_as_the_search_goes_on(kind: type[Strategy], tmp_path: Path) -> None:
    arguments = search_space(limits), FunctionalEvaluator(float), kind()
    experiment = Experiment(*arguments, name="e", directory=tmp_path, storage=f"sqlite:///{tmp_path}/study.db")
    experiment.run(14, progress="silent")
    assert not any(trial.error for trial in experiment.trials)
    for trial in experiment.trials:
        assert trial.sample["most"] <= trial.sample["number"] <= 2 * trial.sample["most"]
        assert experiment.space.contains(trial.sample)


def unbounded() -> float:
    """Too many numbers to try each: the tree grows as the search goes on."""
    rate = ValueChoice(Real(0.0, 1.0), label="rate")
    extra = ValueChoice([1, 2, 3], label="extra") if rate > 0.5 else 0
    number = ValueChoice(Integer(1, 90), label="number")
    return rate + extra + sum(ValueChoice([0, 1], label=f"w{i}") for i in range(number))


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[] if k is Random else pytest.mark.slow) for k in ALL[1:]],
)
@pytest.mark.filterwarnings("ignore:The search space of unbounded is not exact")
@pytest.mark.filterwarnings("ignore:RegularizedEvolution")
def test_a_search_that_is_gone_on_with_grows_as_it_would_have(kind: type[Strategy], tmp_path: Path) -> None:
    space = search_space(unbounded)
    whole = Experiment(space, FunctionalEvaluator(float), kind(), name="whole", directory=tmp_path)
    whole.run(14, progress="silent")
    assert not whole.space.exact
    assert all(trial.error is None for trial in whole.trials)
    begun = Experiment(search_space(unbounded), FunctionalEvaluator(float), kind(), name="parts", directory=tmp_path)
    begun.run(6, progress="silent")
    goes_on = Experiment(
        search_space(unbounded), FunctionalEvaluator(float), kind(), name="parts", directory=tmp_path, resume=True
    )
    goes_on.run(14, progress="silent")
    assert [trial.sample for trial in goes_on.trials] == [trial.sample for trial in whole.trials]
    assert all(goes_on.space.search_space.contains(trial.sample) for trial in goes_on.trials)


@pytest.mark.filterwarnings("ignore:The search space of unbounded is not exact")
def test_a_space_that_is_not_exact_is_not_reported_exhausted(tmp_path: Path) -> None:
    space = search_space(unbounded)
    experiment = Experiment(
        space.where(lambda sample: sample["number"] <= 2 and sample["rate"] < 0.1),
        FunctionalEvaluator(float),
        Random(distinct=True),
        name="e",
        directory=tmp_path,
    )
    experiment.run(5, progress="silent")
    assert len(experiment.trials) == 5


# The first page that a user of Optuna reads, line by line.


def define_model() -> nn.Sequential:
    n_layers = ValueChoice(Integer(1, 3), label="n_layers")
    layers: list[nn.Module] = []
    in_features = 64
    for i in range(n_layers):
        out_features = ValueChoice(Integer(4, 128, log=True), label=f"n_units_l{i}")
        layers.append(nn.Linear(in_features, out_features))
        layers.append(nn.ReLU())
        layers.append(nn.Dropout(ValueChoice(Real(0.2, 0.5), label=f"dropout_l{i}")))
        in_features = out_features
    layers.append(nn.Linear(in_features, 10))
    return nn.Sequential(*layers)


def define_optimizer() -> dict[str, object]:
    name = ValueChoice(["Adam", "RMSprop", "SGD"], label="optimizer")
    return {"name": name, "lr": ValueChoice(Real(1e-5, 1e-1, log=True), label=f"{name}.lr")}


def test_the_first_page_of_optuna_ports_line_by_line(tmp_path: Path) -> None:
    images, labels = map(torch.as_tensor, load_digits(return_X_y=True))
    images = images.float() / 16

    def objective(model: nn.Module, optimizer: dict[str, object]) -> float:
        trained = getattr(torch.optim, str(optimizer["name"]))(model.parameters(), lr=optimizer["lr"])
        for _ in range(20):
            trained.zero_grad()
            nn.functional.cross_entropy(model(images[:900]), labels[:900]).backward()
            trained.step()
        with torch.no_grad():
            return float((model.eval()(images[900:]).argmax(1) == labels[900:]).float().mean())

    evaluator = FunctionalEvaluator(objective, optimizer=search_space(define_optimizer))
    experiment = Experiment(define_model, evaluator, TPE(), name="optuna", directory=tmp_path)
    assert experiment.space.exact
    experiment.run(12, progress="silent")
    for trial in experiment.trials:
        assert trial.error is None
        assert ("n_units_l2" in trial.sample) == (trial.sample["n_layers"] == 3)
        assert [label for label in trial.sample if label.endswith(".lr")] == [f"{trial.sample['optimizer']}.lr"]
    assert experiment.best_trial.value is not None
    assert experiment.best_trial.value > 0.5
