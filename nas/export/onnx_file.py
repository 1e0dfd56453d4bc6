"""A model as one ONNX file: exported by torch, checked, compared with torch, and labelled with its architecture."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import io
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas._compat.torch_internals import inside_compiled
from nas.checks import check_number
from nas.domains import dumps_sample, loads_sample
from nas.errors import ExperimentError, MissingDependency, NasError, NasTypeError, NasValueError, explain
from nas.version import __version__

_SAMPLE, _LABELS, _VERSION = "nas.sample", "nas.labels", "nas.version"


@final
@dataclass(frozen=True, kw_only=True)
class OnnxReport:
    """What `to_onnx` wrote, and how near it is to the torch model; printed, it is one line.

    Args:
        path: the file.
        size_bytes: its size, with that of the weights beside it where they exceed what one ONNX file holds (2 GB).
        nodes: how many operations the graph has.
        opset: the version of the ONNX operators.
        dynamic_batch: whether the graph runs with any batch size, or with the example's alone.
        fixed_batch_reason: why it runs with the example's batch size alone; None when it runs with any.
        max_difference: the largest absolute difference between the outputs of onnxruntime and of torch; None when
            onnxruntime is not installed.
    """

    path: Path
    size_bytes: int
    nodes: int
    opset: int
    dynamic_batch: bool
    fixed_batch_reason: str | None
    max_difference: float | None

    def __str__(self) -> str:
        batch = "dynamic batch" if self.dynamic_batch else f"fixed batch ({self.fixed_batch_reason})"
        compared = "not compared with torch (onnxruntime is not installed)"
        if self.max_difference is not None:
            compared = f"largest difference to torch {self.max_difference:.1e} (onnxruntime)"
        units = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("bytes", 0))
        unit, factor = next(pair for pair in units if self.size_bytes >= pair[1])
        size = f"{self.size_bytes / max(factor, 1):.3g} {unit}"
        nodes = f"{self.nodes} node" + ("" if self.nodes == 1 else "s")
        return f"{self.path.name}: {nodes}, {size}, opset {self.opset}, {batch}, {compared}"


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One export: a copy of the model to trace, what it is called with, and what the file is held against."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: int
    notes: Mapping[str, str]
    tolerance: float
    target: Path
    draft: Path


def to_onnx(
    model: nn.Module,
    example_input: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    sample: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    tolerance: float = 1e-3,
) -> OnnxReport:
    """Writes a model as one self-contained ONNX file, in inference mode and for any batch size.

    A copy of the model is exported, on the CPU; the model itself stays as it is: mode, device, weights. The file is
    checked by `onnx.checker`, and by onnxruntime where that is installed: at the example's batch size, and at another
    one. Where only one batch size is possible, the file has that of the example and the report says why. Meanwhile
    printing, warnings and logging are off in the whole process, because torch's exporter uses all three freely.

    Args:
        model: the model, with its weights.
        example_input: what it is called with: a tensor "(batch, ...)", or a tuple of such tensors of one batch size.
        path: the file to write, whole or not at all; its folder is made where needed. Its inputs are named `input` (or
            `input_0`, `input_1`, ...) and its outputs `output` (or `output_0`, ...).
        sample: the architecture, to ride along in the file; default: what the model was built from.
        labels: label -> its domain in words, to ride along; default: what the model was built from.
        tolerance: the largest difference between onnxruntime and torch, in units of the output's largest absolute value
            or of 1, whichever is larger.

    Returns:
        A report.

    Raises:
        NasTypeError: no model, an example that is no tensor, a model that returns no tensors.
        NasValueError: a path that cannot be written, an example without a batch, a model that does not run on it.
        ExperimentError: the model cannot be exported, or the file computes something else; nothing is written then.
        MissingDependency: onnx or onnxscript is not installed.

    Example:
        >>> import tempfile
        >>> report = to_onnx(nn.Linear(4, 2), torch.zeros(2, 4), tempfile.mkdtemp() + "/best.onnx", sample={"width": 4})
        >>> report.nodes, report.dynamic_batch
        (1, True)
        >>> read_metadata(report.path)["sample"]
        {'width': 4}
    """
    if not isinstance(model, nn.Module):
        raise NasTypeError(explain("the model must be a torch.nn.Module", got=model, where="to_onnx"))
    if not isinstance(path, str | os.PathLike):
        raise NasTypeError(explain("path must be the path of a file", got=path, where="to_onnx"))
    tolerance = check_number("tolerance", tolerance, least=0, infinite=True, where="to_onnx")
    model = inside_compiled(model)  # the exporter has its own way to compile
    inputs, target, notes = _checked_inputs(example_input), Path(path), _notes(model, sample, labels)
    with _quiet():
        _require_onnx()
        with _draft_of(target) as draft:
            twin = _inference_copy(model)
            outputs = len(_run(twin, inputs))
            job = _Job(
                model=twin, inputs=inputs, outputs=outputs, notes=notes, tolerance=tolerance, target=target, draft=draft
            )
            try:
                return _attempt(job)
            except NasError as error:
                return _attempt(job, fixed_because=str(error).rstrip("."))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `to_onnx` noted in a file.

    Returns:
        A dict of "sample" (label -> answer), "labels" (label -> its domain in words) and "version" (of this package);
        each is None where the file does not say.

    Raises:
        NasValueError: there is no such file, or it is no ONNX file.
        MissingDependency: onnx is not installed.
    """
    with _quiet():
        _require_onnx()
    import onnx

    try:
        found = onnx.load(os.fspath(path), load_external_data=False)
        if not found.ir_version:
            raise ValueError("it names no ONNX version")
    except Exception as error:  # a torn file is an error of protobuf, which has no public place in onnx
        rule = f"the file must be a readable ONNX file ({_one_line(error)})"
        raise NasValueError(explain(rule, got=str(path), where="read_metadata")) from error
    notes = {note.key: note.value for note in found.metadata_props}
    return {
        "sample": loads_sample(notes[_SAMPLE]) if _SAMPLE in notes else None,
        "labels": json.loads(notes[_LABELS]) if _LABELS in notes else None,
        "version": notes.get(_VERSION),
    }


