"""What each module does in a forward pass: counted call by call, on whatever ground the pass runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from nas._compat.torch_internals import (
    TorchDispatchMode,
    can_decompose,
    children_of,
    own_parameters,
    tree_map,
)
from nas.example_inputs import Arguments, in_order, tensors_of
from nas.profile.passes import ForwardPass
from nas.profile.recurrent import Recurrences

Shape: TypeAlias = tuple[int, ...]


class TensorSpec(NamedTuple):
    """A tensor without its numbers."""

    shape: Shape
    dtype: torch.dtype


class ModuleCall(NamedTuple):
    """What one call of a module was given: tensors as `TensorSpec`."""

    args: tuple[Any, ...]
    """By position; also what came by keyword and could have come so, in the order of the signature."""
    kwargs: Mapping[str, Any]
    """By keyword only."""
    given: Arguments | None
    """The tensors themselves, where they have numbers that may matter and somebody wants to call the module again."""


@final
@dataclass(slots=True)
class ModuleRun:
    """What one module did in a forward pass; what its children did is counted at them."""

    path: str
    """As in `named_modules`."""
    module: nn.Module
    """Of a copy, on the meta device wherever the pass can run there: it then has shapes and dtypes, and no numbers."""
    parameters: int = 0
    """Elements of its own; a shared one is counted at the first module that has it."""
    flops: int = 0
    """Twice the multiply-adds of the operations that it calls itself."""
    activations: int = 0
    """Elements of its outputs, when it called no other module."""
    inputs: list[tuple[Any, ...]] = field(default_factory=list)
    """What each call was given, in the order of the signature, whether by position or by keyword: tensors as
    `TensorSpec`."""
    outputs: list[tuple[Shape, ...]] = field(default_factory=list)
    """The shapes of the tensors that each call yielded."""
    leaf: bool = True
    """Whether it called no other module."""
    calls: list[ModuleCall] = field(default_factory=list, repr=False)
    """What each call was given, such that it can be made again."""


@final
@dataclass(frozen=True, slots=True)
class _Known:
    """What a leaf module does with inputs of certain shapes."""

    flops: int
    shape: Shape
    dtype: torch.dtype
    in_place: bool


Known: TypeAlias = dict[Hashable, _Known]


def count_pass(
    run: ForwardPass,
    known: Known | None = None,
    *,
    meanwhile: AbstractContextManager[object] | None = None,
    keep: bool = False,
) -> list[ModuleRun]:
    """Runs a pass and says what each module of the model did.

    Args:
        run: its modules are watched meanwhile.
        known: what leaf modules of torch were seen to do; where the pass has no numbers they are not run again, and new
            ones are noted here.
        meanwhile: entered around the pass.
        keep: whether calls with numbers hold on to what they were given.

    Returns:
        One entry for each module, in the order of `named_modules`.
    """
    runs = {path: ModuleRun(path, module) for path, module in run.model.named_modules()}
    own = {path: vars(found.module).get("forward") for path, found in runs.items()}
    meter = _Meter()
    watcher = _Watcher(meter, None if run.ground == "real" else known, keep=keep and run.ground == "real")
    with torch.no_grad():
        for path, found in runs.items():
            if not isinstance(found.module, torch.jit.ScriptModule):
                vars(found.module)["forward"] = watcher.watched(found, own[path])  # the copy is ours
        try:
            with meanwhile or nullcontext(), Recurrences(meter.counting, real=run.ground == "real"), meter:
                run()
        finally:
            for path, forward in own.items():
                vars(runs[path].module).pop("forward", None)
                if forward is not None:
                    vars(runs[path].module)["forward"] = forward
    runs[""].flops += meter.stack[0].flops  # of a TorchScript model, which lets nobody watch
    for name, parameter in run.model.named_parameters():  # after the pass, which sizes lazy ones
        if not isinstance(parameter, UninitializedParameter):
            runs[name.rpartition(".")[0]].parameters += parameter.numel()
    return list(runs.values())


@final
class _Meter(TorchDispatchMode):
    """Adds the operations of each call, as `torch.utils.flop_counter` counts them, to the module that runs."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._registry: Mapping[Any, Callable[..., int]] = flop_registry
        self.stack = [ModuleRun("", nn.Module())]  # around the model

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten" and func.overloadpacket not in self._registry and can_decompose(func):
            with self:
                found = func.decompose(*args, **kwargs)
                if found is not NotImplemented:
                    return found
        out = func(*args, **kwargs)
        count = self._registry.get(func.overloadpacket)
        if count is not None:
            self.stack[-1].flops += count(*args, **kwargs, out_val=out)
        return out

    def counting(self, function: Callable[[], Any], flops: int) -> Any:
        """What a function returns; these flops count instead of its own."""
        self.stack.append(ModuleRun("", nn.Module()))
        try:
            return function()
        finally:
            self.stack.pop()
            self.stack[-1].flops += flops


