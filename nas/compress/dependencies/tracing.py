"""One forward pass, seen operator by operator: what becomes of the units of all weights, and which modules add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas._compat.torch_internals import TorchDispatchMode, tree_leaves
from nas.compress.dependencies.labels import Algebra, Block, Labels
from nas.compress.dependencies.operators import Call, arguments
from nas.compress.dependencies.rules import follow
from nas.compress.dependencies.units import Lines, Units
from nas.example_inputs import Inputs
from nas.random_state import untouched

_MOVING = frozenset({"view", "_unsafe_view", "reshape", "permute", "transpose", "unsqueeze", "squeeze"})
_COPYING = frozenset({"clone", "detach", "alias", "_to_copy", "contiguous"})
_SILENT = _MOVING | _COPYING | {"lift_fresh", "_reshape_alias", "expand", "t", "as_strided", "as_strided_"}
"""Operators that compute nothing, and come or go with how tensors lie in memory."""


@final
@dataclass(frozen=True, slots=True)
class Step:
    """A tensor that an operator has made."""

    name: str
    where: tuple[str, ...]
    """The modules that were running, the outermost first."""
    shape: tuple[int, ...]
    number: int
    """Of operators up to here, those that compute nothing among them."""
    labels: Labels = ()
    start: int = 0
    """Where along a dimension it begins, if it is part of another tensor."""
    ahead: Lines | None = None
    """The units that lie before."""


@final
@dataclass(frozen=True, slots=True)
class Passed:
    """One call of a module."""

    path: str
    given: Tensor | None
    """The first tensor that it was called with."""
    returned: Any
    others: bool
    """Whether it returned other tensors beside the first one."""


@final
@dataclass(slots=True)
class Trace:
    """What a forward pass has shown.

    Attributes:
        algebra: the units, their classes and the views of them.
        slots: the units of each dimension of each parameter and buffer, by its name.
        steps: every tensor that an operator has made, in order.
        residual: the paths of modules that add something to what they are given, and return the sum; with the number
            of things that they return, 0 where it is the sum itself.
        order: the modules in the order of their first calls.
        heads: units along which attention computes each by itself.
        operators: how many have run.
        running: the modules that were running when an error was raised.
    """

    algebra: Algebra
    slots: dict[tuple[str, int], Lines] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    residual: dict[str, int] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    heads: list[Lines] = field(default_factory=list)
    operators: int = 0
    running: tuple[str, ...] = ()


@final
class Follower(TorchDispatchMode):
    """Follows labels through the operators of a forward pass."""

    def __init__(self, model: nn.Module, trace: Trace, *, labelled: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.trace, self.labelled = trace, labelled
        self.stack: list[str] = []
        self._labels: dict[int, Labels] = {}
        self._kept: dict[int, frozenset[int]] = {}
        self._added: dict[int, frozenset[int]] = {}
        self._alive: list[Any] = []
        self._calls = 0
        for name, tensor in named_tensors(model).items():
            blocks = []
            for dim, n in enumerate(tensor.shape) if labelled else ():
                lines = trace.algebra.units.make(n)
                trace.slots[name, dim] = lines
                if n > 1:
                    blocks.append(Block((dim,), lines))
                else:
                    trace.algebra.units.fix(lines, "there is only one of it")
            self._labels[id(tensor)] = tuple(blocks)
            self._alive.append(tensor)

    def labels(self, tensor: Any) -> Labels:
        """What is known of a tensor."""
        return self._labels.get(id(tensor), ())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not outputs:
            return out
        self._alive += [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)] + outputs
        name = str(func).split(".")[1]
        self.trace.operators += 1
        if self.labelled:
            algebra = self.trace.algebra
            algebra.where = self.stack[-1] if self.stack else ""
            call = Call(algebra, name, arguments(func, args, kwargs), outputs, self.labels)
            if name in ("bmm", "baddbmm"):
                self._note_heads(call)
            for output, labels in zip(outputs, follow(func, call), strict=True):
                self._labels[id(output)] = labels
            self._follow_sums(call)
        if name not in _SILENT:
            where = tuple(self.stack)
            told = outputs[:1] if "norm" in name else outputs  # the others are statistics
            start, ahead = self._beginning(name, func, args, kwargs)
            self.trace.steps += [
                Step(name, where, tuple(one.shape), self.trace.operators, self.labels(one), start, ahead)
                for one in told
            ]
        return out

    def _beginning(self, name: str, func: Any, args: Any, kwargs: Any) -> tuple[int, Lines | None]:
        """Where a slice begins, and the units that lie before: a number in a program may stay when channels go."""
        if name not in ("slice", "select"):
            return 0, None
        values = arguments(func, args, kwargs)
        tensor, dim = values["self"], int(values["dim"]) % values["self"].dim()
        length = tensor.shape[dim]
        if name == "select":
            start = int(values["index"]) % length
        else:
            start = slice(values.get("start"), values.get("end"), values.get("step")).indices(length)[0]
        block = next((block for block in self.labels(tensor) if dim in block.dims), None)
        return start, None if block is None else block.line(dim)[:start]

    def _note_heads(self, call: Call) -> None:
        """Units along the batch of a product of two activations are heads."""
        for tensor in call.tensors[-2:]:
            self.trace.heads += [block.line(0)[:, 0] for block in self.labels(tensor) if 0 in block.dims]

    # Which tensors are sums of what.

    def _follow_sums(self, call: Call) -> None:
        name, tensors = call.name.rstrip("_"), call.tensors
        if name == "add" and len(tensors) == 2:
            one, other = (self._kept.get(id(t), frozenset()) for t in tensors)
            kept, added = one ^ other, one ^ other
            added |= self._added.get(id(tensors[0]), frozenset()) | self._added.get(id(tensors[1]), frozenset())
            added &= kept
        elif name in _PASSING or (len(tensors) == 1 and torch.Tag.pointwise in _tags(call.name)):
            kept = self._kept.get(id(call.first), frozenset())
            added = self._added.get(id(call.first), frozenset())
        else:
            kept = added = frozenset()
        for output in call.outputs[:1]:
            self._kept[id(output)], self._added[id(output)] = kept, added

    def entered(self, path: str, tensors: list[Tensor]) -> tuple[int, Tensor] | None:
        """A module is called.

        Returns:
            A number for what it was given, and that.
        """
        self.stack.append(path)
        if path not in self.trace.order:
            self.trace.order.append(path)
        if not tensors:
            return None
        self._alive.append(tensors[0])
        number, self._calls = self._calls, self._calls + 1
        self._kept[id(tensors[0])] = self._kept.get(id(tensors[0]), frozenset()) | {number}
        return number, tensors[0]

    def left(self, path: str, given: tuple[int, Tensor] | None, output: Any) -> None:
        """A module has returned."""
        self.stack.pop()
        first = output[0] if isinstance(output, tuple) and output else output
        fits = given is not None and isinstance(first, Tensor) and first.shape == given[1].shape
        rest = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)][1:]
        if given is not None and fits and not rest and given[0] in self._added.get(id(first), frozenset()):
            self.trace.residual[path] = len(output) if isinstance(output, tuple) else 0
        else:
            self.trace.residual.pop(path, None)


_NORMS = {"native_layer_norm", "_fused_rms_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"}
_PASSING = _MOVING | _COPYING | _NORMS | {"native_dropout"}
"""What a sum may go through and still count as what was added to."""


def _tags(name: str) -> frozenset[Any]:
    packet = getattr(torch.ops.aten, name.rstrip("_"), None)
    return frozenset(tag for o in packet.overloads() for tag in getattr(packet, o).tags) if packet else frozenset()


def named_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    """Parameters and buffers by the first name of each; tied ones once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


