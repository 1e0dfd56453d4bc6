"""The figures of a CUDA device beside what was aimed at; `python docs/mixed_operations.py --device cuda` takes them.

Each row is a ratio of two ways that take turns within one run, by the clock, after kernels were chosen, compiled and
recorded. Memory is the highest that was reserved on the device, taken of each way alone. On a CPU, small, the rows show
only that they can be taken: `python docs/device_figures.py --small`.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from mixed_sides import CASES, WARM_UP, Case, Side, now, sides_of
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from nas import Experiment, ModelSpace
from nas.evaluators import Classification
from nas.model_zoo import darts
from nas.oneshot import DARTS, PathSupernet, RandomOneShot

PLAIN, DEFAULT, EAGER, COMPILED = "plain loop", "ours", "without CUDA graphs", "compiled"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large all is that is measured."""

    darts: Case
    lenet: Case
    repeats: int
    """Steps of each way, in turns."""
    steps: int
    """Of a search by an Experiment."""
    paths: int
    """That are judged."""
    batches: int
    """Of training data, for batch statistics, and as many of validation data, for each judged path.

    20 is the default of the former; from 8 on, passes are recorded.
    """
    compiles: bool = True


FULL = Scale(
    darts=CASES["DARTS CIFAR, batch 64"],
    lenet=CASES["LeNet-like, batch 64"],
    repeats=7,
    steps=30,
    paths=200,
    batches=20,
)
SMALL = Scale(
    darts=Case(factory=lambda: darts(channels=4, cells=2, none=True), shape=(4, 3, 8, 8)),
    lenet=CASES["LeNet-like, batch 64"],
    repeats=1,
    steps=3,
    paths=3,
    batches=1,
    compiles=False,
)


