"""What a network runs: the functions of one forward pass, in which modules, and what flows between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

from nas.profile import Example, ForwardPass, Lookalike, Subject, run_first, tensors_of

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


def network_steps(subject: Subject, example_input: Example) -> tuple[dict[str, nn.Module], list[Step]]:
    """The steps of a forward pass in evaluation mode that the output depends on, wherever a copy of the model can run.

    Returns:
        The modules by path, and the steps.

    Raises:
        NasTypeError: an example input of another kind.
        NasValueError: the forward pass fails.
    """
    return run_first(subject, example_input, lambda run: _Recorder().run(run), task="draw")[0]


@final
class _Recorder(TorchFunctionMode):
    """Runs a copy of a model and notes its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.calls: list[ModuleCall] = []
        self.number = 0
        self.made: dict[int, int] = {}  # id of a tensor -> the step that yielded it
        self.alive: list[Any] = []  # so that no id comes twice

    def run(self, forward_pass: ForwardPass) -> tuple[dict[str, nn.Module], list[Step]]:
        modules = dict(forward_pass.model.named_modules())
        for path, module in modules.items():
            if path and not isinstance(module, torch.jit.ScriptModule):
                own: dict[str, Any] = module.__dict__  # the copy is ours
                own["forward"] = Lookalike(self._watched(path, module.forward), module.forward, path)
        for tensor in tensors_of((forward_pass.args, forward_pass.kwargs)):
            self._note("input", (), tensor)
        with torch.no_grad(), self:
            out = forward_pass()
        self._note("output", self._sources(out), out)
        return modules, _read(self.steps)

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