def _checked_inputs(example_input: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    inputs = tuple(example_input) if isinstance(example_input, tuple | list) else (example_input,)
    if not inputs or not all(isinstance(tensor, Tensor) for tensor in inputs):
        kinds = [type(tensor).__name__ for tensor in inputs]
        raise NasTypeError(explain("example_input must be a tensor or a tuple of tensors", got=kinds, where="to_onnx"))
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if not all(shapes) or len({shape[0] for shape in shapes}) > 1 or shapes[0][0] < 1:
        rule = "the first dimension of example_input must be the batch: at least 1, and the same in each tensor"
        raise NasValueError(explain(rule, got=shapes, where="to_onnx", mend="add the dimension with x[None]"))
    return tuple(tensor.detach().cpu().clone() for tensor in inputs)


def _notes(model: nn.Module, sample: object, labels: object) -> dict[str, str]:
    """The metadata of the file, as text."""
    known = vars(model).get("nas_architecture") or {}
    sample = known.get("sample") if sample is None else sample
    labels = known.get("labels") if labels is None else labels
    notes = {}
    if sample is not None:
        if not isinstance(sample, Mapping):
            raise NasTypeError(explain("sample must be a dict label -> answer", got=sample, where="to_onnx"))
        notes[_SAMPLE] = dumps_sample(sample)
    if labels is not None:
        if not isinstance(labels, Mapping) or not all(isinstance(text, str) for text in [*labels, *labels.values()]):
            raise NasTypeError(explain("labels must be a dict label -> text", got=labels, where="to_onnx"))
        notes[_LABELS] = json.dumps(dict(labels))
    notes[_VERSION] = __version__
    return notes


def _inference_copy(model: nn.Module) -> nn.Module:
    """The model on the CPU and in eval mode, sharing nothing with the original."""
    if any(tensor.is_meta or is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        rule = "the weights of the model must have values, and some are on the meta device or lazy"
        raise NasValueError(explain(rule, where="to_onnx", mend="build it on a real device, and call it once"))
    # Tensors that were computed and kept (weight_norm's weight, the last activations) refuse to be deep-copied.
    attributes = [value for module in model.modules() for value in vars(module).values()]
    computed = [value for value in attributes if isinstance(value, Tensor) and not value.is_leaf]
    try:
        twin = copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in computed})
    except Exception as error:
        rule = f"the model must be one that copy.deepcopy can copy ({_one_line(error)})"
        raise NasTypeError(explain(rule, got=type(model), where="to_onnx")) from error
    return twin.cpu().eval()


