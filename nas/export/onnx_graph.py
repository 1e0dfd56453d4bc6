"""The graph of a model: traced by torch, with names that a reader knows, checked, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas.errors import ExperimentError, NasValueError, explain
from nas.export.one_line import one_line
from nas.export.onnx_call import Call, outputs_of

if TYPE_CHECKING:
    import onnx

Dynamic = Mapping[str, Mapping[int, str]]
"""Input -> dimension -> the name of its size."""

_BFLOAT16, _FLOAT = 16, 1
"""What ONNX calls them."""

_OPSET_OF_BFLOAT16 = 22
"""The first in which convolutions and pooling take it."""

_NEAR = 256
"""A limit of sizes, as torch sees it, is tried where it is no higher."""


@final
@dataclass(frozen=True, kw_only=True)
class Graph:
    """What torch has made of a model.

    Args:
        nodes: how many operations it has.
        opset: the version of the operators.
        outputs: the names of its outputs.
        limits: sizes of dynamic dimensions between which torch says that the graph holds, where it says so.
    """

    nodes: int
    opset: int
    outputs: tuple[str, ...]
    limits: tuple[tuple[int, int], ...]

    @property
    def beyond(self) -> list[int]:
        """Sizes just outside of the limits, as far as they can be tried."""
        below = [lower - 1 for lower, _ in self.limits if 1 < lower <= _NEAR]
        return below + [upper + 1 for _, upper in self.limits if upper < _NEAR]


class _Flat(nn.Module):
    """A model that takes tensors by position and returns a list of them."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        return list(outputs_of(self.call.run(self.model, tensors)).values())


def write_graph(
    model: nn.Module,
    call: Call,
    tensors: Sequence[Tensor],
    path: Path,
    *,
    outputs: Sequence[str],
    dynamic: Dynamic,
    opset: int | None,
    notes: Mapping[str, str],
) -> Graph:
    """Traces a model on some inputs and writes its graph.

    Args:
        model: in eval mode, on the CPU; its attributes may be others afterwards.
        call: how it is called.
        tensors: in the places of the call's; a dynamic dimension is at least 2, as torch takes a 1 for a constant.
        path: the file to write.
        outputs: the places of the tensors that it returns.
        dynamic: which dimensions may have any size.
        opset: the version of the operators; None for torch's usual one, or the first that takes bfloat16 everywhere.
        notes: metadata of the file.

    Raises:
        ExperimentError: torch cannot export it, or only for some sizes though asked for all, or not with that opset.
    """
    import onnx

    known = onnx.defs.onnx_opset_version()
    if opset is not None and opset > known:
        rule = f"opset must be one that onnx knows, which goes up to {known}"
        raise NasValueError(explain(rule, got=opset, where="to_onnx"))
    if opset is None and any(t.dtype == torch.bfloat16 for t in [*model.parameters(), *model.buffers(), *tensors]):
        opset = _OPSET_OF_BFLOAT16
    job = _Tracing(
        model=_Flat(model, call), call=call, tensors=tensors, outputs=len(outputs), dynamic=dynamic, opset=opset
    )
    try:
        program = _write(job, path, notes, optimize=True)
    except _InvalidGraphError:  # torch's optimizer folds BatchNorm into the weights, and loses their bfloat16
        program = _write(job, path, notes, optimize=False)
    graph = program.model.graph
    ranges = program.exported_program.range_constraints.items() if program.exported_program else ()
    # A symbol with s is a size; one with u is a value that the data decide.
    limits = [(int(bounds.lower), int(min(bounds.upper, 2**31))) for name, bounds in ranges if str(name)[0] == "s"]
    return Graph(
        nodes=len(list(graph)),
        opset=program.model.opset_imports[""],
        outputs=tuple(str(value.name) for value in graph.outputs),
        limits=tuple(each for each in limits if each[0] > 1 or each[1] < 2**31),
    )


class _InvalidGraphError(ExperimentError):
    """The graph breaks the rules of ONNX."""


@final
@dataclass(frozen=True, kw_only=True)
class _Tracing:
    """What torch traces."""

    model: nn.Module
    call: Call
    tensors: Sequence[Tensor]
    outputs: int
    dynamic: Dynamic
    opset: int | None


