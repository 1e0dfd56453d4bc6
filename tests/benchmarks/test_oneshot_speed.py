"""What sharing costs: a step of a path through the store, beside the same architecture alone; and its memory."""

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice, ModelSpace, Sample, ValueChoice
from nas.evaluators import Classification
from nas.model_zoo import darts
from nas.oneshot import PathSupernet, RandomOneShot


class Network(nn.Sequential):
    """Convolutions of chosen width and kernel, or of one of two kinds."""

    def __init__(self, *, widths: bool) -> None:
        width = ValueChoice([16, 24, 32], label="width") if widths else 32
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for i in range(4):
            kernel = ValueChoice([3, 5], label=f"kernel{i}")
            if widths:
                layers.append(nn.Conv2d(width, width, kernel, padding="same", bias=False))
            else:
                layers.append(LayerChoice([lambda k=k: nn.Conv2d(32, 32, k, padding="same") for k in (3, 5)]))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def middle(space: ModelSpace) -> Sample:
    return space.complete({name: 24 for name in ("width",) if name in space.search_space.domains})


Step = Callable[[], None]


def trained(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    step()
    return step


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    torch.set_num_threads(1)
    return torch.randn(32, 3, 16, 16), torch.randint(10, (32,))


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "sliced"])
def supernet(request: pytest.FixtureRequest, batch: tuple[Tensor, Tensor]) -> PathSupernet:
    supernet = PathSupernet(ModelSpace(Network, widths=request.param), example_input=batch[:1])
    supernet.select(middle(supernet.space))
    return supernet


@pytest.mark.benchmark(group="path")
def test_step_of_a_path(benchmark: BenchmarkFixture, supernet: PathSupernet, batch: tuple[Tensor, Tensor]) -> None:
    benchmark(trained(supernet, *batch))


@pytest.mark.benchmark(group="path")
def test_step_alone(benchmark: BenchmarkFixture, supernet: PathSupernet, batch: tuple[Tensor, Tensor]) -> None:
    benchmark(trained(supernet.extract(middle(supernet.space)), *batch))


@pytest.mark.benchmark(group="path ratio")
def test_a_path_costs_little_more_than_its_architecture(
    benchmark: BenchmarkFixture, supernet: PathSupernet, batch: tuple[Tensor, Tensor]
) -> None:
    """Step by step in turns, in processor time, so that what else runs here hits both alike."""
    steps = trained(supernet, *batch), trained(supernet.extract(middle(supernet.space)), *batch)

    def ratio() -> float:
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(30):
            for which in (0, 1) if turn % 2 else (1, 0):
                begin = time.process_time()
                steps[which]()
                times[which].append(time.process_time() - begin)
        return statistics.median(times[0]) / statistics.median(times[1])

    found = benchmark.pedantic(ratio, rounds=1)
    benchmark.extra_info["ratio"] = found
    assert found < 1.10


@pytest.mark.benchmark(group="subnet")
def test_selecting_a_path_that_is_known(benchmark: BenchmarkFixture, supernet: PathSupernet) -> None:
    sample = middle(supernet.space)
    benchmark(lambda: supernet.select(sample))


@pytest.mark.benchmark(group="subnet")
def test_building_a_subnet(benchmark: BenchmarkFixture, supernet: PathSupernet) -> None:
    sample = middle(supernet.space)
    benchmark.pedantic(lambda: supernet._build(sample, alone=True), rounds=10)


class FitEnds(Callback):
    """Notes when."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds, self.at = seconds, 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> "FitEnds":
        """Itself: each training has a copy of its callbacks."""
        return self

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """What follows is judging."""
        self.at = self._seconds()


@pytest.mark.benchmark(group="judging")
def test_judging_paths_beside_their_forward_passes(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Batches for the batch statistics as by default, and as many of validation data; all that a ranking does."""
    cuda, number = torch.cuda.is_available(), 20
    torch.set_num_threads(1)
    size, side, paths = (64, 32, 200) if cuda else (4, 16, 10)
    accelerator = "cuda" if cuda else "cpu"

    def seconds() -> float:
        if cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    space = ModelSpace(lambda: darts(channels=16, cells=8, none=True))
    pairs = TensorDataset(torch.randn(number * size, 3, side, side), torch.randint(10, (number * size,)))
    end = FitEnds(seconds)
    given = {"accelerator": accelerator, "logger": False, "callbacks": [end], "enable_checkpointing": False}
    evaluator = Classification(pairs, pairs, batch_size=size, limit_train_batches=number, **given)
    strategy = RandomOneShot(epochs=1, evaluations=paths, candidates=1, recalibration=number)

    def judging() -> float:
        Experiment(space, evaluator, strategy, name="judging", directory=tmp_path).run(1, progress="silent")
        return seconds() - end.at

    @torch.no_grad()
    def passes() -> float:
        x, taken = torch.randn(size, 3, side, side, device=accelerator), 0.0
        for seed in range(10):
            model = space.build(space.sample(seed), device=accelerator)
            model(x)
            begin = seconds()
            for training in (True, False):
                model.train(training)
                for _ in range(number):
                    model(x)
            taken += seconds() - begin
        return taken / 10 * paths

    found = benchmark.pedantic(lambda: judging() / passes(), rounds=1)
    benchmark.extra_info["ratio"] = found
    assert found < (0.7 if cuda else 2.0)


@pytest.mark.benchmark(group="path memory")
def test_memory_of_a_path(benchmark: BenchmarkFixture, supernet: PathSupernet, batch: tuple[Tensor, Tensor]) -> None:
    """The highest sum of what one step allocates and has not freed yet."""

    def peak(model: nn.Module) -> int:
        step = trained(model, *batch)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            step()
        assert profile.profiler is not None
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        events.sort(key=lambda event: event.start_ns())
        return max(itertools.accumulate(event.nbytes() for event in events))

    alone = peak(supernet.extract(middle(supernet.space)))
    store = sum(tensor.nbytes for tensor in supernet.state_dict().values())
    found = benchmark.pedantic(lambda: peak(supernet), rounds=1)
    benchmark.extra_info["ratio"] = found / alone
    assert found <= 1.05 * alone + store
