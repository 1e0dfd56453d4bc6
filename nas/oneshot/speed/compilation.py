"""Compiling a supernet piece by piece: what is alike in many mixtures is compiled once, and serves all of them."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, TypeAlias, TypeVar, final

import torch
from torch import Tensor, nn

from nas._compat.compiler import COMPILER_ERRORS, is_transformed, once_for_all
from nas._compat.torch_internals import (
    has_hooks,
    is_compiled,
    own_buffers,
    own_parameters,
    plain_attributes,
    version_of,
)
from nas.oneshot.relaxed import MixedDepth, MixedInput, MixedLayer, check_alike
from nas.oneshot.speed.folding import Folded, FoldedLinear
from nas.oneshot.speed.shared_work import run_step
from nas.oneshot.speed.speed import Report

Steps: TypeAlias = tuple[nn.Module, ...]
Fold: TypeAlias = tuple[Folded | FoldedLinear, tuple[int, ...]]
"""What is folded, and the positions of the candidates of it that are computed."""
Key: TypeAlias = tuple[Hashable, ...]
T = TypeVar("T")

_MOST = 8
"""Variants of one structure that are compiled: phases, batch sizes, precisions."""
_SELDOM = 0.1
"""The share of a structure's calls that a batch size must have to be compiled: the last one of an epoch has less."""
_PACE = 5.0
"""Seconds between two lines of progress."""
_PAUSED: ContextVar[bool] = ContextVar("nas_compilation_paused", default=False)


@contextmanager
def pieces_uncompiled() -> Iterator[None]:
    """Inside, pieces run as they are: what is compiled cannot be differentiated twice."""
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


def runs_plainly() -> bool:
    """Whether nothing is compiled now: without gradients, or where compiled code cannot run."""
    return not torch.is_grad_enabled() or _PAUSED.get() or is_transformed() or torch.compiler.is_compiling()


def run_piece(
    chains: tuple[Steps, ...],
    places: tuple[int, ...],
    folds: tuple[Fold, ...],
    inputs: list[Tensor],
    weights: Tensor | None,
) -> Tensor:
    """The weighted sum of what some chains and folds yield; what differs from copy to copy are tensors and modules.

    Args:
        chains: steps, one after the other; none where the input itself is the output.
        places: for each chain, which of the weights is that of its output.
        folds: weighted by themselves.
        inputs: (batch, ...), of each chain, and then of each fold.
        weights: (candidates,); None for the output of the only chain, unweighted.
    """
    outputs = []
    for x, chain in zip(inputs, chains, strict=False):
        for step in chain:
            x = run_step(step, x)
        outputs.append(x)
    if weights is None:
        return outputs[0]
    folded = [fold.run(x, weights, live) for x, (fold, live) in zip(inputs[len(chains) :], folds, strict=True)]
    terms = [*outputs, *folded]
    check_alike("a mixture", "candidate", dict(enumerate(terms)))
    shares = weights.unbind()
    given = [shares[place] for place in places] + [None] * len(folded)
    # Written out, so that the compiler joins it with the last steps of the candidates.
    kind = terms[0].dtype
    for term in terms:
        kind = torch.promote_types(kind, term.dtype)
    wide = torch.float32 if kind in (torch.float16, torch.bfloat16) else kind
    total: Tensor | None = None
    for term, share in zip(terms, given, strict=True):
        weighted = term.to(wide) if share is None else term.to(wide) * share.to(wide)
        total = weighted if total is None else total + weighted
    assert total is not None
    return total.to(kind)


def own_code(function: Callable[..., T]) -> Callable[..., T]:
    """The same function with code of its own: torch counts compilations by code, a few for each."""
    assert isinstance(function, FunctionType)
    own = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return own


def often(calls: Counter[Key], sizes: Key) -> bool:
    """Counts a call, and says whether those of its sizes are worth compiling."""
    calls[sizes] += 1
    return calls[sizes] >= _SELDOM * calls.total()