def _write(job: _Tracing, path: Path, notes: Mapping[str, str], *, optimize: bool) -> torch.onnx.ONNXProgram:
    import onnx

    program = _trace(job, optimize=optimize)
    _check_dimensions(program, job.call, job.dynamic)
    written = program.model.opset_imports[""]
    if job.opset is not None and written != job.opset:
        rule = f"torch must be able to write opset {job.opset}, and it has written {written}"
        raise NasValueError(explain(rule, where="to_onnx", mend=f"leave opset out, or take {written} or above"))
    _rename(program.model)
    program.model.metadata_props.update(notes)
    for node in program.model.graph.all_nodes():  # paths and source lines of the machine that exported it
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    try:
        program.save(path)
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        rule = f"the exported graph must pass onnx.checker ({one_line(error)})"
        raise _InvalidGraphError(explain(rule)) from error
    return program


def _trace(job: _Tracing, *, optimize: bool) -> torch.onnx.ONNXProgram:
    call, dynamic = job.call, job.dynamic
    shapes = tuple(dict(dynamic[name]) if dynamic.get(name) else None for name in call.tensors)
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the strides of another kernel's results mislead the exporter (T5)
            program = torch.onnx.export(
                job.model,
                tuple(job.tensors),
                dynamo=True,
                verbose=False,
                dynamic_shapes=(shapes,) if any(shapes) else None,  # `*tensors` is one nested argument
                input_names=list(call.tensors),
                output_names=["output"] if job.outputs == 1 else [f"output_{i}" for i in range(job.outputs)],
                opset_version=job.opset,
                optimize=optimize,
            )
        assert program is not None, "torch returns a program from its dynamo exporter"
    except Exception as error:
        raise ExperimentError(explain(f"torch cannot export the model: {one_line(error)}")) from error
    return program


def _check_dimensions(program: torch.onnx.ONNXProgram, call: Call, dynamic: Dynamic) -> None:
    values = dict(zip(call.tensors, program.model.graph.inputs, strict=True))
    fixed = [
        f"{symbol} of {name}"
        for name, names in dynamic.items()
        for dim, symbol in names.items()
        if (shape := values[name].shape) is None or isinstance(shape[dim], int)
    ]
    if fixed:
        raise ExperimentError(explain("the graph must hold for every size", got=fixed))


def _rename(model: Any) -> None:
    """Weights have the names that the model has for them, and no value inside has that of an input or output."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        value.name = value.name.removeprefix("model.")
    ends = {value.name: value for value in [*graph.inputs, *graph.outputs]}
    inside = [value for node in graph.all_nodes() for value in node.outputs]
    for value in [*graph.initializers.values(), *inside]:
        if value.name in ends and value is not ends[value.name]:
            value.name = f"{value.name}.inside"


def in_float32(path: Path) -> onnx.ModelProto | None:
    """The same graph with 32 bits in place of bfloat16; None where it has no bfloat16."""
    import onnx

    model = onnx.load(path)
    for used in model.opset_import:
        if not used.domain and used.version == _OPSET_OF_BFLOAT16:  # that differs from the one before by bfloat16 alone
            used.version -= 1
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    changed = 0
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes.extend(graph.node)
            for value in [*graph.input, *graph.output, *graph.value_info]:
                if value.type.tensor_type.elem_type == _BFLOAT16:
                    value.type.tensor_type.elem_type = _FLOAT
                    changed += 1
            changed += sum(map(_widen, graph.initializer))
            continue
        for attribute in nodes.pop().attribute:
            graphs.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)
            changed += sum(map(_widen, [attribute.t] if attribute.HasField("t") else attribute.tensors))
            if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == _BFLOAT16:
                attribute.i = _FLOAT
                changed += 1
    return model if changed else None


def _widen(tensor: onnx.TensorProto) -> bool:
    import onnx

    if tensor.data_type != _BFLOAT16:
        return False
    # What onnx makes of these bits for numpy has changed from version to version.
    bits = torch.frombuffer(bytearray(tensor.raw_data), dtype=torch.int16) if tensor.raw_data else None
    bits = torch.tensor(list(tensor.int32_data)).to(torch.int16) if bits is None else bits
    values = bits.view(torch.bfloat16).float().reshape(tuple(tensor.dims)).numpy()
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return True
