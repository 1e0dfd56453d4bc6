"""A model as one ONNX file: exported by torch, checked, compared with torch, and labelled with its architecture."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from nas._compat.torch_internals import inside_compiled
from nas.calls import explained
from nas.checks import check_int, check_number
from nas.domains import dumps_sample, loads_sample
from nas.errors import ExperimentError, MissingDependency, NasError, NasTypeError, NasValueError, explain, told_if_full
from nas.export.given_model import GivenModel
from nas.export.inference_copy import inference_copy
from nas.export.one_line import one_line
from nas.export.onnx_call import Call, dynamic_dimensions, take_apart
from nas.export.onnx_check import Ruler, computes, judge
from nas.export.onnx_graph import Dynamic, write_graph
from nas.export.onnx_report import OnnxReport
from nas.export.references import Reference, References
from nas.files import named_by_user, parse_json, read_bytes
from nas.version import __version__

_MOST = 2 << 30
"""Bytes that an ONNX file has at the most."""
_SAMPLE, _LABELS, _VERSION = "nas.sample", "nas.labels", "nas.version"


@final
@dataclass(frozen=True, kw_only=True)
class _Job:
    """One export: what is traced, how it is called, and what the file is held against."""

    copied: bool
    """Whether the copy computes what the model does: hooks and functions may look at what lies outside of both."""
    twin: nn.Module | None
    call: Call
    given: GivenModel
    known: list[Reference]
    """Calls of the given model at the sizes of the example."""
    ruler: Ruler
    asked: Dynamic
    """Dimensions that must be dynamic."""
    opset: int | None
    notes: Mapping[str, str]
    target: Path
    draft: Path


def _kind(rule: str, got: object, mend: str) -> NasTypeError:
    return NasTypeError(explain(rule, got=got, where="to_onnx", mend=mend))


@explained()
def to_onnx(
    model: nn.Module,
    example_input: Any,
    path: str | os.PathLike[str],
    *,
    sample: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    tolerance: float = 1e-3,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    opset: int | None = None,
) -> OnnxReport:
    """Writes a model as one self-contained ONNX file, in inference mode and for any batch size.

    A copy of the model is exported, on the CPU; the model itself is called too, for what the file is held against, and
    is left as it was: modes, device, tensors, attributes. The file is checked by `onnx.checker`, and where onnxruntime
    is installed its outputs are compared with those of the model on fresh inputs, at the batch sizes 1, 2, 3, 5 and
    that of the example. Where the batch cannot have any size, the file has that of the example and the report says why.
    Meanwhile printing, warnings and logging are off in the whole process: torch's exporter uses all three freely.

    Args:
        model: the model, with its weights.
        example_input: what it is called with: a tensor "(batch, ...)"; a tuple or list of arguments; or a dict of
            keywords. An argument may be a tensor, or a list, tuple, dict or dataclass of tensors; what else there is
            (numbers, texts, None) becomes a fixed part of the file. The first dimension is taken for the batch where it
            is as long as that of the first tensor.
        path: the file to write, whole or not at all; its folder is made where needed. Its inputs are named `input` (or
            `input_0`, `input_1`, ... by position; keywords by their own names; what lies in lists and dicts by `_0` or
            `_key` behind that) and its outputs `output` (or `output_0`, ...).
        sample: the architecture, to ride along in the file; default: what the model was built from.
        labels: label -> its domain in words, to ride along; default: what the model was built from.
        tolerance: the largest difference between onnxruntime and torch, in units of the largest absolute value of the
            same output, or the share of numbers that may differ where they are integers or truth values. Four roundings
            of half precision are allowed in any case, and four times what torch itself is off in an output that is
            left when larger numbers cancel out.
        dynamic: other dimensions that may have any size, by name: `{"input": {1: "tokens"}}`. Dimensions of one name
            are of one size. Where a first dimension is among them, no other one is taken for the batch.
        opset: the version of the ONNX operators; torch's usual one where omitted.

    Returns:
        A report.

    Raises:
        NasTypeError: no model, an example without tensors, a model that returns something else than tensors.
        NasValueError: a path that cannot be written, an input or opset that cannot be, a model that does not run on the
            example.
        ExperimentError: the model cannot be exported, or not with the dynamic dimensions that were asked for, or the
            file computes something else; nothing is written then.
        MissingDependency: onnx or onnxscript is not installed.

    Example:
        >>> import tempfile
        >>> report = to_onnx(nn.Linear(4, 2), torch.zeros(2, 4), tempfile.mkdtemp() + "/best.onnx", sample={"width": 4})
        >>> report.nodes, report.dynamic_batch, report.verified_batches
        (1, True, (1, 2, 3, 5))
        >>> read_metadata(report.path)["sample"]
        {'width': 4}
    """
    if not isinstance(model, nn.Module):
        raise _kind("the model must be a torch.nn.Module", model, "an instance, not its class")
    if not isinstance(path, str | os.PathLike):
        raise _kind("path must be the path of a file", path, 'path="best.onnx"')
    tolerance = check_number("tolerance", tolerance, least=0, infinite=True, where="to_onnx")
    opset = None if opset is None else check_int("opset", opset, least=1, where="to_onnx")
    model = inside_compiled(model)  # the exporter has its own way to compile
    call, notes = take_apart(model, example_input), _notes(model, sample, labels)
    target = named_by_user(Path(path).expanduser())
    asked, batch = dynamic_dimensions(call, dynamic)
    with _quiet(), torch.random.fork_rng(devices=[]):
        _require_onnx()
        with _draft_of(target) as draft:
            twin, given = _copied(model), GivenModel(model)
            references, ruler = References(given, twin, call, {}, {}), Ruler(twin, call, tolerance)
            known = [references.example(), references.at({})]
            job = _Job(
                twin=twin,
                call=call,
                given=given,
                copied=not given.on_cpu or all(computes(twin, call, each, ruler) for each in known),
                known=known,
                ruler=ruler,
                asked=asked,
                opset=opset,
                notes=notes,
                target=target,
                draft=draft,
            )
            try:
                return _export(job, batch)
            finally:
                given.forget_tracing(call)


@explained()
def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `to_onnx` noted in a file.

    Returns:
        A dict of "sample" (label -> answer), "labels" (label -> its domain in words) and "version" (of this package);
        each is None where the file does not say.

    Raises:
        NasValueError: there is no such file, it is no ONNX file, or what is noted in it is no sample.
        MissingDependency: onnx is not installed.
    """
    with _quiet():
        _require_onnx()
    import onnx

    try:
        found = onnx.load_model_from_string(read_bytes(path, most=_MOST, follow=True))
        if not found.ir_version:
            raise ValueError("it names no ONNX version")
    except Exception as error:  # a torn file is an error of protobuf, which has no public place in onnx
        rule = f"the file must be a readable ONNX file ({one_line(error)})"
        raise NasValueError(explain(rule, got=str(path), where="read_metadata")) from error
    notes = {note.key: note.value for note in found.metadata_props}
    try:
        sample = loads_sample(notes[_SAMPLE]) if _SAMPLE in notes else None
        labels = parse_json(notes[_LABELS], where=str(path), strict=True) if _LABELS in notes else None
        if labels is not None and not _are_texts(labels):
            raise NasValueError(explain("labels must be a dict label -> text", got=labels))
    except NasValueError as error:
        rule = f"what is noted in the file must be a sample and its labels ({error})"
        raise NasValueError(explain(rule, got=str(path), where="read_metadata")) from error
    return {"sample": sample, "labels": labels, "version": notes.get(_VERSION)}