@final
@dataclass(kw_only=True, eq=False)
class Structure:
    """What pieces have in common that compute the same with other tensors, and what was compiled for them."""

    compiled: dict[Key, Callable[..., Tensor]] = field(default_factory=dict)
    """By variant."""
    failed: bool = False
    """Whether one of them could not be compiled."""
    calls: Counter[Key] = field(default_factory=Counter)
    """By the shapes of the inputs."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Structure:
        return self


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A part of a mixture that is compiled as a whole: of one copy of a structure.

    Attributes:
        structure: that it has; None where it is not compiled.
        chains: see `run_piece`.
        places: see `run_piece`.
        folds: see `run_piece`.
        tensors: the parameters of its modules, where they stand.
        name: for reports.
    """

    structure: Structure | None
    chains: tuple[Steps, ...]
    places: tuple[int, ...]
    folds: tuple[Fold, ...]
    tensors: tuple[dict[str, nn.Parameter | None], ...]
    name: str

    @property
    def compilable(self) -> bool:
        """Whether it may be compiled."""
        return self.structure is not None and not self.structure.failed


@final
class Compiler:
    """Compiles what the mixtures of one supernet compute while it is trained.

    Args:
        report: says what was compiled, and what was not and why.
        note: shows a line.
        clock: seconds that go by.
    """

    def __init__(
        self,
        report: Report,
        *,
        note: Callable[[str], object] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report, self._note, self._clock = report, note, clock
        self._structures: dict[Key, Structure] = {}
        self._pieces = self._made = self._variants = 0
        self._seconds = 0.0
        self._last = clock()
        self._line: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiler:
        return self

    def piece(
        self, name: str, chains: Sequence[Steps], places: Sequence[int] = (), folds: Sequence[Fold] = ()
    ) -> Piece:
        """A piece of a mixture, with the structure that it shares with others."""
        modules = [module for steps in _all_steps(chains, folds) for step in steps for module in step.modules()]
        key: Key = (
            tuple(tuple(_look(step) for step in steps) for steps in _all_steps(chains, folds)),
            tuple(places),
            tuple((type(fold), tuple(fold.maps), live) for fold, live in folds),
        )
        structure = None
        if modules and not any(map(_by_itself, modules)) and (folds or places or _several(chains[0])):
            structure = self._structures.setdefault(key, Structure())
            self._pieces += 1
            self._say()
        tensors = tuple(own_parameters(module) for module in modules)
        return Piece(
            structure=structure,
            chains=tuple(chains),
            places=tuple(places),
            folds=tuple(folds),
            tensors=tuple(tensors),
            name=name,
        )

    def run(self, piece: Piece, inputs: list[Tensor], weights: Tensor | None = None) -> Tensor | None:
        """What a piece yields, compiled; None where it is to run as it is.

        Args:
            piece: of this compiler.
            inputs: see `run_piece`.
            weights: see `run_piece`.
        """
        structure = piece.structure
        if structure is None or structure.failed or runs_plainly():
            return None
        comes_often = often(structure.calls, tuple(x.shape for x in inputs))
        variant = _variant(piece, inputs, weights)
        if variant not in structure.compiled:
            full = len(structure.compiled) == _MOST
            if full or not comes_often or is_recording() or not self._compile(piece, variant, inputs, weights):
                return None
        try:
            return structure.compiled[variant](piece.chains, piece.places, piece.folds, inputs, weights)
        except COMPILER_ERRORS as error:  # something else changes from call to call, and was compiled too often
            self._give_up(piece, error)
            return None

    def _compile(self, piece: Piece, variant: Key, inputs: list[Tensor], weights: Tensor | None) -> bool:
        """Compiles a variant; whether it can be compiled."""
        structure = piece.structure
        assert structure is not None
        begin = self._clock()
        self._made += 1
        if begin - self._last >= _PACE:
            self._last = begin
            self._note(f"supernet: compiling {self._made} of {self._expected} ({self._seconds:.0f} s)")
        try:
            with once_for_all():
                structure.compiled[variant] = _compiled(piece, inputs, weights)
        except Exception as error:  # the compiler's own, or what an unusual module does in it
            self._give_up(piece, error)
        self._seconds += self._clock() - begin
        self._say()
        return not structure.failed

    @property
    def _expected(self) -> int:
        """How many compilations there will be, as far as it is known: each structure in two phases."""
        return max(self._made, 2 * len(self._structures))

    def _give_up(self, piece: Piece, error: Exception) -> None:
        assert piece.structure is not None
        piece.structure.failed = True
        self._report.kept.append(f"{piece.name} is not compiled: {reason_of(error)}")

    def _say(self) -> None:
        """Puts what was compiled into the report."""
        line = (
            f"{self._pieces} pieces of {len(self._structures)} structures are compiled; "
            f"{self._made} compilations took {self._seconds:.0f} s"
        )
        lines = self._report.whole
        if self._line in lines:
            lines[lines.index(self._line)] = line
        else:
            lines.append(line)
        self._line = line


def _compiled(piece: Piece, inputs: list[Tensor], weights: Tensor | None) -> Callable[..., Tensor]:
    """A function for all pieces of one structure in one variant, both passes of which have run on copies."""
    # With the random numbers of what is not compiled.
    compiled: Callable[..., Tensor] = torch.compile(
        own_code(run_piece), dynamic=False, fullgraph=True, options={"fallback_random": True}
    )
    copies: dict[int, Any] = {}
    for module in (m for steps in _all_steps(piece.chains, piece.folds) for s in steps for m in s.modules()):
        for place in (own_parameters(module), own_buffers(module)):
            copies.update({id(tensor): _copied(tensor) for tensor in place.values() if tensor is not None})
    chains, folds = copy.deepcopy((piece.chains, piece.folds), copies)
    given = {id(x): _copied(x) for x in inputs}  # one tensor may be the input of several
    own_inputs = [given[id(x)] for x in inputs]
    own_weights = None if weights is None else _copied(weights)
    devices = {x.device for x in inputs if x.is_cuda}
    kept = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with torch.random.fork_rng(devices), kept:
        output = compiled(chains, piece.places, folds, own_inputs, own_weights)
        wanted = [own_weights, *given.values(), *copies.values()]
        leaves = [tensor for tensor in wanted if isinstance(tensor, Tensor) and tensor.requires_grad]
        if output.requires_grad:
            torch.autograd.grad(output, leaves, torch.ones_like(output), allow_unused=True)
    if any(version_of(x) for x in own_inputs):
        raise RuntimeError("it writes into its input")
    return compiled


def _copied(tensor: Tensor) -> Tensor:
    """One without a history, written in the same order."""
    twin = torch.empty_like(tensor, memory_format=torch.preserve_format)
    if twin.stride() != tensor.stride():
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    twin = twin.detach()
    twin.data.copy_(tensor.detach())
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, tensor.requires_grad)
    return twin.requires_grad_(tensor.requires_grad)


