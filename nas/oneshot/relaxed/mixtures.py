"""The modules that a relaxed supernet has where choices were: weighted sums over answers, inputs and depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, Protocol, TypeAlias, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import has_hooks
from nas.domains import Answer, as_key
from nas.errors import NasTypeError, NasValueError, explain
from nas.oneshot.relaxed.architecture import Mixing
from nas.oneshot.relaxed.sums import total, weighted_sum
from nas.space import ChosenInputs, chosen_items

Terms: TypeAlias = tuple[list[Tensor | None], Tensor | None]
"""What a mixture adds up, None for what is not computed, and the weights of it; no weights where all of them are 1."""


class QuickTerms(Protocol):
    """Computes the terms of a mixture of layers, exactly, but by a quicker way (see `nas.oneshot.speed.rewriting`)."""

    def terms(self, x: Tensor) -> Sequence[Terms]:
        """Of the input of the mixture; together they are what it yields."""


@final
class MixedLayer(nn.Module):
    """What a LayerChoice is in a relaxed supernet: all its candidates, their outputs weighted.

    Args:
        mixing: where the weights are read.
        label: of the choice.
        candidates: answer -> its module.
    """

    def __init__(self, mixing: Mixing, label: str, candidates: Mapping[Answer, nn.Module]) -> None:
        super().__init__()
        self.mixing, self.label, self.answers = mixing, label, tuple(candidates)
        self.candidates = nn.ModuleList(candidates.values())
        self.quick: QuickTerms | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """What the candidates take, to the weighted sum of what they yield; None where all of them yield it."""
        if self.quick is not None and not kwargs and len(args) == 1 and isinstance(args[0], Tensor):
            return add_up(self.quick.terms(args[0]))
        active = self.mixing.active[self.label]
        outputs = [candidate(*args, **kwargs) if i in active else None for i, candidate in enumerate(self.candidates)]
        where = f"LayerChoice {self.label!r}"
        if _yields_nothing(where, {self.answers[i]: outputs[i] for i in active}):
            return None
        check_alike(where, "candidate", dict(zip(self.answers, outputs, strict=True)))
        return weighted_sum(outputs, self.mixing.weights[self.label])

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.label!r}: {', '.join(map(repr, self.answers))}"


def asked_of(module: nn.Module) -> nn.Module:
    """The module whose signature says what a module takes: of a mixture, one of its candidates."""
    while isinstance(module, MixedLayer):
        module = module.candidates[0]
    return module


def _yields_nothing(where: str, outputs: Mapping[Answer, object]) -> bool:
    """Whether the candidates that are computed yield None.

    Raises:
        NasTypeError: some of them do, and others something else.
    """
    none = [answer for answer, output in outputs.items() if output is None]
    if none and len(none) < len(outputs):
        raise NasTypeError(
            explain(
                f"a mixture adds tensors, but candidate {as_key(none[0])!r} yields None where others yield something",
                where=where,
                mend="let it return zeros, or search this space by paths",
            )
        )
    return bool(none)


def add_up(terms: Sequence[Terms]) -> Tensor:
    """The sum of all terms, of one shape; what weighs 1 is neither multiplied nor kept for the gradients."""
    plain = [output for outputs, weights in terms if weights is None for output in outputs if output is not None]
    weighted = [(outputs, weights) for outputs, weights in terms if weights is not None]
    if weighted:
        outputs = [output for outputs, _ in weighted for output in outputs]
        shares = [weights for _, weights in weighted]
        plain.append(weighted_sum(outputs, torch.cat(shares) if len(shares) > 1 else shares[0]))
    return total(plain)


@final
class MixedInput(nn.Module):
    """What an InputChoice is in a relaxed supernet: the sum or mean of its inputs, each weighted.

    One or k of n: an input weighs what the answers that take it weigh together, the exact expectation of the sum (of
    the mean: each answer divides by the inputs that are there). Any subset: each input weighs as its gate is open, and
    the mean divides by the sum of these.

    Args:
        mixing: where the weights are read.
        label: of the choice.
        picked: what the choice leaves in a built model, for some answer.
        each: what the inputs go through, if anything.
    """

    def __init__(self, mixing: Mixing, label: str, picked: ChosenInputs, each: Mapping[int, nn.Module] | None) -> None:
        super().__init__()
        self._mixing, self.label = mixing, label
        self.n_candidates, self.reduction = picked.n_candidates, picked.reduction
        self.passes = each is not None
        self.each = nn.ModuleDict({str(i): module for i, module in (each or {}).items()})
        choice = mixing.choices[label]
        self.kind = choice.kind
        # What is taken then weighs 1, which needs no multiplication.
        self.adds = not choice.learned and self.reduction == "sum"
        self.joins = False
        items = [chosen_items(answer) for answer in choice.answers] if choice.kind == "answers" else []
        self._items = items
        counts = [[float(taken.count(i)) for i in range(self.n_candidates)] for taken in items]
        self.register_buffer("counts", torch.tensor(counts), persistent=False)

    def forward(self, inputs: Sequence[Tensor | None]) -> Tensor | None:
        """The inputs, each (batch, ...) of one shape or None, to their weighted sum or mean; None where none is there.

        Raises:
            NasValueError: another number of inputs, or inputs of different shapes.
        """
        if len(inputs) != self.n_candidates:
            raise NasValueError(
                explain(
                    f"this InputChoice was made for {self.n_candidates} inputs, as a list",
                    got=f"{len(inputs)} of them",
                    where=f"InputChoice {self.label!r}",
                )
            )
        taken = self._taken()
        if self.joins and (joined := self._joined(taken, inputs)) is not None:
            return joined
        passed = [self._pass(i, tensor) if i in taken else None for i, tensor in enumerate(inputs)]
        check_alike(f"InputChoice {self.label!r}", "input", dict(enumerate(passed)))
        present = [tensor is not None for tensor in passed]
        if not any(present):
            return None
        if self.adds:
            return reduce(torch.add, [tensor for tensor in passed if tensor is not None])
        return weighted_sum(passed, self._input_weights(present))

    def _joined(self, taken: set[int], inputs: Sequence[Tensor | None]) -> Tensor | None:
        """The sum of the mixtures on the inputs, added up at once; None where not all of them are mixtures."""
        found: list[tuple[QuickTerms, Tensor]] = []
        for i, tensor in enumerate(inputs):
            if i not in taken or tensor is None:
                continue
            layer = self.each[str(i)]
            if not isinstance(layer, MixedLayer) or layer.quick is None or has_hooks(layer):
                return None
            found.append((layer.quick, tensor))
        return add_up([term for quick, tensor in found for term in quick.terms(tensor)]) if found else None

    def takes(self, index: int) -> bool:
        """Whether an input is read now."""
        return index in self._taken()

    def _taken(self) -> set[int]:
        active = self._mixing.active[self.label]
        return {i for position in active for i in self._items[position]} if self.kind == "answers" else set(active)

    def _pass(self, index: int, tensor: Tensor | None) -> Tensor | None:
        if not self.passes or tensor is None:
            return tensor
        passed: Tensor = self.each[str(index)](tensor)
        return passed

    def _input_weights(self, present: Sequence[bool]) -> Tensor:
        """(inputs,), of the weights of the answers or gates."""
        weights = self._mixing.weights[self.label]
        there = weights.new_ones(len(present))  # a list would be copied from the host, which no CUDA graph can do
        for i, here in enumerate(present):
            if not here:
                there[i].zero_()
        if self.kind == "answers":
            counts: Tensor = self.get_buffer("counts") * there
            if self.reduction == "mean":
                counts = counts / counts.sum(1, keepdim=True).clamp(min=1)
            return (weights[:, None] * counts).sum(0)
        weights = (weights[:, 1] if self.kind == "gates" else weights) * there
        return weights / weights.sum().clamp(min=1e-12) if self.reduction == "mean" else weights

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.label!r}: of {self.n_candidates}, {self.reduction}"


@final
class MixedDepth(nn.Sequential):
    """What a Repeat is in a relaxed supernet: all its blocks, and the weighted sum of the outputs after each depth.

    Args:
        mixing: where the weights are read.
        label: of the choice of depth.
        depths: the answers.
        blocks: as many as the greatest depth.
    """

    def __init__(self, mixing: Mixing, label: str, depths: Sequence[int], blocks: Sequence[nn.Module]) -> None:
        super().__init__(*blocks)
        self._mixing, self.label, self.depths = mixing, label, tuple(depths)

    def forward(self, input: Tensor) -> Tensor:
        """The weighted sum of what the input is after each depth, all of one shape."""
        computed = self._computed()
        states = [input]
        for block in list(self)[: max(computed, default=0)]:
            states.append(block(states[-1]))
        outputs = [states[depth] if depth in computed else None for depth in self.depths]
        check_alike(f"Repeat {self.label!r}", "depth", dict(zip(self.depths, outputs, strict=True)))
        return weighted_sum(outputs, self._mixing.weights[self.label])

    def takes(self, index: int) -> bool:
        """Whether a block is computed now."""
        return index < max(self._computed(), default=0)

    def _computed(self) -> list[int]:
        return [self.depths[i] for i in self._mixing.active[self.label]]

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.label!r}: {', '.join(map(str, self.depths))}"


def check_alike(where: str, name: str, outputs: Mapping[Answer, object]) -> None:
    """Only tensors of one shape can be mixed; None stands for what was not computed.

    Raises:
        NasTypeError: something else than a tensor.
        NasValueError: two shapes.
    """
    first: tuple[Answer, torch.Size] | None = None
    for key, output in outputs.items():
        if output is None:
            continue
        if not isinstance(output, Tensor):
            raise NasTypeError(
                explain(
                    f"a mixture adds tensors, but {name} {as_key(key)!r} yields something else",
                    got=type(output).__name__,
                    where=where,
                    mend="let it return one tensor, or search this space by paths",
                )
            )
        if first is None:
            first = key, output.shape
        elif output.shape != first[1]:
            raise NasValueError(
                explain(
                    f"only outputs of one shape can be mixed, but {name} {as_key(first[0])!r} yields "
                    f"{tuple(first[1])} and {name} {as_key(key)!r} {tuple(output.shape)}",
                    where=where,
                    mend="give all of them one shape, or search this space by paths",
                )
            )
