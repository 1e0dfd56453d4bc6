"""The weighted sum of candidates' outputs: what every mixture of a relaxed supernet computes, as one operator."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache, reduce
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nas.errors import NasTypeError, NasValueError, explain


def weighted_sum(outputs: Sequence[Tensor | None], weights: Tensor) -> Tensor:
    """The sum of what was computed, each times its weight: one pass over the outputs, and one for all gradients.

    It accumulates in float32 at least, skips what weighs 0, differentiates any number of times, and is the operator
    `torch.ops.nas.weighted_sum`, which `torch.compile` keeps whole.

    Args:
        outputs: of the candidates, each (batch, ...) of one shape; None for those that were not computed.
        weights: (candidates,).

    Returns:
        A tensor of that shape; its gradient reaches the computed outputs and their weights.

    Raises:
        NasValueError: nothing was computed, outputs of different shapes, another number of weights, or weights on
            another device.
        NasTypeError: the weights are no tensor.

    Example:
        >>> import torch
        >>> weighted_sum([torch.ones(2), None, torch.ones(2)], torch.tensor([0.5, 0.0, 2.0]))
        tensor([2.5000, 2.5000])
    """
    if not isinstance(weights, Tensor):
        raise NasTypeError(explain("the weights must be a tensor", got=weights, mend="torch.tensor([...])"))
    if weights.shape != (len(outputs),):
        raise NasValueError(explain(f"{len(outputs)} outputs need as many weights", got=tuple(weights.shape)))
    computed = [output for output in outputs if output is not None]
    if not computed:
        raise NasValueError(explain("a mixture needs a candidate that is computed", got=weights.tolist()))
    # The kernels would read beyond the smaller ones.
    shapes = [tuple(output.shape) for output in computed]
    if shapes.count(shapes[0]) < len(shapes):
        raise NasValueError(explain("the outputs must have one shape", got=shapes))
    check_device(weights, computed[0])
    if len(computed) < len(outputs):
        weights = _picked(weights, [output is not None for output in outputs])
    total: Tensor = torch.ops.nas.weighted_sum(computed, weights)
    return total


def check_device(weights: Tensor, output: Tensor) -> None:
    """The weights must be where an output is.

    Raises:
        NasValueError: they are not.
    """
    if weights.device != output.device:
        raise NasValueError(
            explain(
                f"the weights must be where the outputs are, on {output.device}",
                got=weights.device,
                mend="weights.to(outputs[0].device)",
            )
        )


def _picked(weights: Tensor, taken: Sequence[bool]) -> Tensor:
    """Some of the weights, as few slices of them: each costs a launch, and another backward."""
    edges = [i for i in range(len(taken) + 1) if (i < len(taken) and taken[i]) != (i > 0 and taken[i - 1])]
    runs = [weights[start:stop] for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return runs[0] if len(runs) == 1 else torch.cat(runs)


@torch.library.custom_op("nas::weighted_sum", mutates_args=())
def _sum(outputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    kind = common_dtype(outputs)
    if kernels := kernels_for(outputs[0]):
        with torch.cuda.device_of(outputs[0]):
            found: Tensor = kernels.forward(outputs, weights, kind)
        return found
    wide = accumulated_in(kind)
    terms = [(output, weight) for output, weight in zip(outputs, weights.tolist(), strict=True) if weight]
    if not terms:
        return torch.zeros_like(outputs[0], dtype=kind)
    total = torch.mul(terms[0][0].to(wide), terms[0][1])
    for output, weight in terms[1:]:
        total.add_(output, alpha=weight)
    return total.to(kind)


@torch.library.custom_op("nas::weighted_sum_backward", mutates_args=())
def _gradients(gradient: Tensor, outputs: Sequence[Tensor], weights: Tensor, needed: Sequence[bool]) -> list[Tensor]:
    """Of each output, and at last (candidates,) of the weights; those that are not `needed` are empty."""
    if kernels := kernels_for(outputs[0]):
        with torch.cuda.device_of(outputs[0]):
            found: list[Tensor] = kernels.backward(gradient, outputs, weights, needed)
        return found
    made = []
    for output, weight, need in zip(outputs, weights.tolist(), needed[:-1], strict=True):
        if not need:
            made.append(output.new_empty(0))
        elif weight:
            made.append(torch.mul(gradient, weight).to(output.dtype))
        else:
            made.append(torch.zeros_like(gradient, dtype=output.dtype))
    if not needed[-1]:
        return [*made, weights.new_empty(0)]
    return [*made, torch.stack([dot(gradient, output) for output in outputs]).to(weights.dtype)]


@_sum.register_fake
def _sum_shape(outputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    return torch.empty_like(outputs[0], dtype=common_dtype(outputs))


@_gradients.register_fake
def _gradients_shape(
    gradient: Tensor, outputs: Sequence[Tensor], weights: Tensor, needed: Sequence[bool]
) -> list[Tensor]:
    made = [
        torch.empty_like(gradient, dtype=output.dtype) if need else output.new_empty(0)
        for output, need in zip(outputs, needed[:-1], strict=True)
    ]
    return [*made, torch.empty_like(weights) if needed[-1] else weights.new_empty(0)]


# Each of the two is differentiated by the other, so that gradients of any order are there.


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    outputs, weights = inputs
    ctx.save_for_backward(*outputs, weights)


def _backward_of_sum(ctx: Any, gradient: Tensor) -> tuple[list[Tensor | None], Tensor | None]:
    *outputs, weights = ctx.saved_tensors
    gradient = laid_as(gradient, outputs[0].stride())
    *made, of_weights = _differentiate(gradient, outputs, weights, [*ctx.needs_input_grad[0], ctx.needs_input_grad[1]])
    return made, of_weights


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    gradient, outputs, weights, needed = inputs
    ctx.save_for_backward(gradient, *outputs, weights)
    ctx.needed = needed


def _backward_of_gradients(ctx: Any, made: list[Tensor | None]) -> tuple[Tensor | None, Any, Tensor | None, None]:
    gradient, *outputs, weights = ctx.saved_tensors
    of_outputs = [grad if need else None for grad, need in zip(made[:-1], ctx.needed[:-1], strict=True)]
    of_weights = made[-1] if ctx.needed[-1] else None
    zeros = torch.zeros_like(weights) if of_weights is None else of_weights
    terms: list[Tensor | None] = [*of_outputs, *(outputs if of_weights is not None else [None] * len(outputs))]
    to_gradient = None
    if ctx.needs_input_grad[0] and any(term is not None for term in terms):
        to_gradient = weighted_sum(terms, torch.cat([weights, zeros])).to(gradient.dtype)
    places = [i for i, grad in enumerate(of_outputs) if grad is not None]
    to_outputs: list[Tensor | None] = [None] * len(outputs)
    if of_weights is not None:
        to_outputs = [gradient * v if need else None for v, need in zip(zeros, ctx.needs_input_grad[1], strict=True)]
    to_weights = None
    if ctx.needs_input_grad[2] and places:
        *_, part = _differentiate(gradient, [made[i] for i in places], zeros[places], [*[False] * len(places), True])
        to_weights = torch.zeros_like(weights).index_add(0, torch.tensor(places, device=weights.device), part)
    return to_gradient, to_outputs, to_weights, None


def _differentiate(gradient: Tensor, outputs: Sequence[Any], weights: Tensor, needed: list[bool]) -> list[Any]:
    made = torch.ops.nas.weighted_sum_backward(gradient, outputs, weights, needed)
    return [found if need else None for found, need in zip(made, needed, strict=True)]


_sum.register_autograd(_backward_of_sum, setup_context=_save_sum)
_gradients.register_autograd(_backward_of_gradients, setup_context=_save_gradients)


def common_dtype(outputs: Sequence[Tensor]) -> torch.dtype:
    """As of a sum of the outputs."""
    return reduce(torch.promote_types, [output.dtype for output in outputs])


def accumulated_in(kind: torch.dtype) -> torch.dtype:
    """In what is accumulated."""
    return torch.float32 if kind in (torch.float16, torch.bfloat16) else kind


def laid_as(tensor: Tensor, strides: Sequence[int]) -> Tensor:
    """In the memory format of another, so that neither the other nor what is made of both has to be moved.

    Args:
        tensor: to be laid so.
        strides: of the other.

    Example:
        >>> images = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        >>> laid_as(torch.ones(2, 3, 4, 4), images.stride()).stride() == images.stride()
        True
    """
    last = tensor.dim() == 4 and strides[1] == 1
    if tensor.dim() != 4 or (tensor.stride(1) == 1) == last:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the products, without a tensor for them where both lie alike in memory."""
    wide = accumulated_in(torch.promote_types(a.dtype, b.dtype))
    a, b = a.to(wide), b.to(wide)
    if a.stride() == b.stride() and a.numel():
        place = sorted(range(a.dim()), key=a.stride, reverse=True)
        a, b = a.permute(place), b.permute(place)
        if a.is_contiguous():
            return torch.dot(a.view(-1), b.view(-1))
    return (a * b).sum()


def kernels_for(tensor: Tensor, name: str = "nas.oneshot.relaxed.sums.kernels") -> ModuleType | None:
    """The kernels for a device, imported where there is one, or an interpreter that stands for it.

    Args:
        tensor: on the device.
        name: of the module that has them.
    """
    wanted = tensor.is_cuda or (os.environ.get("TRITON_INTERPRET") == "1" and tensor.device.type == "cpu")
    return _triton_kernels(name) if wanted else None


@cache
def _triton_kernels(name: str) -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    import triton

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 6):  # tuples of constants cannot be taken apart
        return None
    return importlib.import_module(name)