@final
class _Watcher:
    """Makes forwards that note what goes in and out."""

    def __init__(self, meter: _Meter, known: Known | None, *, keep: bool) -> None:
        self._meter, self._known, self._keep = meter, known, keep

    def watched(self, run: ModuleRun, own: Callable[..., Any] | None) -> Callable[..., Any]:
        """The forward of a module; to those who look at its signature it is as before.

        Args:
            run: what the module does is noted here.
            own: what stood in the place of the class's forward.
        """
        forward, stack = run.module.forward, self._meter.stack
        memorable = self._known is not None and own is None and is_torch_leaf(run.module)

        def watched(*args: Any, **kwargs: Any) -> Any:
            stack[-1].leaf = False
            stack.append(run)
            try:
                out = self._computed(run, forward, args, kwargs) if memorable else forward(*args, **kwargs)
            finally:
                stack.pop()
            self._note(run, forward, args, kwargs, out)
            return out

        return Lookalike(watched, forward, run.path)

    def _computed(self, run: ModuleRun, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What a layer of torch yields, from memory where it was seen with inputs of these shapes."""
        key: Hashable = None
        if self._known is not None and not kwargs and all(isinstance(a, Tensor) for a in args):
            key = operation_key(run.module, args)
        if key is None or self._known is None:
            return forward(*args, **kwargs)
        found = self._known.get(key)
        if found is not None:
            run.flops += found.flops
            return args[0] if found.in_place else args[0].new_empty(found.shape, dtype=found.dtype)
        before = run.flops
        out = forward(*args)
        if isinstance(out, Tensor):
            self._known[key] = _Known(run.flops - before, tuple(out.shape), out.dtype, out is args[0])
        return out

    def _note(self, run: ModuleRun, forward: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> None:
        args, kwargs = in_order(forward, args, kwargs)
        specs, by_name = specs_of(args), specs_of(kwargs)
        run.calls.append(ModuleCall(specs, by_name, (args, kwargs) if self._keep and run.leaf else None))
        run.inputs.append((*specs, *by_name.values()))
        run.outputs.append(shapes := tuple(tuple(tensor.shape) for tensor in tensors_of(out)))
        if run.leaf:
            run.activations += sum(map(math.prod, shapes))


@final
class Lookalike:
    """A function that takes the place of another, and of which all is that of the other but what it does when called.

    Some models ask a forward for its signature or for its code, to see what it takes.

    Args:
        function: what is called.
        other: the forward of a module.
        path: of the module; an error that it raises gets a note of it, the innermost one.
    """

    def __init__(self, function: Callable[..., Any], other: Callable[..., Any], path: str) -> None:
        self._function, self.__wrapped__, self._path = function, other, path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._function(*args, **kwargs)
        except Exception as error:
            if self._path and not getattr(error, "__notes__", None):
                error.add_note(f" in the module {self._path!r}")
            raise

    def __deepcopy__(self, memo: object) -> Lookalike:
        return self  # as functions do

    def __getattr__(self, name: str) -> Any:
        if name == "__signature__":  # for those that do not follow `__wrapped__`
            return inspect.signature(self.__wrapped__)
        return getattr(self.__wrapped__, name)


def specs_of(value: Any) -> Any:
    """Tensors as specs, also in lists, tuples and dicts; all else as it is."""

    def spec(item: Any) -> Any:
        return TensorSpec(tuple(item.shape), item.dtype) if isinstance(item, Tensor) else item

    return tree_map(spec, value, is_leaf=is_single)


def is_single(value: object) -> bool:
    """Whether it is no list, tuple or dict: an object of another class may mind what it is made of."""
    return type(value) not in (list, tuple, dict)


def is_torch_leaf(module: nn.Module) -> bool:
    """Whether torch itself defines the module, it has no children, and its parameters have their shapes."""
    return (
        type(module).__module__.startswith("torch.nn.")
        and not children_of(module)
        and not any(isinstance(p, UninitializedParameter) for p in own_parameters(module).values())
    )


def operation_key(module: nn.Module, inputs: Sequence[Tensor]) -> Hashable:
    """What two calls that do the same share: kind, configuration and input shapes; None where that is not known."""
    plain = tuple((n, v) for n, v in vars(module).items() if n[0] != "_" and n not in _NOT_CONFIGURATION)
    weights = tuple((n, None if p is None else (tuple(p.shape), p.dtype)) for n, p in own_parameters(module).items())
    key = (type(module), plain, weights, tuple((tuple(t.shape), t.dtype) for t in inputs))
    try:
        hash(key)
    except TypeError:
        return None
    return key


_NOT_CONFIGURATION = ("training", "forward")
