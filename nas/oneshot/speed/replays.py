"""A recorded forward and backward pass, done again on other inputs: in torch's graph of gradients, or past it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas._compat.gradients import edge_of, sole_end
from nas._compat.torch_internals import TreeSpec, copy_each, tree_unflatten
from nas.errors import NasValueError, explain
from nas.oneshot.speed.recorders import Gradients


@final
@dataclass(eq=False, repr=False)
class Ticket:
    """Of a forward pass; it is gone when nobody holds what it yielded."""

    recorded: Pass
    done: bool = False
    """Whether its backward pass is over."""


@final
class Latest:
    """The ticket of what was replayed last, if somebody still holds what it yielded."""

    def __init__(self) -> None:
        self._ticket: Callable[[], Ticket | None] = _nobody

    def __call__(self) -> Ticket | None:
        """It, if there is one."""
        return self._ticket()

    def give(self, recorded: Pass) -> Ticket:
        """A new one."""
        ticket = Ticket(recorded)
        self._ticket = weakref.ref(ticket)
        return ticket

    @property
    def waits(self) -> bool:
        """Whether its backward pass may be to come."""
        ticket = self()
        return ticket is not None and not ticket.done

    def differentiate(self, loss: Tensor) -> bool:
        """Does what `loss.backward()` does, if the loss depends on what was replayed last and on nothing else.

        The parameters are then given the gradients at once. torch goes from one to the next, and takes as long for
        thousands of them as all the rest of a replayed step does.

        Args:
            loss: of one number.

        Returns:
            Whether it did; else nothing was done.
        """
        ticket = self()
        if ticket is None or ticket.done or ticket.recorded.labels or not ticket.recorded.gradients.are_none():
            return False
        recorded, node = ticket.recorded, sole_end(loss, lambda node: getattr(node, "ticket", None) is ticket)
        if node is None:
            return False
        edges = [edge_of(node, place) for place in recorded.differentiable]
        recorded.differentiate(torch.autograd.grad(loss, edges, allow_unused=True))
        ticket.done = True
        recorded.gradients.hand_out()
        return True


def _nobody() -> None:
    """Nothing was replayed."""


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Pass:
    """What was recorded: where it reads, where it writes, and what to run."""

    inputs: list[Any]
    weights: dict[str, Tensor]
    """Of the mixtures."""
    labels: list[str]
    """Those whose weights want a gradient."""
    parameters: list[nn.Parameter]
    """Those that want one."""
    outputs: list[Any]
    differentiable: list[int]
    """Which of the tensors among the outputs have gradients."""
    spec: TreeSpec
    given: list[Tensor]
    """The gradients of the differentiable outputs."""
    gradients: Gradients
    """Of the weights of mixtures that want one, and of the parameters."""
    forward: Callable[[], None]
    backward: Callable[[], None]

    def run(self, leaves: Sequence[Any], weights: Mapping[str, Tensor], latest: Latest) -> Any:
        """Another pass, on other inputs, and other weights of the mixtures."""
        with torch.no_grad():
            for place, leaf in zip(self.inputs, leaves, strict=True):
                if isinstance(place, Tensor):
                    place.copy_(leaf, non_blocking=True)
            copy_each(list(self.weights.values()), [weights[label] for label in self.weights])
        wanted = [weights[label] for label in self.labels]
        tensors = iter(_Replay.apply(self, latest, *wanted, *self.parameters))
        return tree_unflatten([next(tensors) if isinstance(o, Tensor) else o for o in self.outputs], self.spec)

    def differentiate(self, given: Sequence[Tensor | None]) -> None:
        """The backward pass, on other gradients of the differentiable outputs; None for those that nobody used."""
        found = [(place, gradient) for place, gradient in zip(self.given, given, strict=True) if gradient is not None]
        for place, gradient in zip(self.given, given, strict=True):
            if gradient is None:
                place.zero_()
        if found:
            copy_each([place for place, _ in found], [gradient for _, gradient in found])
        self.gradients.leave()
        self.backward()


class _Replay(torch.autograd.Function):
    """The replayed passes as one node of the graph of gradients."""

    @staticmethod
    def forward(ctx: Any, recorded: Pass, latest: Latest, *wanted: Tensor) -> tuple[Tensor, ...]:
        recorded.forward()
        ctx.latest, ctx.ticket = latest, latest.give(recorded)
        # The next pass writes where this one has written.
        found = [output.clone() for output in recorded.outputs if isinstance(output, Tensor)]
        differentiable = set(recorded.differentiable)
        ctx.mark_non_differentiable(*(output for i, output in enumerate(found) if i not in differentiable))
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ticket = ctx.ticket
        if ctx.latest() is not ticket:
            raise NasValueError(
                explain(
                    "what a pass needs for its gradients is gone once another has been replayed",
                    where="Speed(cuda_graphs=True)",
                    mend="one backward pass after each forward pass, or cuda_graphs=False",
                )
            )
        recorded = ticket.recorded
        recorded.differentiate([gradients[place] for place in recorded.differentiable])
        ticket.done = True
        return None, None, *recorded.gradients.handed_out()