def _with_batch(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """The first rows, or more rows made of those by rolling their values on, so that no two need be alike."""
    size = len(inputs[0])
    return tuple(torch.stack([rows[i % size].roll(i // size) for i in range(batch)]) for rows in inputs)


def _flat(output: object) -> list[Tensor]:
    """The tensors of an output, in the order in which the exporter returns them."""
    if isinstance(output, Tensor):
        return [output]
    items = list(output.values()) if isinstance(output, Mapping) else output
    if not isinstance(items, tuple | list):
        rule = "a model that is exported must return a tensor, or a tuple, list or dict of tensors"
        raise NasTypeError(explain(rule, got=type(output), where="to_onnx"))
    return [tensor for item in items if item is not None for tensor in _flat(item)]


def _run(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    try:
        with torch.no_grad():
            output = model(*(tensor.clone() for tensor in inputs))  # it may write into them
    except Exception as error:
        shapes = [tuple(tensor.shape) for tensor in inputs]
        rule = f"the model must run on a batch of {shapes[0][0]} ({_one_line(error)})"
        raise NasValueError(explain(rule, got=shapes)) from error
    return _flat(output)


def _attempt(job: _Job, *, fixed_because: str | None = None) -> OnnxReport:
    """Writes the draft, checks it and compares it, with a dynamic batch unless there is a reason against it."""
    import onnx

    dynamic = fixed_because is None
    batch = len(job.inputs[0])
    # Batch 1 is where graphs and models part most often: it broadcasts, and `squeeze` removes it.
    sizes = [batch] if not dynamic else [batch, 3 if batch == 1 else 1]
    references = [(inputs, _run(job.model, inputs)) for inputs in (_with_batch(job.inputs, size) for size in sizes)]
    # Traced at batch 1, torch would take the 1 for a constant.
    program = _trace(job, _with_batch(job.inputs, max(batch, 2) if dynamic else batch), dynamic=dynamic)
    program.model.metadata_props.update(job.notes)
    nodes = list(program.model.graph)
    for node in nodes:  # paths and source lines of the machine that exported it
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    try:
        program.save(job.draft)
        onnx.checker.check_model(str(job.draft), full_check=True)
    except Exception as error:
        raise ExperimentError(explain(f"the exported graph must pass onnx.checker ({_one_line(error)})")) from error
    return OnnxReport(
        path=job.target,
        size_bytes=sum(file.stat().st_size for file in job.draft.parent.iterdir()),
        nodes=len(nodes),
        opset=program.model.opset_imports[""],
        dynamic_batch=dynamic,
        fixed_batch_reason=fixed_because,
        max_difference=_largest_difference(job, references),
    )


def _trace(job: _Job, inputs: tuple[Tensor, ...], *, dynamic: bool) -> torch.onnx.ONNXProgram:
    """The graph; an error where torch cannot export the model, or only for some batch sizes though asked for all."""
    shapes: tuple[Any, ...] = ({0: "batch"},) * len(inputs)
    try:
        for i, parameter in enumerate(inspect.signature(job.model.forward).parameters.values()):
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL and i < len(inputs):
                shapes = (*shapes[:i], shapes[i:])  # `*inputs` is one nested argument
        program = torch.onnx.export(
            job.model,
            inputs,
            dynamo=True,
            verbose=False,
            dynamic_shapes=shapes if dynamic else None,
            input_names=["input"] if len(inputs) == 1 else [f"input_{i}" for i in range(len(inputs))],
            output_names=["output"] if job.outputs == 1 else [f"output_{i}" for i in range(job.outputs)],
        )
        assert program is not None, "torch returns a program from its dynamo exporter"
    except Exception as error:
        raise ExperimentError(explain(f"torch cannot export the model: {_one_line(error)}")) from error
    if dynamic:
        fixed = [value.name for value in program.model.graph.inputs if value.shape and isinstance(value.shape[0], int)]
        ranges = program.exported_program.range_constraints.items() if program.exported_program else ()
        # A symbol with s is a size; one with u is a value that the data decide.
        sizes = [bounds for symbol, bounds in ranges if str(symbol).startswith("s")]
        bounded = [str(bounds) for bounds in sizes if bounds.lower > 1 or bounds.upper < 2**31]
        if fixed or bounded:
            raise ExperimentError(explain("the graph must hold for every batch size", got=fixed or bounded))
    return program


def _largest_difference(job: _Job, references: Sequence[tuple[tuple[Tensor, ...], list[Tensor]]]) -> float | None:
    """The largest absolute difference between onnxruntime and torch; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its log goes past Python to the terminal; its errors are raised all the same
    try:
        session = onnxruntime.InferenceSession(str(job.draft), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        feeds = [dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True)) for inputs, _ in references]
        results = [[torch.as_tensor(array) for array in session.run(None, feed)] for feed in feeds]
    except Exception as error:
        raise ExperimentError(explain(f"onnxruntime cannot run the exported graph ({_one_line(error)})")) from error
    largest = 0.0
    for (inputs, expected), found in zip(references, results, strict=True):
        where = f"at batch {len(inputs[0])}"
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (expected, found)]
        if shapes[0] != shapes[1]:
            raise ExperimentError(explain(f"torch gives outputs of shape {shapes[0]}", got=shapes[1], where=where))
        for wanted, got in zip(expected, found, strict=True):
            difference, unit = _apart(wanted.double(), got.double()), max(1.0, _largest(wanted.double()))
            if difference > job.tolerance * unit:
                rule = f"onnxruntime differs from torch by {difference:.3g}, beyond {job.tolerance:g} times {unit:.3g}"
                raise ExperimentError(explain(rule, where=where, mend="raise tolerance, if that is near enough"))
            largest = max(largest, difference)
    return largest


def _apart(wanted: Tensor, got: Tensor) -> float:
    same = (wanted == got) | (wanted.isnan() & got.isnan())
    return float("inf") if not (wanted - got)[~same].isfinite().all() else _largest((wanted - got)[~same])


def _largest(values: Tensor) -> float:
    finite = values[values.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


@contextlib.contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A file of the same name in a passing folder beside the target; moved to its place if all goes well."""
    if target.is_dir():
        mend = f"name a file in it, such as {target / 'model.onnx'}"
        raise NasValueError(explain("path must be a file, not a folder", got=str(target), where="to_onnx", mend=mend))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        passing = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        rule = f"the folder of path must be one that can be written ({error})"
        raise NasValueError(explain(rule, got=str(target), where="to_onnx")) from error
    with passing as folder:
        yield Path(folder) / target.name
        # The model itself last: beyond 2 GB its weights lie in a file beside it.
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == target.name):
            os.replace(file, target.with_name(file.name))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences printing, warnings and logging: torch's exporter and its helpers use all three."""
    level = logging.root.manager.disable
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def _require_onnx() -> None:
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingDependency(package, purpose="ONNX export") from error


def _one_line(error: BaseException) -> str:
    """What went wrong at the root, on one line; torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[\d*m", "", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
