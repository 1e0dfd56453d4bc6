"""Halving finds what judging everything finds, in a third of the passes."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice, ModelSpace, NasValueError, Repeat, Sample, ValueChoice
from nas.evaluators import Classification
from nas.oneshot import ENAS, RandomOneShot
from nas.oneshot.contest import Halving, Whole, rungs
from nas.oneshot.random_paths import evolve
from nas.strategies import Random


def space() -> ModelSpace:
    return ModelSpace(
        lambda: nn.Sequential(*(nn.Linear(8, ValueChoice([1, 2, 4, 8], label=f"n{i}")) for i in range(5)))
    )


class Table:
    """A judge that knows: wide layers are better, and a batch more or less changes little.

    Args:
        batches: of validation data.
        recalibration: batches before them.
    """

    def __init__(self, batches: int = 18, recalibration: int = 0) -> None:
        self.batches, self._recalibration = batches, recalibration
        self.asked: list[tuple[Sample, int]] = []
        self.expected = 0.0

    def passes(self, batches: int | None = None) -> int:
        number = batches or self.batches
        return number + -(-self._recalibration * number // self.batches)

    def expect(self, paths: int, whole: float) -> None:
        self.expected = whole * self.passes()

    def __call__(self, sample: Sample, batches: int | None = None) -> float:
        number = batches or self.batches
        self.asked.append((sample, number))
        noise = [random.Random(f"{sorted(sample.items())}/{batch}").gauss(0, 2) for batch in range(number)]
        return sum(int(str(answer)) for answer in sample.values()) + sum(noise) / number

    def each(self, samples: Iterable[Sample], batches: int | None = None) -> Iterator[float]:
        return (self(sample, batches) for sample in samples)

    @property
    def spent(self) -> int:
        return sum(self.passes(number) for _, number in self.asked)


@pytest.mark.parametrize("batches", [4, 5, 6, 7, 8, 9, 14, 27, 100, 391])
@pytest.mark.parametrize("recalibration", [0, 1, 5, 20])
def test_the_rungs_take_a_third(batches: int, recalibration: int) -> None:
    judge = Table(batches, recalibration)
    found = rungs(batches, judge.passes)
    if len(found) == 1:
        assert batches + recalibration <= 9, "where so few passes leave nothing to save, all are judged whole"
        return
    assert 3 * sum(judge.passes(number) * share for number, share in found) <= judge.passes()
    numbers, shares = zip(*found, strict=True)
    assert sorted(numbers) == list(numbers)
    assert numbers[-1] == batches
    assert sorted(shares, reverse=True) == list(shares)
    assert shares[0] == 1


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_few_batches_are_judged_whole(batches: int) -> None:
    judge = Table(batches)
    halving = Halving(judge)
    halving.add(list(space().grid())[:20])
    assert {number for _, number in judge.asked} == {batches}
    assert len(judge.asked) == 20


@pytest.mark.parametrize("seed", range(5))
def test_an_evolution_by_halves_finds_the_same(seed: int) -> None:
    whole, halving = Whole(Table()), Halving(Table())
    for contest in (whole, halving):
        evolve(space(), contest, evaluations=200, population=50, seed=seed)
        assert len(contest.found) == 200
    first, second = whole._judge, halving._judge
    assert isinstance(first, Table)
    assert isinstance(second, Table)
    assert halving.ranked[0] == whole.ranked[0]
    assert second.spent <= first.spent / 3
    assert first.expected == first.spent
    assert second.expected == pytest.approx(second.spent, rel=0.05), "for the time that is left"
    assert len({(str(sample), number) for sample, number in second.asked}) == len(second.asked), (
        "nothing is asked twice"
    )


def test_who_came_further_ranks_before_who_did_not() -> None:
    judge = Table()
    halving = Halving(judge)
    groups = [[space().sample(seed) for seed in range(first, first + 27)] for first in (0, 27)]
    for group in groups:
        halving.add(group)
    reached = {str(sample): max(n for s, n in judge.asked if s == sample) for sample in halving.found.values()}
    order = [reached[str(sample)] for sample in halving.ranked]
    assert order == sorted(order, reverse=True)
    assert len(halving.ranked) == len(halving.found)
    assert order.count(18) == int(len(order) * rungs(18, judge.passes)[-1][1])


@pytest.mark.parametrize("make", [RandomOneShot, ENAS])
def test_an_unknown_judging_is_refused(make: Any) -> None:
    with pytest.raises(NasValueError, match="halving"):
        make(judging="quarters")


def test_a_strategy_cannot_wait() -> None:
    with pytest.raises(NasValueError, match="proposes the next"):
        RandomOneShot(search=Random(), judging="halving")


def digits() -> tuple[TensorDataset, TensorDataset]:
    images, labels = load_digits(return_X_y=True)
    pairs = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    return TensorDataset(pairs[0][:900], pairs[1][:900]), TensorDataset(pairs[0][900:], pairs[1][900:])


def network() -> nn.Module:
    """468 networks with batch statistics."""
    width = ValueChoice([8, 16, 32, 64], label="width")

    def activation(label: str) -> nn.Module:
        return LayerChoice({"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}, label=label)

    def block(i: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), activation(f"op{i}"))

    return nn.Sequential(
        nn.Linear(64, width), activation("first"), Repeat(block, (1, 3), label="depth"), nn.Linear(width, 10)
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_halving_finds_the_same_best_of_200_digits(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = digits()
    evaluator = Classification(
        train, validation, batch_size=64, optimizer="Adam", learning_rate=0.01, accelerator="cpu", logger=False
    )
    kind = type(evaluator.module(nn.Linear(1, 1)))
    passes = [0]

    def counted(given: Any) -> Any:
        def step(module: Any, *arguments: Any) -> Any:
            passes[0] += not torch.is_grad_enabled()
            return given(module, *arguments)

        return step

    for name in ("training_step", "validation_step"):
        monkeypatch.setattr(kind, name, counted(getattr(kind, name)))
    found, spent = [], []
    for judging in ("whole", "halving"):
        strategy = RandomOneShot(epochs=4, candidates=1, judging=judging)
        searched = Experiment(network, evaluator, strategy, name=judging, directory=tmp_path, seed=seed)
        passes[0] = 0
        searched.run(progress="silent")
        found.append(searched.best_trial)
        spent.append(passes[0] - 4 * 15 - 30)  # a validation after each epoch, and the trial
    assert [trial.sample for trial in found] == [found[0].sample] * 2
    assert found[0].metrics == found[1].metrics, "a trial is measured on everything"
    assert spent[1] <= spent[0] / 3, spent
