"""One forward pass on the meta device: what each module computes, without a weight allocated."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from nas._compat.torch_internals import TorchDispatchMode, can_decompose, children_of, drop_hooks, own_parameters
from nas.checks import plain_int
from nas.copying import copy_module
from nas.errors import NasError, NasTypeError, NasValueError, explain

Example: TypeAlias = "Tensor | Sequence[Tensor] | Sequence[int]"
Shape: TypeAlias = tuple[int, ...]


class TensorSpec(NamedTuple):
    """A tensor without its numbers."""

    shape: Shape
    dtype: torch.dtype


@final
@dataclass(slots=True)
class ModuleRun:
    """What one module did in a forward pass; what its children did is counted at them."""

    path: str
    """As in `named_modules`."""
    module: nn.Module
    """On the meta device: its tensors have shapes and dtypes, and no numbers."""
    parameters: int = 0
    """Elements of its own; a shared one is counted at the first module that has it."""
    flops: int = 0
    """Twice the multiply-adds of the operations that it calls itself."""
    activations: int = 0
    """Elements of its outputs, when it called no other module."""
    inputs: list[tuple[Any, ...]] = field(default_factory=list)
    """What each call was given: tensors as `TensorSpec`."""
    outputs: list[tuple[Shape, ...]] = field(default_factory=list)
    """The shapes of the tensors that each call yielded."""
    leaf: bool = True
    """Whether it called no other module."""


@final
@dataclass(frozen=True, slots=True)
class _Known:
    """What a leaf module does with inputs of certain shapes."""

    flops: int
    shape: Shape
    dtype: torch.dtype
    in_place: bool


Known: TypeAlias = dict[Hashable, _Known]


def meta_example(example_input: Example) -> tuple[Tensor, ...]:
    """The inputs of the forward pass, on the meta device.

    Args:
        example_input: a tensor, a tuple of tensors, or the shape of one float tensor.

    Raises:
        NasTypeError: anything else.
    """
    return tuple(torch.empty_like(tensor, device="meta") for tensor in real_example(example_input, device="meta"))


def real_example(example_input: Example, *, device: str = "cpu") -> tuple[Tensor, ...]:
    """The inputs as tensors; a shape becomes normal noise."""
    if isinstance(example_input, Tensor):
        return (example_input,)
    items = list(example_input) if isinstance(example_input, list | tuple) else []
    tensors = [item for item in items if isinstance(item, Tensor)]
    shape = [size for item in items if (size := plain_int(item)) is not None and size > 0]
    if tensors and len(tensors) == len(items):
        return tuple(tensors)
    if shape and len(shape) == len(items):
        if device == "meta":
            return (torch.empty(shape, device=device),)
        return (torch.randn(shape, generator=torch.Generator().manual_seed(0)),)
    raise NasTypeError(
        explain(
            "example_input is a tensor, a tuple of tensors, or a shape",
            got=example_input,
            mend="write (1, 3, 32, 32), batch included; for models that take integers, give a tensor of them",
        )
    )


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy on the meta device, in evaluation mode and without hooks; nothing of the model is copied or touched.

    Raises:
        NasTypeError: not a module, or one that cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise NasTypeError(explain("profile needs an nn.Module or a ModelSpace", got=model))
    twin = copy_module(model, on_meta=True)
    for module in twin.modules():
        _drop_hooks(module)
    return twin.eval()


def _drop_hooks(module: nn.Module) -> None:
    """Drops the hooks; a lazy module keeps those that make its parameters."""
    if any(isinstance(p, UninitializedParameter) for p in own_parameters(module).values()):
        return
    drop_hooks(module)


def run_on_meta(model: nn.Module, inputs: tuple[Tensor, ...], known: Known | None = None) -> list[ModuleRun]:
    """Runs a meta model of ours and says what each of them did.

    Args:
        model: on the meta device; its modules are watched meanwhile.
        inputs: on the meta device.
        known: what leaf modules of torch were seen to do; they are not run again, and new ones are noted here.

    Returns:
        One entry for each module, in the order of `named_modules`.

    Raises:
        NasValueError: the forward pass fails, or needs real numbers.
    """
    runs = {path: ModuleRun(path, module) for path, module in model.named_modules()}
    with torch.no_grad():
        meter = _Meter()
        for run in runs.values():
            run.module.forward = _watched(run, meter, known)  # the copy is ours
        try:
            with meter:
                call(model, inputs)
        finally:
            for run in runs.values():
                vars(run.module).pop("forward", None)
    for name, parameter in model.named_parameters():  # after the pass, which sizes lazy ones
        if not isinstance(parameter, UninitializedParameter):
            runs[name.rpartition(".")[0]].parameters += parameter.numel()
    return list(runs.values())


def call(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """The output of a meta model.

    Raises:
        NasValueError: the forward pass fails, or needs real numbers.
    """
    try:
        return model(*inputs)
    except NasError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise NasValueError(
            explain(
                f"the forward pass on the meta device failed ({type(error).__name__}: {error})",
                where=f"profile of {type(model).__name__} on inputs of shape {shapes}",
                mend="check the shape and dtype of example_input; a forward that reads values of tensors (`.item()`, "
                "`if tensor`) cannot be profiled",
            )
        ) from error


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
        if func.overloadpacket not in self._registry and can_decompose(func):
            with self:
                found = func.decompose(*args, **kwargs)
                if found is not NotImplemented:
                    return found
        out = func(*args, **kwargs)
        count = self._registry.get(func.overloadpacket)
        if count is not None:
            self.stack[-1].flops += count(*args, **kwargs, out_val=out)
        return out


def _watched(run: ModuleRun, meter: _Meter, known: Known | None) -> Callable[..., Any]:
    """The forward of a module, noting what goes in and out."""
    forward = run.module.forward
    memorable = known is not None and is_torch_leaf(run.module)

    def compute(*args: Any, **kwargs: Any) -> Any:
        key: Hashable = None
        if memorable and known is not None and not kwargs and all(isinstance(a, Tensor) for a in args):
            key = operation_key(run.module, args)
        if key is not None and known is not None and (found := known.get(key)) is not None:
            run.flops += found.flops
            return args[0] if found.in_place else torch.empty(found.shape, dtype=found.dtype, device="meta")
        before = run.flops
        out = forward(*args, **kwargs)
        if key is not None and known is not None and isinstance(out, Tensor):
            known[key] = _Known(run.flops - before, tuple(out.shape), out.dtype, out is args[0])
        return out

    def watched(*args: Any, **kwargs: Any) -> Any:
        meter.stack[-1].leaf = False
        meter.stack.append(run)
        try:
            out = compute(*args, **kwargs)
        finally:
            meter.stack.pop()
        run.inputs.append(specs_of(args))
        run.outputs.append(shapes := _shapes(out))
        if run.leaf:
            run.activations += sum(map(math.prod, shapes))
        return out

    return watched


def specs_of(value: Any) -> Any:
    """Tensors as specs, also in lists, tuples and dicts; all else as it is."""
    if isinstance(value, Tensor):
        return TensorSpec(tuple(value.shape), value.dtype)
    if type(value) in (list, tuple):
        return type(value)(map(specs_of, value))
    return {key: specs_of(item) for key, item in value.items()} if type(value) is dict else value


def _shapes(out: Any) -> tuple[Shape, ...]:
    """The shapes of all tensors in an output."""
    if isinstance(out, Tensor):
        return (tuple(out.shape),)
    if isinstance(out, Mapping):
        out = list(out.values())
    return tuple(shape for item in out for shape in _shapes(item)) if isinstance(out, list | tuple) else ()


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
    weights = tuple((n, None if p is None else tuple(p.shape)) for n, p in own_parameters(module).items())
    key = (type(module), plain, weights, tuple((tuple(t.shape), t.dtype) for t in inputs))
    try:
        hash(key)
    except TypeError:
        return None
    return key


_NOT_CONFIGURATION = ("training", "forward")
