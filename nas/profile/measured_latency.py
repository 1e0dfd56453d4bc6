"""How long a model takes: measured, with warm-up, median and spread."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, final, get_args

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import TreeSpec, tree_flatten, tree_unflatten
from nas.calls import explained
from nas.checks import check_int, check_word
from nas.errors import MissingDependency, NasTypeError, explain
from nas.example_inputs import Example, Inputs, in_order, read_example

Backend: TypeAlias = Literal["eager", "compile", "onnxruntime"]


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds for one forward pass in evaluation mode."""

    median: float
    """Half of the passes took less."""
    lower: float
    """A quarter of the passes took less."""
    upper: float
    """A quarter of the passes took more."""
    repeats: int
    """How many passes were measured."""
    threads: int
    """How many threads an operation could use on the CPU."""
    backend: Backend
    """What ran the model."""

    @property
    def interquartile(self) -> float:
        """The spread: the width of the middle half."""
        return self.upper - self.lower

    def __str__(self) -> str:
        return (
            f"{self.median * 1e3:.3f} ms (middle half {self.lower * 1e3:.3f} to {self.upper * 1e3:.3f}; {self.repeats} "
            f"passes, {self.backend}, {self.threads} {'thread' if self.threads == 1 else 'threads'})"
        )


@explained()
def latency(
    model: nn.Module,
    example_input: Example,
    backend: Backend = "eager",
    *,
    warmup: int = 5,
    repeats: int = 30,
    threads: int = 1,
) -> Latency:
    """Measures the forward pass of a model, without gradients and in evaluation mode; the model stays as it was.

    Args:
        model: on any device; the inputs are moved to it.
        example_input: a tensor, a tuple of tensors, or the shape of one float tensor, batch included; or anything that
            `forward` takes, as `profile` does.
        backend: "eager" is PyTorch as it is; "compile" is `torch.compile`; "onnxruntime" runs an export on the CPU.
        warmup: passes before the first that is measured.
        repeats: passes that are measured.
        threads: for each operation on the CPU; set for the measurement alone.

    Raises:
        NasTypeError, NasValueError: another kind of model, example or backend; counts below 1.
        MissingDependency: onnxruntime is not installed.

    Example:
        >>> found = latency(nn.Linear(8, 8), (1, 8), repeats=10)
        >>> 0 < found.lower <= found.median <= found.upper, found.repeats, found.threads
        (True, 10, 1)
    """
    if not isinstance(model, nn.Module):
        raise NasTypeError(
            explain("latency needs an nn.Module", got=model, where="latency", mend="an instance, not its class")
        )
    check_backend(backend)
    warmup, repeats, threads = check_passes(warmup, repeats, threads)
    return latency_of_call(model, read_example(example_input), backend, warmup=warmup, repeats=repeats, threads=threads)


def latency_of_call(
    model: nn.Module, inputs: Inputs, backend: Backend, *, warmup: int, repeats: int, threads: int
) -> Latency:
    """The same for arguments that were read, and options that were checked."""
    with _evaluating(model), _threads(threads), torch.no_grad(), _runner(model, inputs, backend, threads) as run:
        seconds = _measure(run, warmup, repeats)
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive") if repeats > 1 else seconds * 3
    return Latency(median=median, lower=lower, upper=upper, repeats=repeats, threads=threads, backend=backend)


def check_backend(backend: object) -> None:
    """Refuses what is no backend."""
    check_word("backend", backend, get_args(Backend), where="latency")


def check_passes(warmup: object, repeats: object, threads: object) -> tuple[int, int, int]:
    """The three numbers of a measurement, if they make sense."""
    return (
        check_int("warmup", warmup, least=0, where="latency"),
        check_int("repeats", repeats, least=1, where="latency"),
        check_int("threads", threads, least=1, where="latency"),
    )


def _measure(run: Callable[[], object], warmup: int, repeats: int) -> list[float]:
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _runner(model: nn.Module, inputs: Inputs, backend: Backend, threads: int) -> Iterator[Callable[[], object]]:
    """A function that runs the model once, to the end."""
    if backend == "onnxruntime":
        args, kwargs = in_order(model.forward, *inputs.arguments_for(model))
        if kwargs or not all(isinstance(item, Tensor) for item in args):
            model, args = _on_tensors(model, args, kwargs)
        with _session(model, args, threads) as run:
            yield run
        return
    device = next((tensor.device for tensor in (*model.parameters(), *inputs.tensors)), torch.device("cpu"))
    args, kwargs = inputs.on(device).arguments_for(model)
    compiled = torch.compile(model) if backend == "compile" else model

    def run_torch() -> None:
        compiled(*args, **kwargs)
        if device.type == "mps":  # the one that takes no device
            torch.mps.synchronize()
        elif device.type != "cpu":
            torch.get_device_module(device).synchronize(device)

    yield run_torch


@contextmanager
def _session(model: nn.Module, inputs: tuple[Tensor, ...], threads: int) -> Iterator[Callable[[], object]]:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime", purpose="latency(backend='onnxruntime')") from error
    from nas.export import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(model, inputs[0] if len(inputs) == 1 else inputs, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [found.name for found in session.get_inputs()]
    feed = {name: tensor.numpy(force=True) for name, tensor in zip(names, inputs, strict=True)}
    yield lambda: session.run(None, feed)


def _on_tensors(
    model: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A module that takes the tensors alone, by position, and these."""
    leaves, structure = tree_flatten((args, kwargs))
    return _OnTensors(model, leaves, structure), tuple(item for item in leaves if isinstance(item, Tensor))


@final
class _OnTensors(nn.Module):
    """Calls a module with tensors put back where they stood among its arguments."""

    def __init__(self, module: nn.Module, leaves: list[object], structure: TreeSpec) -> None:
        super().__init__()
        self.module, self._structure = module, structure
        self._leaves = [... if isinstance(item, Tensor) else item for item in leaves]

    def forward(self, *tensors: Tensor) -> object:
        given = iter(tensors)
        leaves = [next(given) if item is ... else item for item in self._leaves]
        args, kwargs = tree_unflatten(leaves, self._structure)
        return self.module(*args, **kwargs)
