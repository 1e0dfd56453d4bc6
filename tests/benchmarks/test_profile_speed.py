"""What costs cost: a table's answer, a constrained sample, and the tables themselves, beside building and counting."""

import itertools

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from nas import LayerChoice, ModelSpace, Repeat, ValueChoice, model_space
from nas.profile import SpaceProfile, profile


def block(width: int) -> nn.Module:
    hidden = ValueChoice([8, 16, 32])
    return nn.Sequential(
        nn.Conv2d(width, hidden, 1),
        LayerChoice({"relu": nn.ReLU, "gate": lambda: nn.Sequential(nn.Conv2d(hidden, hidden, 1), nn.Sigmoid())}),
        nn.Conv2d(hidden, width, ValueChoice([3, 5]), padding="same"),
    )


@model_space
class Network(nn.Sequential):
    """Three stages of two to four blocks: 34 choices, and a shared width that multiplies with the others."""

    def __init__(self) -> None:
        width = ValueChoice([8, 16, 24], label="width")
        stages = [Repeat(lambda i: block(width), (2, 4), label=f"stage{stage}") for stage in range(3)]
        super().__init__(
            nn.Conv2d(3, width, 3, 2), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
        )


SHAPE = (1, 3, 32, 32)


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace(Network)


@pytest.fixture(scope="module")
def costs(space: ModelSpace) -> SpaceProfile:
    torch.set_num_threads(1)
    found = profile(space, SHAPE)
    found.flops.bounds()
    return found


@pytest.mark.benchmark(group="cost")
def test_cost_of_a_sample(benchmark: BenchmarkFixture, space: ModelSpace, costs: SpaceProfile) -> None:
    samples = itertools.cycle([space.sample(seed) for seed in range(100)])
    assert benchmark(lambda: costs.flops(next(samples))) > 0


@pytest.mark.benchmark(group="cost")
def test_cost_by_building(benchmark: BenchmarkFixture, space: ModelSpace) -> None:
    sample = space.sample(0)
    assert benchmark.pedantic(lambda: profile(space, SHAPE, sample=sample), rounds=5).flops > 0


@pytest.mark.benchmark(group="constrained sample")
def test_sample(benchmark: BenchmarkFixture, space: ModelSpace) -> None:
    seeds = itertools.count()
    assert benchmark(lambda: space.sample(next(seeds)))


@pytest.mark.benchmark(group="constrained sample")
def test_constrained_sample(benchmark: BenchmarkFixture, space: ModelSpace, costs: SpaceProfile) -> None:
    """Of a constraint that about every second sample satisfies."""
    drawn = sorted(costs.flops(space.sample(seed)) for seed in range(501))
    narrow, seeds = space.where(costs.flops < drawn[250]), itertools.count()
    assert costs.flops(benchmark(lambda: narrow.sample(next(seeds)))) < drawn[250]


@pytest.mark.benchmark(group="space profile")
def test_space_profile(benchmark: BenchmarkFixture, space: ModelSpace) -> None:
    assert benchmark.pedantic(lambda: profile(space, SHAPE), rounds=1).tables.builds < 500


@pytest.mark.benchmark(group="space profile")
def test_bounds_from_full_tables(benchmark: BenchmarkFixture, costs: SpaceProfile) -> None:
    assert benchmark(lambda: costs.flops.bounds()).exact
