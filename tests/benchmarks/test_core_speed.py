"""Framework time, one thing at a time; `docs/speed.py` compares them as ratios within one run."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from nas import ModelSpace


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    path = Path(__file__).parents[2] / "docs/speed.py"
    spec = importlib.util.spec_from_file_location("speed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["speed"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.benchmark(group="sample")
def test_1000_samples(benchmark: BenchmarkFixture, speed: ModuleType) -> None:
    space = ModelSpace(speed.Network, speed.chosen)
    assert len(benchmark(lambda: [space.sample(seed) for seed in range(1000)])) == 1000


@pytest.mark.benchmark(group="discovery")
def test_discovery(benchmark: BenchmarkFixture, speed: ModuleType) -> None:
    assert benchmark(lambda: ModelSpace(speed.Network, speed.chosen)).size == 8**28


@pytest.mark.benchmark(group="discovery")
def test_all_candidates_by_hand(benchmark: BenchmarkFixture, speed: ModuleType) -> None:
    benchmark(speed.all_by_hand)


@pytest.mark.benchmark(group="build")
def test_build(benchmark: BenchmarkFixture, speed: ModuleType) -> None:
    space = ModelSpace(speed.Network, speed.chosen)
    sample = space.sample(0)
    assert len(benchmark(lambda: space.build(sample)).cells) == 20


@pytest.mark.benchmark(group="build")
def test_build_by_hand(benchmark: BenchmarkFixture, speed: ModuleType) -> None:
    sample = ModelSpace(speed.Network, speed.chosen).sample(0)
    benchmark(lambda: speed.Network(lambda label: speed.OPERATIONS[sample[label]]()))


@pytest.mark.benchmark(group="trials")
def test_200_trials(benchmark: BenchmarkFixture, speed: ModuleType) -> None:
    benchmark.pedantic(lambda: speed.trials(None, 200), rounds=3)
