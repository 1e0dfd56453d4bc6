"""What people print stands in one line; notebooks show tables."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import nas
import nas.oneshot
import nas.strategies
from nas import Categorical, Evaluator, Experiment, Integer, Job, ModelSpace, Real, Strategy, ValueChoice
from nas.brief import brief, rich_html
from nas.evaluators import Classification, FunctionalEvaluator
from nas.profile import LatencyTable, SpaceProfile, profile
from nas.strategies import Chain, OptunaStrategy, Random, RegularizedEvolution


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("broken")


class Wordy:
    def __repr__(self) -> str:
        return "many\nlines\nof words"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(3, 4), "Tensor of 3 x 4"),
        (numpy.zeros(()), "ndarray of one number"),
        (TensorDataset(torch.zeros(7, 2)), "TensorDataset of 7"),
        (nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "Sequential of 2"),
        (nn.Linear, "Linear"),
        (functools.partial(sum, 3), "partial(sum, ...)"),
        (Unshowable(), "Unshowable"),
        (Wordy(), "Wordy"),
        ((1,), "(1,)"),
        ({1}, "{1}"),
        ([[[[1]]]], "[[[[1]]]]"),
        ("two\nlines", r"'two\nlines'"),
        ({n: n for n in range(9)}, "{0: 0, 1: 1, 2: 2, 3: 3, ...}"),
    ],
)
def test_a_value_in_one_short_line(value: object, text: str) -> None:
    assert brief(value) == text


def space() -> nn.Module:
    return nn.Linear(4, ValueChoice([2, 3], label="width"))


def judge(model: nn.Linear, rate: float) -> dict[str, float]:
    if model.out_features == 3 and rate > 0.5:
        raise ValueError("too much")
    return {"accuracy": rate, "size": model.out_features}


class Own(Evaluator):
    def __init__(self, data: object, *, lots: object = None) -> None:
        self.data, self.lots = data, lots

    def evaluate(self, job: Job) -> float:
        return 0.5


DATA = TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (FunctionalEvaluator(judge, rate=Real(0, 1)), "FunctionalEvaluator(function=judge, rate=a number from 0 to 1)"),
        (
            Classification(DATA, DATA, max_epochs=3, optimizer=Categorical(["SGD", "Adam"])),
            "Classification(train=TensorDataset of 8, validation=TensorDataset of 8, optimizer=one of 'SGD', 'Adam', "
            "max_epochs=3)",
        ),
        (Own([DATA] * 30, lots=torch.zeros(1000)), "Own(data=[TensorDataset of 8, "),
        (Random(), "Random()"),
        (Own(dict.fromkeys(range(5000), 0.5)), "Own(data={0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, ...})"),
        (
            RegularizedEvolution(population_size=7, sample_size=3),
            "RegularizedEvolution(population_size=7, sample_size=3)",
        ),
        (ModelSpace(space), "ModelSpace(space: 1 choice, 2 architectures)"),
        (ModelSpace(space).search_space, "SearchSpace('width': 2 samples)"),
        (nas.search_space({"rate": Real(0, 1)}).search_space, "SearchSpace('rate': infinitely many samples)"),
        (
            profile(nn.Linear(4, 2), torch.zeros(1, 4)),
            "ModelProfile(Linear: 10 parameters, 8 multiply-adds, 2 activations)",
        ),
        (SpaceProfile(ModelSpace(space), torch.zeros(1, 4)), "SpaceProfile(space: parameters, "),
        (LatencyTable(ModelSpace(space), torch.zeros(1, 4)), "LatencyTable(space, eager: 0 operations measured)"),
        (nas.draw(nn.Sequential(nn.Linear(4, 2)), example_input=torch.zeros(1, 4)), "Drawing("),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_people_print_is_one_line(thing: object, text: str) -> None:
    shown = repr(thing)
    assert shown.startswith(text)
    assert "\n" not in shown
    assert len(shown) < 300
    assert " object at 0x" not in shown


def test_every_strategy_says_how_it_was_made() -> None:
    for name in nas.strategies.__all__:
        cls: Any = getattr(nas.strategies, name)
        if isinstance(cls, type) and issubclass(cls, Strategy) and cls is not OptunaStrategy:
            given = [[(Random(), 4), (RegularizedEvolution(), None)]] if cls is Chain else []
            assert repr(cls(*given)).startswith(f"{name}(")
    assert repr(Chain([(Random(), 4)])) == "Chain(parts=[(Random(), 4)])"


def experiment(folder: Path, **options: Any) -> Experiment:
    evaluator = FunctionalEvaluator(judge, rate=Integer(0, 1))
    return Experiment(space, evaluator, Random(), name="search", directory=folder, **options)


def test_an_experiment_and_its_results(tmp_path: Path) -> None:
    made = experiment(tmp_path)
    assert repr(made) == "Experiment('search': 0 trials)"
    made.run(4, progress="silent")
    end = "('search': 4 trials: 3 complete, 1 failed; best accuracy 1 ("
    assert repr(made).startswith(f"Experiment{end}")
    assert repr(made.results).startswith(f"Results{end}")
    for shown in (made, made.results):
        page = shown._repr_html_()
        assert "4 trials: 3 complete, 1 failed" in page
        assert "accuracy (max)" in page
    assert "\n" not in repr(made.retrain())


def test_a_front_in_one_line(tmp_path: Path) -> None:
    made = experiment(tmp_path, objective={"accuracy": "maximize", "size": "minimize"})
    made.run(4, progress="silent")
    assert repr(made) == "Experiment('search': 4 trials: 3 complete, 1 failed; front of 1)"
    assert repr(made.objectives) == "Objectives({'accuracy': 'maximize', 'size': 'minimize'})"


def test_a_strategy_of_one_shot_search_says_how_it_was_made() -> None:
    assert repr(nas.oneshot.DARTS(unrolled=True)) == "DARTS(unrolled=True)"


def test_tables_of_profiles_are_shown_in_notebooks() -> None:
    page = profile(nn.Linear(4, 2), torch.zeros(1, 4))._repr_html_()
    assert page.startswith("<pre")
    assert "multiply-adds" in page
    assert "multiply_adds" in SpaceProfile(ModelSpace(space), torch.zeros(1, 4))._repr_html_()
    assert "<b>" not in rich_html("<b>")
