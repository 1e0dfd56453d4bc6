"""What applies to a supernet as a whole: memory format, compilation, checkpoints of cells."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nas._compat.checkpoints import Again
from nas._compat.compiler import COMPILER_ERRORS, once_for_all
from nas._compat.torch_internals import BatchNorm, is_compiled, own_buffers, tree_map
from nas.example_inputs import Inputs, tensors_of
from nas.oneshot.relaxed import MixedDepth, MixedInput, MixedLayer, RelaxedSupernet
from nas.oneshot.speed.compilation import (
    Compiler,
    Key,
    is_recording,
    often,
    own_code,
    pieces_uncompiled,
    reason_of,
    runs_plainly,
)
from nas.oneshot.speed.fast_mixture import FastMixture
from nas.oneshot.speed.recorded import RecordedForward, record_whole
from nas.oneshot.speed.recorders import CudaRecorder, records_on
from nas.oneshot.speed.speed import Report, Speed


def apply_whole(model: nn.Module, example: Inputs, speed: Speed, report: Report) -> None:
    """Does to a model what `speed` says of the whole of it, but for its compilation."""
    images = any(tensor.dim() == 4 for tensor in example.tensors)
    if images and (speed.channels_last is True or (speed.channels_last == "auto" and _gains(model))):
        model.to(memory_format=torch.channels_last)
        report.handles.append(model.register_forward_pre_hook(_channels_last, with_kwargs=True))
        report.whole.append("channels lie together in memory")
    if speed.checkpoint_cells:
        found = cells(model)
        for cell in found:
            report.handles.append(Undo(cell))
            cell.__dict__["forward"] = Recomputed(cell)
        report.whole.append(f"{len(found)} cells are computed again in the backward pass")


def _unsaid(line: str) -> None:
    """Nobody wants to know."""


def compile_whole(
    supernet: RelaxedSupernet, speed: Speed, report: Report, *, note: Callable[[str], object] = _unsaid
) -> RecordedForward | None:
    """Compiles the mixtures of a supernet, or all of it where it has none, and records its passes; from now on.

    Args:
        supernet: that was optimised.
        speed: what to do.
        report: of its optimisation; says what is compiled, and what is not and why.
        note: shows a line now and then while it is compiled.

    Returns:
        The forward that is recorded as CUDA graphs, if it is.

    Raises:
        NasValueError: CUDA graphs without CUDA.
    """
    model = supernet.model
    if speed.compile:
        _compile(model, report, note)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    tell: Callable[[str], None] | None = None
    if speed.cuda_graphs == "auto":
        if (why := _why_not_recorded(device, speed)) is not None:
            report.whole.extend(why)
            return None
        tell = report.whole.append
    elif not speed.cuda_graphs:
        return None
    report.handles.append(Undo(model))
    recorded = record_whole(model, supernet.architecture.mixing, partial(CudaRecorder, device), tell)
    report.whole.append("forward and backward pass are recorded as CUDA graphs")
    return recorded


def _why_not_recorded(device: torch.device, speed: Speed) -> list[str] | None:
    """None where passes are recorded by themselves; else a line, or nothing to say where there is nothing to expect."""
    if not records_on(device):
        return []
    if speed.checkpoint_cells:
        return ["not recorded as CUDA graphs: cells are computed again in the backward pass"]
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        return ["not recorded as CUDA graphs: several devices train together"]
    return None


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Inside, a model runs as if it were neither compiled nor recorded: such code cannot be differentiated twice."""
    forward = vars(model).get("forward")
    with ExitStack() as stack:
        stack.enter_context(pieces_uncompiled())
        if isinstance(forward, RecordedForward):
            stack.enter_context(forward.paused())
        if any(is_compiled(module) for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _compile(model: nn.Module, report: Report, note: Callable[[str], object]) -> None:
    fast = [layer.quick for layer in report.layers if isinstance(layer.quick, FastMixture)]
    if any(mixture.computes for mixture in fast):
        compiler = Compiler(report, note=note)
        for mixture in fast:
            mixture.compiler = compiler
            report.handles.append(_Uncompile(mixture))
        return
    forward = vars(model).get("forward") or MethodType(type(model).forward, model)
    report.handles.append(Undo(model))
    model.__dict__["forward"] = CompiledForward(forward, report)
    report.whole.append("the model is compiled as a whole")


@final
class CompiledForward:
    """The forward of a model without mixtures of layers, which is compiled as a whole while it is trained.

    Args:
        forward: what the model computes.
        report: is told where it cannot be compiled.
    """

    def __init__(self, forward: Callable[..., Any], report: Report) -> None:
        def run(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **kwargs)

        self._forward, self._report = forward, report
        self._compiled: Callable[..., Any] | None = torch.compile(own_code(run), dynamic=False)
        self._calls: Counter[Key] = Counter()
        self._met: set[Key] = set()
        """The sizes that were compiled."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledForward:
        return CompiledForward(copy.deepcopy(self._forward, memo), self._report)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model yields."""
        sizes = tuple(tensor.shape for tensor in tensors_of((args, kwargs)))
        if self._compiled is None or runs_plainly() or not often(self._calls, sizes):
            return self._forward(*args, **kwargs)
        if sizes not in self._met and is_recording():
            return self._forward(*args, **kwargs)
        self._met.add(sizes)
        try:
            with once_for_all():
                return self._compiled(*args, **kwargs)
        except COMPILER_ERRORS as error:
            self._compiled = None
            self._report.kept.append(f"the model is not compiled: {reason_of(error)}")
            return self._forward(*args, **kwargs)


@final
class _Uncompile:
    """Lets a mixture run as it is.

    Args:
        mixture: that is compiled.
    """

    def __init__(self, mixture: FastMixture) -> None:
        self._mixture = mixture

    def remove(self) -> None:
        """Does so."""
        self._mixture.compiler = None


def cells(model: nn.Module) -> list[nn.Module]:
    """The outermost modules in the model's lists and sequences that hold mixtures beneath them."""
    found: list[nn.Module] = []
    for child in model.children():
        if not any(isinstance(module, MixedLayer | MixedInput | MixedDepth) for module in child.modules()):
            continue
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) and not isinstance(child, MixedDepth):
            found += cells(child)
        elif not isinstance(child, MixedLayer | MixedInput | MixedDepth):
            found.append(child)
    return found


