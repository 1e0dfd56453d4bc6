"""Latencies of operations, each measured once, and the latency of an architecture as their sum."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import random
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from nas.checks import check_int
from nas.domains import Answer, Sample
from nas.errors import NasValueError, explain
from nas.profile.cost_structure import Structure
from nas.profile.cost_tables import CostTables, Vector
from nas.profile.costs import Cost
from nas.profile.dry_run import Example, ModuleRun, TensorSpec, meta_example, real_example, run_on_meta
from nas.profile.measured_latency import Backend, Latency, check_backend, check_passes, latency
from nas.profile.model_profile import build_on_meta
from nas.space import ModelSpace


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


@final
class LatencyTable:
    """Predicts the latency of the samples of a space; made by `latency_table`.

    An operation is a module that calls no other, with its configuration and the shapes of its inputs: it is measured
    when it is first met, alone and with inputs of these shapes. The prediction is the sum over all calls. What modules
    with children do themselves (adding a skip, say) and the calls between them are not measured; `calibrate` finds a
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
        self._space, self._inputs = space, real_example(example_input)
        self._options: dict[str, Any] = {"warmup": warmup, "repeats": repeats, "threads": threads}

    def __call__(self, sample: Mapping[str, Answer]) -> float:
        """The predicted seconds of a sample; operations that were not met before are measured."""
        return sum(seconds for _, seconds in self._operations(sample)) * self.scale + self.constant

    def _operations(self, sample: Mapping[str, Answer]) -> Iterator[tuple[str, float]]:
        """The path and the latency of each call."""
        for run in run_on_meta(build_on_meta(self._space, sample), meta_example(self._inputs)):
            if run.leaf:
                for inputs in run.inputs:
                    yield run.path, self._look_up(run, inputs).median

    def _look_up(self, run: ModuleRun, inputs: tuple[Any, ...]) -> Latency:
        key = operation_text(run.module, inputs)
        found = self.entries.get(key)
        if found is None:
            found = self.entries[key] = latency(
                _Call(_real_module(run.module), inputs), _real_inputs(inputs), self.backend, **self._options
            )
        return found

    def cost(self) -> Cost:
        """The latency as a cost of the space: with bounds, constraints and expectation. Measures what it lacks."""

        def measure(sample: Sample) -> Vector:
            nanoseconds: dict[str, list[int]] = {"": [round(self.constant * 1e9)]}
            for path, seconds in self._operations(sample):
                nanoseconds.setdefault(path, [0])[0] += round(seconds * self.scale * 1e9)
            return nanoseconds

        tables = CostTables(Structure(self._space.search_space), measure, ("nanoseconds",))
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
        return latency(model, self._inputs, self.backend, **self._options).median

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
        """Writes the table as JSON, whole or not at all."""
        target = Path(path)
        content = {
            "backend": self.backend,
            "threads": self.threads,
            "torch": str(torch.__version__),
            "scale": self.scale,
            "constant": self.constant,
            "entries": {key: dataclasses.asdict(entry) for key, entry in self.entries.items()},
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, target)
        return target

    def load(self, path: str | os.PathLike[str]) -> LatencyTable:
        """Takes over what another table wrote: for this space or another one, on this kind of machine.

        Raises:
            NasValueError: no such file, not such a table, or one of another backend or number of threads.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            entries = {key: Latency(**entry) for key, entry in content["entries"].items()}
            measured_as = {name: content[name] for name in ("backend", "threads", "torch")}
            scale, constant = float(content["scale"]), float(content["constant"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NasValueError(
                explain(f"this is no latency table ({type(error).__name__}: {error})", got=str(path))
            ) from error
        own = {"backend": self.backend, "threads": self.threads, "torch": str(torch.__version__)}
        if measured_as != own:
            raise NasValueError(
                explain(f"a table is used as it was measured; here that is {own}", got=measured_as, where=str(path))
            )
        self.entries.update(entries)
        self.scale, self.constant = scale, constant
        return self


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
        example_input: a tensor, a tuple of tensors, or the shape of one float tensor, batch included.
        backend: as `latency` takes it; compiling or exporting each operation takes about a second.
        warmup, repeats, threads: of each measurement.

    Example:
        >>> from nas import ValueChoice
        >>> table = latency_table(ModelSpace(lambda: nn.Linear(8, ValueChoice([8, 16], label="width"))), (1, 8))
        >>> table({"width": 8}) > 0, [key.rpartition(".")[2] for key in table.entries]
        (True, ['Linear(in_features=8, out_features=8; weight (8, 8), bias (8,)) on (1, 8) float32'])
    """
    return LatencyTable(space, example_input, backend, warmup=warmup, repeats=repeats, threads=threads)


def operation_text(module: nn.Module, inputs: tuple[Any, ...]) -> str:
    """What two calls of the same latency share: kind, configuration, parameters and inputs."""
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    plain = [f"{n}={v!r}" for n, v in sorted(vars(module).items()) if n[0] != "_" and isinstance(v, _PLAIN)]
    plain = [text for text in plain if not text.startswith("training=")]
    weights = [f"{n} {tuple(p.shape)}" for n, p in module.named_parameters()]
    return f"{kind}({', '.join(plain)}; {', '.join(weights)}) on {', '.join(map(_text, inputs))}"


_PLAIN = (bool, int, float, str, tuple, list)


def _text(spec: Any) -> str:
    if isinstance(spec, TensorSpec):
        return f"{spec.shape} {str(spec.dtype).removeprefix('torch.')}"
    return f"[{', '.join(map(_text, spec))}]" if isinstance(spec, list | tuple) else repr(spec)


@final
class _Call(nn.Module):
    """Calls a module with tensors put back where they stood in its arguments."""

    def __init__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.module, self.arguments = module, arguments

    def forward(self, *tensors: Tensor) -> Any:
        given = iter(tensors)
        return self.module(*(_put_back(argument, given) for argument in self.arguments))


def _put_back(argument: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(argument, TensorSpec):
        return next(tensors)
    if isinstance(argument, list | tuple):
        return type(argument)(_put_back(item, tensors) for item in argument)
    return argument


def _real_inputs(arguments: Any) -> tuple[Tensor, ...]:
    """Tensors as the specs say; integers are 0, so that they are valid indices."""
    if isinstance(arguments, TensorSpec):
        if arguments.dtype.is_floating_point:
            noise = torch.randn(arguments.shape, generator=torch.Generator().manual_seed(0))
            return (noise.to(arguments.dtype),)
        return (torch.zeros(arguments.shape, dtype=arguments.dtype),)
    if isinstance(arguments, list | tuple):
        return tuple(tensor for item in arguments for tensor in _real_inputs(item))
    return ()


def _real_module(module: nn.Module) -> nn.Module:
    """A copy of a meta module with weights: small noise, and ones for buffers."""
    twin = copy.deepcopy(module).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        for buffer in twin.buffers():
            buffer.fill_(1)
    return twin
