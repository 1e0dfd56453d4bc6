"""Latencies of operations, each measured once, and the latency of an architecture as their sum."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from nas.calls import explained
from nas.checks import check_int
from nas.domains import Answer, Sample, sample_key
from nas.errors import ExperimentError, NasError, NasValueError, explain, shown, told_if_full
from nas.example_inputs import Example, read_example
from nas.files import MIB, named_by_user, read_json, write_whole
from nas.profile.cost_tables import Vector, explored
from nas.profile.costs import Cost
from nas.profile.dry_run import ModuleCall, ModuleRun, count_pass
from nas.profile.measured_latency import Backend, Latency, check_backend, check_passes, latency, latency_of_call
from nas.profile.operations import call_again, operation_text
from nas.profile.passes import Ground, run_first, sample_subject
from nas.space import ModelSpace

_MOST = 256 * MIB
"""Bytes of a table."""
_LONGEST = 1e12
"""Seconds; and a factor of them."""


@final
@dataclass(frozen=True, kw_only=True)
class PredictionError:
    """How far predicted latencies are from those measured end to end, over some samples of the space."""

    predicted: tuple[float, ...]
    """Seconds, from the table."""
    measured: tuple[float, ...]
    """Seconds, medians of whole models."""

    @property
    def relative(self) -> float:
        """The median of |predicted - measured| / measured."""
        pairs = zip(self.predicted, self.measured, strict=True)
        return statistics.median(abs(guess - truth) / truth for guess, truth in pairs)

    @property
    def rank_correlation(self) -> float:
        """Spearman's; 1 where the table orders the samples as the measurements do."""
        return statistics.correlation(_ranks(self.predicted), _ranks(self.measured))

    def __str__(self) -> str:
        return (
            f"median error {self.relative:.1%}, rank correlation {self.rank_correlation:.2f} over {len(self.measured)} "
            "samples"
        )


def _ranks(numbers: tuple[float, ...]) -> list[float]:
    """The position of each number in their order; equal ones share the mean of theirs."""
    ordered = sorted(numbers)
    return [ordered.index(number) + (ordered.count(number) - 1) / 2 for number in numbers]


