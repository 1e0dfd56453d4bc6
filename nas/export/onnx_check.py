"""Holds an ONNX file against the model that was given: each output by itself, on fresh inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from nas.errors import ExperimentError, NasError, explain
from nas.export.given_model import run
from nas.export.inference_copy import inference_copy
from nas.export.one_line import one_line
from nas.export.onnx_call import Call
from nas.export.onnx_graph import in_float32
from nas.export.references import Reference

_ROUNDINGS = 4
"""As many roundings of its numbers is an output allowed to be off, where these are coarser than the tolerance."""


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How near a file is to the model.

    Args:
        difference: the largest absolute one between their outputs; None where nothing can be told.
        by: what computed the outputs of the file.
        reason: why nothing can be told.
    """

    difference: float | None = None
    by: str | None = None
    reason: str | None = None


def computes(model: nn.Module | None, call: Call, reference: Reference, ruler: Ruler) -> bool:
    """Whether a model on the CPU computes what the model that was given does; None computes nothing."""
    if model is None:
        return False
    try:
        ruler.largest_difference(reference, list(run(model, call, reference.inputs).values()), "the copy")
    except NasError:
        return False
    return True


class _Runner(NamedTuple):
    """Something that runs ONNX files."""

    run: Callable[[dict[str, Any]], Any]
    name: str
    sure: bool = True
    """Whether its failure is the fault of the file."""


def judge(path: Path, references: Sequence[Reference], ruler: Ruler, call: Call) -> Verdict:
    """Runs a file as the model was run, and compares.

    Args:
        path: the file.
        references: what the model that was given has computed.
        ruler: how near is near enough.
        call: how it is called.

    Raises:
        ExperimentError: the file does not run, or it computes something else.
    """
    if not any(reference.fresh for reference in references):
        silent = "the model runs on no other values than those of the example"
    else:
        blind = [
            place
            for place, output in references[0].expected.items()
            if output.numel() and all(reference.expected[place].isnan().all() for reference in references)
        ]
        silent = f"output {blind[0] or 'of the model'} is not a number on any input that was tried" if blind else ""
    runner = _runner(path)
    if isinstance(runner, str):
        return Verdict(reason=runner)
    largest = 0.0
    for reference in references:
        feed = {name: _array(tensor) for name, tensor in zip(call.tensors, reference.inputs, strict=True)}
        try:
            found = [torch.as_tensor(array) for array in runner.run(feed)]
        except Exception as error:
            problem = f"{runner.name} cannot run the exported graph ({one_line(error)})"
            if not runner.sure:
                return Verdict(reason=problem)
            raise ExperimentError(explain(problem, where=reference.where)) from error
        largest = max(largest, ruler.largest_difference(reference, found, runner.name))
    return Verdict(reason=silent) if silent else Verdict(difference=largest, by=runner.name)


