"""Searches without a module: a function of choices, a dict, an evaluator with hyperparameters and a fixed model."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import nas
from nas import Categorical, Experiment, Integer, NasError, Real, ValueChoice
from nas.evaluators import Classification, FunctionalEvaluator
from nas.oneshot import DARTS
from nas.strategies import TPE, GridSearch, Random


def classifier() -> dict[str, Any]:
    kind = ValueChoice(["tree", "forest"], label="kind")
    if kind == "forest":
        return {"kind": kind, "trees": ValueChoice([10, 100], label="trees")}
    return {"kind": kind, "depth": ValueChoice([2, 4, 8], label="depth")}


def test_the_evaluator_gets_what_the_function_returns(tmp_path: Path) -> None:
    space = nas.search_space(classifier)
    assert space.size == 5
    assert space.exact
    got: list[dict[str, Any]] = []

    def evaluate(answers: dict[str, Any]) -> float:
        got.append(answers)
        return answers.get("trees", 0) + answers.get("depth", 0)

    experiment = Experiment(space, FunctionalEvaluator(evaluate), GridSearch(), name="e", directory=tmp_path)
    experiment.run(progress="silent")
    assert len(got) == 5
    assert {type(answer) for answers in got for answer in answers.values()} == {str, int}
    assert experiment.best_trial.sample == {"kind": "forest", "trees": 100}
    assert experiment.export_top_models(1, "model") == [{"kind": "forest", "trees": 100}]
    assert experiment.export_top_models(1) == [{"kind": "forest", "trees": 100}]


def test_a_dict_is_a_space(tmp_path: Path) -> None:
    given = {"rate": Real(0.0, 1.0), "layers": [1, 2], "optimizer": {"name": ["sgd", "adam"]}, "seed": 3}
    space = nas.search_space(given)
    assert list(space.search_space.domains) == ["rate", "layers", "optimizer.name"]
    assert space.build(space.default()) == {"rate": 0.0, "layers": 1, "optimizer": {"name": "sgd"}, "seed": 3}
    experiment = Experiment(
        given, FunctionalEvaluator(lambda answers: -abs(answers["rate"] - 0.5)), TPE(), name="e", directory=tmp_path
    )
    experiment.run(20, progress="silent")
    assert experiment.best_trial.value is not None
    assert experiment.best_trial.value > -0.2


def test_a_tree_is_a_space_of_its_answers(tmp_path: Path) -> None:
    tree = nas.search_space(classifier).search_space
    space = nas.search_space(tree.where(lambda sample: sample.get("trees") != 10))
    assert len(list(space.grid())) == 4
    assert space.build({"kind": "tree", "depth": 8}) == {"kind": "tree", "depth": 8}


def optimizer() -> Callable[..., torch.optim.Optimizer]:
    name = ValueChoice(["sgd", "adam"], label="name")
    rate = ValueChoice(Real(1e-4, 1e-1, log=True), label=f"{name}.rate")
    if name == "adam":
        return functools.partial(torch.optim.Adam, lr=rate)
    return functools.partial(torch.optim.SGD, lr=rate, momentum=ValueChoice([0.0, 0.9], label="momentum"))


def test_hyperparameters_may_depend_on_each_other_with_a_fixed_model(tmp_path: Path) -> None:
    def train(model: nn.Module, make: Callable[..., torch.optim.Optimizer], epochs: int) -> float:
        assert isinstance(model, nn.Linear)
        assert epochs in (1, 2)
        return float(make(model.parameters()).param_groups[0]["lr"])

    evaluator = FunctionalEvaluator(train, make=nas.search_space(optimizer), epochs=Integer(1, 2))
    experiment = Experiment(lambda: nn.Linear(4, 3), evaluator, Random(), name="e", directory=tmp_path)
    experiment.run(12, progress="silent")
    for trial in experiment.trials:
        assert trial.value == trial.sample[f"{trial.sample['name']}.rate"], trial.error
        assert ("momentum" in trial.sample) == (trial.sample["name"] == "sgd")
    best = experiment.export_top_models(1, "model")[0]
    assert isinstance(best, nn.Linear)


def test_hyperparameters_with_choices_join_those_of_the_model(tmp_path: Path) -> None:
    evaluator = FunctionalEvaluator(lambda model, make: model.out_features, make=nas.search_space(optimizer))
    experiment = Experiment(
        lambda: nn.Linear(4, ValueChoice([1, 2], label="width")), evaluator, Random(), name="e", directory=tmp_path
    )
    assert next(iter(experiment.space.search_space.domains)) == "width"
    assert experiment.space.search_space.condition("momentum") == "name = 'sgd'"
    whole = experiment.space.complete({"width": 2, "name": "adam"})
    assert whole == {"width": 2, "name": "adam", "adam.rate": 1e-4}
    assert experiment.space.contains(whole)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "a function or a dict"),
        (nn.Linear(2, 2), "for a module use ModelSpace"),
        ({"a": 1}, "at least one choice; received {'a': 1}"),
        ({"a": []}, "at least one"),
        (lambda: 3, "at least one choice"),
    ],
)
def test_what_is_no_space_is_refused(source: Any, message: str) -> None:
    with pytest.raises(NasError, match=message):
        nas.search_space(source)


def test_a_model_without_choices_needs_an_evaluator_that_has_some(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="at least one choice"):
        Experiment(lambda: nn.Linear(4, 3), FunctionalEvaluator(lambda m: 1.0), Random(), name="e", directory=tmp_path)
    with pytest.raises(NasError, match="nas.search_space"):
        Experiment(
            lambda: {"rate": ValueChoice([1, 2])},
            FunctionalEvaluator(lambda m, k: 1.0, k=Categorical([1, 2])),
            Random(),
            name="f",
            directory=tmp_path,
        )


@pytest.mark.parametrize("formatter", ["onnx", "code"])
def test_files_of_modules_are_refused_where_there_are_none(formatter: str, tmp_path: Path) -> None:
    experiment = Experiment(
        {"a": [1, 2]}, FunctionalEvaluator(lambda answers: answers["a"]), GridSearch(), name="e", directory=tmp_path
    )
    experiment.run(progress="silent")
    assert experiment.ending == "the grid is done: all 2 samples have been tried"
    with pytest.raises(NasError, match="a space without modules has none to write"):
        experiment.export_top_models(1, formatter)


def test_supernets_need_modules(tmp_path: Path) -> None:
    data = TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
    with pytest.raises(NasError, match="DARTS trains a supernet of modules, and this space builds none"):
        Experiment({"a": [1, 2]}, Classification(data, data, max_epochs=1), DARTS(), name="e", directory=tmp_path)


def test_numbers_of_numpy_and_torch_are_answers() -> None:
    numbers = [numpy.int64(1), torch.tensor(2), numpy.array(4)]
    space = nas.search_space({"n": numbers, "on": [numpy.bool_(True), False], "width": Integer(1, 9)})
    assert [type(answer) for answer in space.default().values()] == [int, bool, int]
    given = {"n": torch.tensor(4), "on": numpy.bool_(False), "width": torch.tensor(3)}
    assert space.validate(given) == {"n": 4, "on": False, "width": 3}
    assert [type(answer) for answer in space.validate(given).values()] == [int, bool, int]
