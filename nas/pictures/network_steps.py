"""What a network runs: the functions of one forward pass, in which modules, and what flows between them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from nas.errors import NasValueError, explain
from nas.profile import Example, meta_copy, meta_example, real_example, tensors_of

ModuleCall: TypeAlias = tuple[int, str]
"""A call of a module: its number in the pass, and the path of the module."""

_PASSED = {"__getitem__", "__get__", "contiguous", "detach", "clone", "to", "float", "chunk", "split", "unbind"}
"""Functions that are no step of their own: what they yield is taken to be what they were given."""


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """A function of torch that ran; also the inputs and the output of the network."""

    name: str
    calls: tuple[ModuleCall, ...]
    """The calls of modules that it ran in, outermost first, the network itself left out."""
    sources: tuple[int, ...]
    """The steps whose tensors it took. What depends on no input of the network is no step."""
    shape: tuple[int, ...]
    """Of its first output."""


def network_steps(model: nn.Module, example_input: Example) -> list[Step]:
    """The steps of a forward pass in evaluation mode that the output depends on, on a copy on the meta device.

    Where that fails (a forward that reads values of tensors), a copy runs on the example itself.

    Raises:
        NasTypeError: an example input of another kind.
        NasValueError: the forward pass fails.
    """
    inputs = meta_example(example_input)
    try:
        return _Recorder(meta_copy(model)).run(inputs)
    except Exception:
        try:
            with torch.random.fork_rng(devices=[]):
                return _Recorder(copy.deepcopy(model).eval()).run(real_example(example_input))
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
            raise NasValueError(
                explain(
                    f"the forward pass failed ({type(error).__name__}: {error})",
                    where=f"draw {type(model).__name__} with inputs of shape {shapes}",
                    mend="check the shape and dtype of example_input",
                )
            ) from error


@final
class _Recorder(TorchFunctionMode):
    """Runs a model of ours and notes its steps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.steps: list[Step] = []
        self.calls: list[ModuleCall] = []
        self.number = 0
        self.made: dict[int, int] = {}  # id of a tensor -> the step that yielded it
        self.alive: list[Any] = []  # so that no id comes twice

    def run(self, inputs: tuple[Tensor, ...]) -> list[Step]:
        for path, module in self.model.named_modules():
            if path:
                module.forward = self._watched(path, module.forward)
        for tensor in inputs:
            self._note("input", (), tensor)
        with torch.no_grad(), self:
            out = self.model(*inputs)
        self._note("output", self._sources(out), out)
        return _read(self.steps)

    def _watched(self, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.number += 1
            self.calls.append((self.number, path))
            try:
                out = forward(*args, **kwargs)
                sources = self._sources((args, kwargs))
                # What no function was seen to make: by an autograd.Function, or by TorchScript.
                if sources and any(id(tensor) not in self.made for tensor in tensors_of(out)):
                    self._note("forward", sources, out)
            finally:
                self.calls.pop()
            return out

        return watched

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = _name(func)
        sources = self._sources((args, kwargs))
        made = args[0] if name == "__setitem__" else out
        if not sources or not any(True for _ in tensors_of(made)):
            return out
        if name in _PASSED:
            for tensor in tensors_of(made):
                self.made.setdefault(id(tensor), sources[0])
                self.alive.append(tensor)
        else:
            self._note(name, sources, made)
        return out

    def _sources(self, value: Any) -> tuple[int, ...]:
        found = (self.made.get(id(tensor)) for tensor in tensors_of(value))
        return tuple(dict.fromkeys(step for step in found if step is not None))

    def _note(self, name: str, sources: tuple[int, ...], made: Any) -> None:
        tensors = list(tensors_of(made))
        for tensor in tensors:
            self.made[id(tensor)] = len(self.steps)
        self.alive += tensors
        shape = tuple(tensors[0].shape) if tensors else ()
        self.steps.append(Step(name=name, calls=tuple(self.calls), sources=sources, shape=shape))


def _read(steps: list[Step]) -> list[Step]:
    """The steps that the output depends on, and the inputs."""
    wanted = {len(steps) - 1}
    for position in reversed(range(len(steps))):
        if position in wanted:
            wanted.update(steps[position].sources)
    kept = [position for position, step in enumerate(steps) if position in wanted or step.name == "input"]
    new = {old: position for position, old in enumerate(kept)}
    return [replace(steps[old], sources=tuple(new[s] for s in steps[old].sources)) for old in kept]


def _name(func: Any) -> str:
    name = getattr(func, "__name__", None) or str(resolve_name(func))
    return name.rpartition(".")[2]