def _gains(model: nn.Module) -> bool:
    """Whether channels that lie together were measured to be faster: wherever convolutions of images are."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def _channels_last(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return tree_map(_laid, (args, kwargs))


def _laid(image: Any) -> Any:
    if not isinstance(image, Tensor) or image.dim() != 4:
        return image
    image = image.contiguous(memory_format=torch.channels_last)
    if image.shape[1] > 1:
        return image
    # One channel lies either way; only its strides say which way the next layers are to lie.
    _, _, height, width = image.shape
    return image.as_strided(image.shape, (height * width, 1, width, 1))


@final
class Recomputed:
    """The forward of a cell that keeps its input alone, and computes the rest again when gradients are wanted.

    Args:
        cell: whose forward it is.
    """

    def __init__(self, cell: nn.Module) -> None:
        self._cell = cell
        self._forward = vars(cell).get("forward") or MethodType(type(cell).forward, cell)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the cell yields."""
        return checkpoint(self._forward, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), Again(lambda: _statistics_kept(self._cell))


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms count nothing: the batch was counted when it was computed first."""
    norms = [norm for norm in module.modules() if isinstance(norm, BatchNorm)]
    buffers = [dict(own_buffers(norm)) for norm in norms]
    for norm in norms:
        own_buffers(norm).update({name: None if b is None else b.clone() for name, b in own_buffers(norm).items()})
    try:
        yield
    finally:
        for norm, kept in zip(norms, buffers, strict=True):
            own_buffers(norm).update(kept)


@final
class Undo:
    """Gives a cell the forward again that it has now.

    Args:
        cell: that is to get another.
    """

    def __init__(self, cell: nn.Module) -> None:
        self._cell, self._forward = cell, vars(cell).get("forward")

    def remove(self) -> None:
        """Does so."""
        self._cell.__dict__.pop("forward", None)
        if self._forward is not None:
            self._cell.__dict__["forward"] = self._forward