@contextmanager
def _watched(model: nn.Module, follower: Follower) -> Iterator[None]:
    """Tells the follower of the calls of all modules."""
    given: list[tuple[int, Tensor] | None] = []
    with ExitStack() as stack:
        for path, module in model.named_modules():

            def before(_: Any, args: Any, kwargs: Any, path: str = path) -> None:
                tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.is_floating_point()]
                given.append(follower.entered(path, tensors))

            def after(_: Any, args: Any, output: Any, path: str = path) -> None:
                follower.left(path, given.pop(), output)

            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield


def run(model: nn.Module, inputs: Inputs, trace: Trace, *, labelled: bool) -> Any:
    """Runs a model once in evaluation mode.

    Args:
        model: a copy; its modes are changed.
        inputs: on its device.
        trace: where what is seen is written, also where the pass fails.
        labelled: whether labels are followed; else only steps are taken down.

    Returns:
        What the model returned.
    """
    follower = Follower(model, trace, labelled=labelled)
    args, kwargs = inputs.arguments_for(model)
    model.eval()
    with untouched(), sdpa_kernel(SDPBackend.MATH), _watched(model, follower), torch.enable_grad(), follower:
        try:
            output = model(*args, **kwargs)
        except Exception:
            trace.running = tuple(follower.stack)
            raise
    if labelled:
        trace.algebra.where = ""
        for tensor in returned(output):
            trace.algebra.fix(follower.labels(tensor), "the model returns it")
    return output


def returned(output: Any) -> Iterator[Tensor]:
    """The tensors that a model returns; what an object of another kind (a cache) holds is its own matter."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from returned(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from returned(value)


def new_trace() -> Trace:
    """An empty trace."""
    return Trace(Algebra(Units()))
