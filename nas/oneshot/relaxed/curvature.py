"""The curvature of the validation loss in the architecture parameters, and the early stop that goes by it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.gradients import differentiates_once
from nas.calls import explained
from nas.checks import check_int, check_number
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed.architecture import Architecture
from nas.oneshot.relaxed.recomputation import recomputing_as_before


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class CurvatureStop:
    """Ends a search when the largest eigenvalue of the Hessian grows too fast (DARTS-ES, arXiv 1909.09656).

    It stops in the first epoch whose eigenvalue is more than `1 / ratio` times the one `patience` epochs before, both
    as means over `window` epochs, and goes back to the architecture of then.

    Example:
        >>> stop = CurvatureStop(patience=2, window=1)
        >>> stop.says([1.0, 1.1, 1.2]), stop.says([1.0, 2.0, 3.0])
        (False, True)
    """

    ratio: float = 0.75
    patience: int = 4
    window: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", check_number("ratio", self.ratio, above=0, below=1, where="CurvatureStop"))
        for name in ("patience", "window"):
            object.__setattr__(self, name, check_int(name, getattr(self, name), least=1, where="CurvatureStop"))

    def says(self, eigenvalues: Sequence[float]) -> bool:
        """Whether to stop after these, one for each epoch."""
        if len(eigenvalues) < self.patience + self.window:
            return False
        now = statistics.fmean(eigenvalues[-self.window :])
        then = statistics.fmean(eigenvalues[-self.window - self.patience : -self.patience])
        return then / max(now, 1e-12) < self.ratio


class OnceDifferentiable(NasValueError):  # noqa: N818 - names what the network is
    """Something in a network can be differentiated once alone, so that its loss has no curvature that is known.

    `reason` is what torch says of it, in one line.
    """

    def __init__(self, reason: str, *, what: str) -> None:
        self.reason = reason
        super().__init__(
            explain(
                f"{what}, and torch cannot differentiate an operation of the network twice",
                got=reason,
                mend="take another operation (nn.Sigmoid for nn.Hardsigmoid, a cell written in Python for nn.LSTM on a "
                "CUDA device, attention under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)), or do without",
            )
        )


@contextmanager
def differentiating_twice(what: str, ends: Iterable[Tensor] = ()) -> Iterator[None]:
    """Around what takes gradients of gradients.

    Args:
        what: needs them, for the message.
        ends: the tensors whose gradients are taken, to be looked through for what torch passes over without a word: a
            function that is marked as once differentiable counts as a constant there.

    Raises:
        OnceDifferentiable: an operation has no second derivative: torch has none, or the user's own says so.
    """
    if differentiates_once(ends):
        raise OnceDifferentiable("a function that is marked with @once_differentiable", what=what)
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # of the device, not of the operations
    except RuntimeError as error:
        raise OnceDifferentiable(str(error).partition("\n")[0], what=what) from error


def largest_eigenvalue(
    loss: Callable[[Any], Tensor],
    network: nn.Module,
    architecture: Architecture,
    batch: Any,
    *,
    iterations: int = 20,
    tolerance: float = 1e-3,
) -> float:
    """The largest eigenvalue (by magnitude) of the Hessian of a batch's loss, by power iteration.

    Args:
        loss: of a batch.
        network: is put into eval mode meanwhile.
        architecture: in whose parameters.
        batch: of validation data.
        iterations: at most.
        tolerance: relative change at which it ends.

    Raises:
        NasValueError: torch cannot differentiate an operation of the network twice.
    """
    iterations = check_int("iterations", iterations, least=1, where="largest_eigenvalue")
    tolerance = check_number("tolerance", tolerance, least=0, where="largest_eigenvalue")
    parameters = list(architecture.parameters())
    was_training = [(module, module.training) for module in network.modules()]
    network.eval()  # the statistics of training would be moved
    try:
        with torch.enable_grad(), recomputing_as_before(network, architecture.mixing):
            architecture.mix()
            gradients = torch.autograd.grad(loss(batch), parameters, create_graph=True, allow_unused=True)
            return _power_iteration(parameters, gradients, iterations, tolerance)
    finally:
        for module, training in was_training:
            module.training = training


def _power_iteration(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], iterations: int, tolerance: float
) -> float:
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None and g.requires_grad]
    if not used:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(p.shape, generator=generator).to(p) for p, _ in used]
    value = 0.0
    ends = [g for _, g in used]
    for number in range(iterations):
        norm = torch.sqrt(sum(((v * v).sum() for v in vectors), start=vectors[0].new_zeros(())))
        vectors = [v / norm.clamp(min=1e-12) for v in vectors]
        with differentiating_twice("the curvature is a second derivative of the loss", [] if number else ends):
            product = torch.autograd.grad(
                ends, [p for p, _ in used], grad_outputs=vectors, retain_graph=True, allow_unused=True
            )
        following = [torch.zeros_like(v) if h is None else h for v, h in zip(vectors, product, strict=True)]
        before, value = value, float(sum((v * h).sum() for v, h in zip(vectors, following, strict=True)))
        vectors = following
        if abs(value - before) <= tolerance * abs(value):
            break
    return value