@explained()
@final
class LatencyTable:
    """Predicts the latency of the samples of a space; made by `latency_table`.

    An operation is a module that calls no other, with its configuration and the shapes of its inputs: it is measured
    when it is first met, alone and with inputs of these shapes. All its attributes are configuration, functions and
    objects by what they are made of; a module with an attribute whose parts cannot be seen (of an extension module,
    say) is measured in each sample anew. The prediction is the sum over all calls. What modules with children do
    themselves (adding a skip, say) and the calls between them are not measured; `calibrate` finds a
    factor and a constant that make up for them.
    """

    def __init__(
        self,
        space: ModelSpace,
        example_input: Example,
        backend: Backend = "eager",
        *,
        warmup: int = 3,
        repeats: int = 15,
        threads: int = 1,
    ) -> None:
        check_backend(backend)
        warmup, repeats, threads = check_passes(warmup, repeats, threads)
        self.entries: dict[str, Latency] = {}
        self.scale, self.constant = 1.0, 0.0
        self.backend, self.threads = backend, threads
        read_example(example_input)
        self._space, self._example = space, example_input
        self._ground: Ground = "meta"
        self._apart: set[str] = set()
        self._options: dict[str, Any] = {"warmup": warmup, "repeats": repeats, "threads": threads}

    def __repr__(self) -> str:
        """In one line."""
        return f"LatencyTable({self._space.name}, {self.backend}: {len(self.entries)} operations measured)"

    def __call__(self, sample: Mapping[str, Answer]) -> float:
        """The predicted seconds of a sample; operations that were not met before are measured."""
        return sum(seconds for _, seconds in self._operations(sample)) * self.scale + self.constant

    def _operations(self, sample: Mapping[str, Answer]) -> list[tuple[str, float]]:
        """The path and the latency of each call."""
        try:
            return self._measured_alone(sample)
        except _AloneError:
            self._ground = "real"  # On made-up inputs some module fails: then on what it is really given.
        try:
            return self._measured_alone(sample)
        except _AloneError as error:
            cause = error.__cause__
            raise NasValueError(
                explain(
                    f"called by itself, {error} fails ({type(cause).__name__}: {cause})",
                    where=f"latency of {sample_subject(self._space, sample)}",
                    mend="let it depend on nothing but itself and its inputs, or measure whole models with `latency`",
                )
            ) from cause

    def _measured_alone(self, sample: Mapping[str, Answer]) -> list[tuple[str, float]]:
        runs, self._ground = run_first(
            sample_subject(self._space, sample),
            self._example,
            lambda run: count_pass(run, keep=True),
            task="latency of",
            start=self._ground,
        )
        found = []
        for run in runs:
            if run.leaf:
                for number, call in enumerate(run.calls):
                    found.append((run.path, self._look_up(run, call, f"call {number} of {run.path!r}", sample).median))
        return found

    def _look_up(self, run: ModuleRun, call: ModuleCall, place: str, sample: Mapping[str, Answer]) -> Latency:
        key = operation_text(run.module, call)
        if key is None:
            key = f"{type(run.module).__qualname__} in {place} of {self._space.name} with {sample_key(dict(sample))}"
            self._apart.add(key)
        found = self.entries.get(key)
        if found is None:
            try:
                module, inputs = call_again(run.module, call)
                found = self.entries[key] = latency_of_call(module, inputs, self.backend, **self._options)
            except NasError:
                raise
            except Exception as error:
                raise _AloneError(f"the module {run.path!r}") from error
        return found

    def cost(self) -> Cost:
        """The latency as a cost of the space: with bounds, constraints and expectation. Measures what it lacks.

        Where it is no sum of small tables, each sample that is asked for is built.
        """

        def measure(sample: Sample) -> Vector:
            nanoseconds: dict[str, list[int]] = {"": [round(self.constant * 1e9)]}
            for path, seconds in self._operations(sample):
                nanoseconds.setdefault(path, [0])[0] += round(seconds * self.scale * 1e9)
            return nanoseconds

        tables = explored(self._space.search_space, measure, ("nanoseconds",), anyway=True)
        return Cost(tables, "nanoseconds", name="latency", scale=1e-9)

    def error(self, samples: int = 10, *, seed: int = 0) -> PredictionError:
        """Compares predictions with end-to-end measurements of samples drawn from the space."""
        samples = check_int("samples", samples, least=2, where="LatencyTable.error")
        rng = random.Random(check_int("seed", seed, where="LatencyTable.error"))
        drawn = [self._space.sample(rng) for _ in range(samples)]
        predicted = tuple(self(sample) for sample in drawn)
        measured = tuple(self._measured(sample) for sample in drawn)
        return PredictionError(predicted=predicted, measured=measured)

    def _measured(self, sample: Sample) -> float:
        with torch.random.fork_rng(devices=[]):
            model = self._space.build(sample)
        return latency(model, self._example, self.backend, **self._options).median

    def calibrate(self, samples: int = 10, *, seed: int = 1) -> PredictionError:
        """Fits factor and constant to end-to-end measurements; take another seed to judge it.

        The factor is the median slope between any two samples (Theil and Sen), which a few disturbed measurements do
        not move, and the constant the median of what is left.

        Returns:
            The error on the samples that it was fitted to.
        """
        self.scale, self.constant = 1.0, 0.0
        found = self.error(samples, seed=seed)
        pairs = list(itertools.combinations(zip(found.predicted, found.measured, strict=True), 2))
        slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs if x1 != x2]
        self.scale = max(statistics.median(slopes), 0.0) if slopes else 1.0
        rest = [truth - self.scale * guess for guess, truth in zip(found.predicted, found.measured, strict=True)]
        self.constant = max(statistics.median(rest), 0.0)
        fitted = tuple(self.scale * guess + self.constant for guess in found.predicted)
        return PredictionError(predicted=fitted, measured=found.measured)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the table as JSON, whole or not at all; without what was measured in one sample alone."""
        target = Path(path)
        content = {
            "backend": self.backend,
            "threads": self.threads,
            "torch": str(torch.__version__),
            "scale": self.scale,
            "constant": self.constant,
            "entries": {
                key: dataclasses.asdict(entry) for key, entry in self.entries.items() if key not in self._apart
            },
        }
        with told_if_full(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(named_by_user(target), json.dumps(content, indent=1) + "\n")
        return target

    def load(self, path: str | os.PathLike[str]) -> LatencyTable:
        """Takes over what another table wrote: for this space or another one, on this kind of machine.

        Raises:
            NasValueError: no such file, not such a table, or one of another backend or number of threads.
        """
        try:
            content = read_json(path, most=_MOST, follow=True)
            entries = {key: _entry(entry) for key, entry in content["entries"].items()}
            measured_as = {name: content[name] for name in ("backend", "threads", "torch")}
            scale, constant = (_seconds(content[name]) for name in ("scale", "constant"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ExperimentError) as error:
            reason = str(error) if isinstance(error, NasError) else f"{type(error).__name__}: {error}"
            raise NasValueError(explain(f"this is no latency table ({reason})", got=str(path))) from error
        own = {"backend": self.backend, "threads": self.threads, "torch": str(torch.__version__)}
        if measured_as != own:
            raise NasValueError(
                explain(f"a table is used as it was measured; here that is {own}", got=measured_as, where=str(path))
            )
        self.entries.update(entries)
        self.scale, self.constant = scale, constant
        return self


def _entry(entry: Any) -> Latency:
    """A measurement, as `save` has written it."""
    found = Latency(**entry)
    low, middle, high = map(_seconds, (found.lower, found.median, found.upper))
    if not low <= middle <= high or type(found.repeats) is not int or type(found.threads) is not int:
        raise ValueError(f"no measurement: {shown(entry)}")
    check_backend(found.backend)
    return found


def _seconds(value: Any) -> float:
    """A number that is neither negative nor without end."""
    if type(value) not in (int, float) or not 0 <= value < _LONGEST:
        raise ValueError(f"no time: {shown(value)}")
    return float(value)


class _AloneError(Exception):
    """A module fails when it is called by itself; its message is the module."""


@explained()
def latency_table(
    space: ModelSpace,
    example_input: Example,
    backend: Backend = "eager",
    *,
    warmup: int = 3,
    repeats: int = 15,
    threads: int = 1,
) -> LatencyTable:
    """A table of the latencies of a space's operations, filled as samples need them.

    Args:
        space: of models.
        example_input: a tensor, a tuple of tensors, or the shape of one float tensor, batch included; or anything that
            `forward` takes, as `profile` does.
        backend: as `latency` takes it; compiling or exporting each operation takes about a second.
        warmup, repeats, threads: of each measurement.

    Example:
        >>> from torch import nn
        >>> from nas import ValueChoice
        >>> table = latency_table(ModelSpace(lambda: nn.Linear(8, ValueChoice([8, 16], label="width"))), (1, 8))
        >>> table({"width": 8}) > 0, [key.rpartition(".")[2] for key in table.entries]
        (True, ['Linear(in_features=8, out_features=8; weight (8, 8), bias (8,)) on (1, 8) float32'])
    """
    return LatencyTable(space, example_input, backend, warmup=warmup, repeats=repeats, threads=threads)