@dataclass(kw_only=True)
class Figures:
    """Takes the rows one after the other, and prints each when it is there."""

    device: torch.device
    scale: Scale
    start: float = field(default_factory=time.monotonic)

    def print(self) -> None:
        """All of them."""
        print("| of | figure | aim | memory | aim | seconds |")
        print("| --- | --- | --- | --- | --- | --- |")
        memory = {name: self._memory(self.scale.darts, name) for name in (PLAIN, DEFAULT)}
        sides = sides_of(self.scale.darts, [PLAIN, EAGER, DEFAULT], self.device.type)
        half = sides_of(self.scale.darts, [DEFAULT], self.device.type)[DEFAULT]
        half.autocast = torch.bfloat16
        self._measure([*sides.values(), half])
        plain, bare = sides[PLAIN], sides[DEFAULT]
        self._row("a step without recording, of the plain loop", _ratio(sides[EAGER], plain), 0.50)
        self._row("a step by default, of the plain loop", _ratio(bare, plain), 0.12, _share(memory, PLAIN), 0.70)
        self._row("a step by default in bfloat16, of the plain loop in float32", _ratio(half, plain), 0.08)
        searched = self._searched_step()
        self._row("a step of DARTS in an Experiment, of the step by default", searched / _seconds(bare), 1.05)
        del sides, half, bare
        self._lenet()
        self._row("a step of a path, of its architecture alone", self._path(), 1.05)
        self._row(f"{self.scale.paths} judged paths, of their plain forward passes", self._judged(), 0.70)
        if not self.scale.compiles:
            return
        begin = time.monotonic()
        compiled = sides_of(self.scale.darts, [COMPILED], self.device.type)[COMPILED]
        compiled.run()
        took = time.monotonic() - begin
        self._measure([compiled, plain])
        self._row("a step with compilation, of the plain loop", _ratio(compiled, plain), 0.08)
        self._row("seconds of the first step with compilation", took, 60)

    def _row(
        self, of: str, figure: float, aim: float, memory: float | None = None, memory_aim: float | None = None
    ) -> None:
        shares = ["" if value is None else f"{value:.2f}" for value in (memory, memory_aim)]
        cells = [of, f"{figure:.2f}", f"{aim:.2f}", *shares, f"{time.monotonic() - self.start:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)

    def _measure(self, sides: list[Side], repeats: int | None = None) -> None:
        """Warms up, and takes the times in turns."""
        for side in sides:
            side.seconds.clear()
            for _ in range(WARM_UP):
                side.run()
        for _ in range(repeats or self.scale.repeats):
            for side in sides:
                side.measure()

    def _memory(self, case: Case, name: str) -> float:
        """The most bytes that are reserved for the steps of one side; 1 without a CUDA device."""
        if self.device.type != "cuda":
            return 1.0
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        side = sides_of(case, [name], self.device.type)[name]
        for _ in range(WARM_UP):
            side.run()
        return float(torch.cuda.max_memory_reserved())

    def _lenet(self) -> None:
        case = self.scale.lenet
        memory = {name: self._memory(case, name) for name in (PLAIN, DEFAULT)}
        sides = sides_of(case, [PLAIN, DEFAULT], self.device.type)
        self._measure(list(sides.values()), 3 * self.scale.repeats)
        figure = _ratio(sides[DEFAULT], sides[PLAIN])
        self._row("LeNet-like, a step by default, of the plain loop", figure, 0.30, _share(memory, PLAIN), 1.0)

    def _evaluator(self, batches: int, *callbacks: Callback) -> Classification:
        size, *shape = self.scale.darts.shape
        train, validation = (
            TensorDataset(torch.randn(batches * size, *shape), torch.randint(10, (batches * size,))) for _ in range(2)
        )
        return Classification(
            train,
            validation,
            batch_size=size,
            optimizer=torch.optim.SGD,
            learning_rate=0.01,
            gradient_clip_val=5.0,
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            devices=1,
            logger=False,
            callbacks=list(callbacks),
        )

    def _search(self, evaluator: Classification, strategy: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            space = ModelSpace(self.scale.darts.factory)
            Experiment(space, evaluator, strategy, name="figures", directory=folder).run(1, progress="silent")

    def _searched_step(self) -> float:
        """Seconds of a training step of DARTS that an Experiment runs, loading and logging among them."""
        stamps = Stamps(self.device, WARM_UP if self.scale.steps > WARM_UP else 0)
        self._search(self._evaluator(self.scale.steps, stamps), DARTS(epochs=1, candidates=1, judge_batches=1))
        return stamps.a_step

    def _path(self) -> float:
        x = torch.randn(self.scale.darts.shape, device=self.device)
        y = torch.randint(10, x.shape[:1], device=self.device)
        space = ModelSpace(self.scale.darts.factory)
        supernet = PathSupernet(space, example_input=(x[:2].cpu(),)).to(self.device)
        sample = space.search_space.sample(random.Random(0))
        supernet.select(sample)
        runs = [_trained(model, x, y) for model in (supernet, supernet.extract(sample).to(self.device))]
        times: list[list[float]] = [[], []]
        for turn in range(WARM_UP + 4 * self.scale.repeats):
            for run, taken in zip(runs, times, strict=True):
                begin = now(self.device)
                run()
                if turn >= WARM_UP or self.scale is SMALL:
                    taken.append(now(self.device) - begin)
        ours, alone = times
        return statistics.median(a / b for a, b in zip(ours, alone, strict=True))

    def _judged(self) -> float:
        scale = self.scale
        end = Stamps(self.device, 0)
        strategy = RandomOneShot(
            epochs=1, evaluations=scale.paths, candidates=1, recalibration=scale.batches, judge_batches=scale.batches
        )
        self._search(self._evaluator(scale.batches, end), strategy)
        seconds: float = now(self.device) - end.fitted
        return seconds / self._plain_passes()

    @torch.no_grad()
    def _plain_passes(self) -> float:
        """Seconds of the forward passes of the judged paths, each built alone."""
        scale, seconds = self.scale, 0.0
        space, rng = ModelSpace(scale.darts.factory), random.Random(0)
        x = torch.randn(scale.darts.shape, device=self.device)
        built = min(scale.paths, 10)
        for _ in range(built):
            model = space.build(space.search_space.sample(rng)).to(self.device)
            model(x)
            begin = now(self.device)
            for training in (True, False):
                model.train(training)
                for _ in range(scale.batches):
                    model(x)
            seconds += now(self.device) - begin
        return seconds / built * scale.paths


class Stamps(Callback):
    """Takes the time of the training steps of a search, some first ones left out, and that of its end."""

    def __init__(self, device: torch.device, skipped: int) -> None:
        self._device, self._skipped = device, skipped
        self._begin = self._end = self.fitted = 0.0
        self._steps = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Stamps:
        """Itself: each training has a copy of its callbacks."""
        return self

    @property
    def a_step(self) -> float:
        """Seconds."""
        return (self._end - self._begin) / self._steps

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Begins with the first that counts."""
        if batch_idx == self._skipped:
            self._begin = now(self._device)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Ends with the last one, before a validation follows."""
        if batch_idx == trainer.num_training_batches - 1:
            self._end, self._steps = now(self._device), trainer.num_training_batches - self._skipped

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """What follows is judging."""
        self.fitted = now(self._device)


def _trained(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def _ratio(side: Side, of: Side) -> float:
    return statistics.median(a / b for a, b in zip(side.seconds, of.seconds, strict=True))


def _seconds(side: Side) -> float:
    return statistics.median(side.seconds)


def _share(memory: dict[str, float], of: str) -> float:
    return memory[DEFAULT] / memory[of]


def print_figures(device: str, scale: Scale = FULL) -> None:
    """Prints the table."""
    torch.backends.cudnn.benchmark = True
    Figures(device=torch.device(device), scale=scale).print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="on the CPU, to see that it runs")
    print_figures(*("cpu", SMALL) if parser.parse_args().small else ("cuda", FULL))