def _runner(path: Path) -> _Runner | str:
    """What runs a file, or why nothing does."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its log goes past Python to the terminal; its errors are raised all the same

    def start(file: str | bytes) -> Any:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    try:
        session = start(str(path))
        if not any("bfloat16" in value.type for value in [*session.get_inputs(), *session.get_outputs()]):
            return _Runner(lambda feed: session.run(None, feed), "onnxruntime")
        problem = "numpy has no bfloat16"
    except Exception as error:
        problem = one_line(error)
    wide = in_float32(path)
    try:
        if wide is not None:
            session = start(wide.SerializeToString())
            name = "onnxruntime in float32, as it cannot run this graph in bfloat16"
            return _Runner(lambda feed: session.run(None, feed), name)
    except Exception as error:
        return f"onnxruntime cannot run it, neither in bfloat16 nor in float32: {one_line(error)}"
    if "NOT_IMPLEMENTED" not in problem:
        raise ExperimentError(explain(f"onnxruntime cannot run the exported graph ({problem})"))
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(str(path))
    except Exception as error:
        return f"neither onnxruntime ({problem}) nor onnx.reference ({one_line(error)}) can run it"
    name = "onnx.reference, as onnxruntime lacks an operation"
    return _Runner(lambda feed: evaluator.run(None, feed), name, sure=False)


def _array(tensor: Tensor) -> Any:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


@final
class Ruler:
    """How near is near enough.

    Args:
        twin: a copy of the model, which tells how much of an output is rounding; None where there is none.
        call: how it is called.
        tolerance: the largest difference, in units of the largest value of the same output.
    """

    def __init__(self, twin: nn.Module | None, call: Call, tolerance: float) -> None:
        self._twin, self._call, self._tolerance = twin, call, tolerance
        self._precise: nn.Module | None = None

    def largest_difference(self, reference: Reference, found: Sequence[Tensor], by: str) -> float:
        """The largest one of any output.

        Raises:
            ExperimentError: an output has another shape, or is too far off.
        """
        expected = list(reference.expected.values())
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (expected, found)]
        if shapes[0] != shapes[1]:
            raise ExperimentError(
                explain(f"torch gives outputs of shape {shapes[0]}", got=shapes[1], where=reference.where)
            )
        largest = 0.0
        for place, got in zip(reference.expected, found, strict=True):
            wanted = reference.expected[place]
            if wanted.is_floating_point() != got.is_floating_point():
                rule = f"torch gives outputs of {wanted.dtype}"
                raise ExperimentError(explain(rule, got=str(got.dtype), where=reference.where))
            difference = apart(wanted, got)
            largest = max(largest, difference)
            if difference > 0 and not self._near(reference, place, got, difference):
                unit = f"{self._tolerance:g} times {_size(wanted):.3g}"
                if not wanted.is_floating_point():
                    unit = f"{self._tolerance:g} of its numbers"
                output = f" in {place!r}" if place else ""
                rule = f"{by} differs from torch by {difference:.3g}{output}, beyond {unit}"
                mend = "raise tolerance, if that is near enough; what is random, or kept outside of the model, differs"
                raise ExperimentError(explain(rule, where=reference.where, mend=mend))
        return largest

    def _near(self, reference: Reference, place: str, got: Tensor, difference: float) -> bool:
        wanted = reference.expected[place]
        if not wanted.is_floating_point():  # a tie that rounding has decided: `argmax`, `round`
            return float((wanted != got).double().mean()) <= self._tolerance
        coarse = [_ROUNDINGS * torch.finfo(t.dtype).eps for t in self._floats if torch.finfo(t.dtype).bits < 32]
        allowed = max([self._tolerance, *coarse]) * _size(wanted)
        if difference <= allowed:
            return True
        # What is left where larger numbers cancel out is rounding: no two programs agree on it.
        return difference <= allowed + _ROUNDINGS * self._rounding(reference, place)

    @cached_property
    def _floats(self) -> list[Tensor]:
        weights = [] if self._twin is None else [*self._twin.parameters(), *self._twin.buffers()]
        return [tensor for tensor in [*weights, *self._call.tensors.values()] if tensor.is_floating_point()]

    def _rounding(self, reference: Reference, place: str) -> float:
        """How far the copy is off from what it computes with twice the digits."""
        if self._twin is None:
            return 0.0
        try:
            if self._precise is None:
                self._precise = inference_copy(self._twin).double()
            inputs = [tensor.double() if tensor.is_floating_point() else tensor for tensor in reference.inputs]
            exact = run(self._precise, self._call, inputs)[place]
            rough, again = (run(self._twin, self._call, reference.inputs)[place] for _ in range(2))
            off = apart(exact, rough)
            chance = apart(rough, again) > 0  # random numbers are no rounding
        except (NasError, KeyError, RuntimeError):  # a model with one dtype written in it
            return 0.0
        return 0.0 if chance or off == float("inf") else off


def apart(wanted: Tensor, got: Tensor) -> float:
    """The largest absolute difference; infinite where only one is infinite or no number."""
    same = (wanted == got) | (wanted.isnan() & got.isnan()) if wanted.is_floating_point() else wanted == got
    differences = (wanted.double() - got.double())[~same]
    return _size(differences) if differences.isfinite().all() else float("inf")


def _size(values: Tensor) -> float:
    """The largest absolute value that is finite."""
    values = values.double()
    finite = values[values.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0