def _are_texts(labels: object) -> bool:
    return isinstance(labels, Mapping) and all(isinstance(text, str) for text in [*labels, *labels.values()])


def _copied(model: nn.Module) -> nn.Module | None:
    """The copy to trace; None where the model itself has to do, as it holds a lock, say."""
    try:
        return inference_copy(model)
    except NasTypeError:
        if any(tensor.device.type != "cpu" for tensor in [*model.parameters(), *model.buffers()]):
            raise
        return None


def _export(job: _Job, batch: Dynamic) -> OnnxReport:
    """With a dynamic batch where that is possible, else without."""
    if not batch:
        named = any(0 in names for names in job.asked.values())
        return _attempt(job, {}, because=None if named else "no input has a first dimension")
    try:
        return _attempt(job, batch)
    except NasError as error:
        because = str(error).rstrip(".")
        if len(batch) < sum(tensor.ndim > 0 for tensor in job.call.tensors.values()):
            because = f"the inputs have no first dimension in common, and {because}"
        return _attempt(job, {}, because=because)


def _attempt(job: _Job, batch: Dynamic, *, because: str | None = None) -> OnnxReport:
    """Writes the draft, checks it and compares it.

    Args:
        job: what to export.
        batch: the dimensions of the batch, where it is to be dynamic.
        because: why it is not.

    Raises:
        NasError: the graph does not hold, or not for each size.
    """
    references = References(job.given, job.twin, job.call, job.asked, batch)
    checked = [*job.known, *references.usual()]
    with job.given.in_inference() if job.twin is None or not job.copied else contextlib.nullcontext(job.twin) as traced:
        graph = write_graph(
            traced,
            job.call,
            references.to_trace(),
            job.draft,
            outputs=list(checked[0].expected),
            dynamic=references.dynamic,
            opset=job.opset,
            notes=job.notes,
        )
    checked += references.beyond(graph.beyond)
    verdict = judge(job.draft, checked, job.ruler, job.call)
    if verdict.by is None and graph.limits:
        raise ExperimentError(
            explain("the graph must hold for every size, where nothing can run it to see", got=list(graph.limits))
        )
    batches = {len(reference.inputs[0]) for reference in checked if reference.inputs[0].ndim}
    return OnnxReport(
        path=job.target,
        size_bytes=sum(file.stat().st_size for file in job.draft.parent.iterdir()),
        nodes=graph.nodes,
        opset=graph.opset,
        dynamic_batch=because is None,
        fixed_batch_reason=because,
        max_difference=verdict.difference,
        verified_by=verdict.by,
        verified_batches=tuple(sorted(batches)) if verdict.by else (),
        unverified_reason=verdict.reason,
        dynamic=references.dynamic,
        outputs=dict(zip(graph.outputs, checked[0].expected, strict=True)),
        constants=job.call.constants,
    )


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
        if not isinstance(labels, Mapping) or not _are_texts(labels):
            raise NasTypeError(explain("labels must be a dict label -> text", got=labels, where="to_onnx"))
        notes[_LABELS] = json.dumps(dict(labels))
    notes[_VERSION] = __version__
    return notes


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
    with told_if_full(target), passing as folder:
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