def _all_steps(chains: Sequence[Steps], folds: Sequence[Fold]) -> list[Steps]:
    """The modules of a piece, in an order that equal pieces share."""
    inside: list[Steps] = []
    for fold, live in folds:
        for position in live:
            part = fold.maps[position]
            inside.append((part,) if isinstance(part, nn.Module) else () if part is None else part.steps)
    return [*chains, *inside]


def _several(steps: Steps) -> bool:
    """Whether there is something to join."""
    return len(steps) > 1 or any(True for step in steps for _ in step.children())


def _by_itself(module: nn.Module) -> bool:
    """Whether a module is not compiled with others: it is a mixture, was changed, or somebody listens to it."""
    mixture = isinstance(module, MixedLayer | MixedInput | MixedDepth)
    return mixture or has_hooks(module) or is_compiled(module) or "forward" in vars(module)


def _look(module: nn.Module) -> Hashable:
    """What equal modules have in common; the compiler itself looks at everything that it reads."""
    settings = sorted((name, _value(value)) for name, value in plain_attributes(module).items())
    shapes = [
        (name, None if tensor is None else (tensor.shape, tensor.dtype))
        for place in (own_parameters(module), own_buffers(module))
        for name, tensor in place.items()
    ]
    return type(module), tuple(settings), tuple(shapes), tuple((n, _look(m)) for n, m in module.named_children())


def _value(value: object) -> str:
    """What tells a setting from others."""
    simple = isinstance(value, int | float | str | tuple | torch.dtype) or value is None
    return repr(value) if simple else f"{type(value).__name__} {id(value)}"


def _variant(piece: Piece, inputs: list[Tensor], weights: Tensor | None) -> Key:
    """What of a call the compiled code depends on, beside the structure."""
    device = inputs[0].device.type
    first = {id(x): i for i, x in reversed(list(enumerate(inputs)))}
    return (
        tuple((x.shape, x.stride(), x.dtype, x.device, x.requires_grad, first[id(x)]) for x in inputs),
        None if weights is None else (weights.shape, weights.dtype, weights.requires_grad),
        tuple(tensor is not None and tensor.requires_grad for place in piece.tensors for tensor in place.values()),
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
    )


def reason_of(error: Exception) -> str:
    """An error of the compiler in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {said}"


def is_recording() -> bool:
    """Whether CUDA graphs are being recorded, in which nothing can be compiled."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
