"""The step of an optimizer as a CUDA graph: for thousands of parameters the host is busy longer than the device."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from nas._compat.optimizers import has_step_hooks, mark_as_followed, tell_schedulers
from nas.oneshot.speed.recorders import Recorder
from nas.oneshot.speed.watching import Watch, numbers_of_host
from nas.random_state import host_states, set_host_states

Key: TypeAlias = tuple[object, ...]

_WARM_UP = 3
"""Steps that run as they are before one is recorded; the last of them is watched."""
_DIFFERENT = 64
"""Different steps that are counted: with a rate that changes in each step none comes again."""


@final
class RecordedUpdate:
    """In the place of the `step` of an optimizer: recorded, and replayed as long as all that it goes by is the same.

    That is: rates and other options, the tensors of its state, and where parameters and gradients lie. A step is
    watched before it is recorded. Where it looks at numbers of the device, computes on several, draws random numbers
    on the host or counts its steps in Python, all run as they are; so do those of a scaler that hands its scale to
    the optimizer, and those that somebody has hooks for.

    Args:
        optimizer: of torch; one that evaluates its closure several times is left alone by `record_updates`.
        recorder: makes the recorder of its device.
        tell: is told, in words, why steps run as they are.
    """

    def __init__(self, optimizer: Optimizer, recorder: Callable[[], Recorder], tell: Callable[[str], object]) -> None:
        self._optimizer, self._make_recorder, self._tell = optimizer, recorder, tell
        self._step: Callable[..., Any] = optimizer.step
        functools.update_wrapper(self, self._step)
        mark_as_followed(self)
        self._seen: Counter[Key] = Counter()
        self._recordings: dict[Key, _Recording] = {}
        self._refused = False
        self._recorder = recorder()
        optimizer.step = self  # type: ignore[method-assign]

    def forget(self) -> None:
        """Records anew from now on."""
        self._recordings.clear()
        self._recorder = self._make_recorder()

    @property
    def recorded(self) -> int:
        """How many steps are recorded."""
        return len(self._recordings)

    def __call__(self, closure: Callable[[], Any] | None = None) -> Any:
        """What the optimizer's own step does, and returns."""
        tell_schedulers(self._optimizer)
        scaled = getattr(self._optimizer, "grad_scale", None) is not None
        if self._refused or scaled or has_step_hooks(self._optimizer):
            return self._step() if closure is None else self._step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update()
        return loss

    def _update(self) -> None:
        key = self._key()
        recording = self._recordings.get(key)
        if recording is None:
            if key not in self._seen and len(self._seen) == _DIFFERENT:
                self._refuse("other rates, or other gradients, in each step")
            self._seen[key] += 1
            if self._refused or self._seen[key] < _WARM_UP:
                self._step()
                return
            if self._seen[key] == _WARM_UP:
                self._watched()
                return
            recording = self._recorded(key)
        if recording is None:
            self._step()
            return
        recording.replay()

    def _refuse(self, why: str) -> None:
        self._refused = True
        self._recordings.clear()
        mend = "; give it capturable=True" if self._optimizer.defaults.get("capturable") is False else ""
        self._tell(f"steps of {type(self._optimizer).__name__} are not recorded as CUDA graphs: {why}{mend}")

    def _watched(self) -> None:
        """A step as it is; where a replay of it would not be the same, none is recorded."""
        device = self._parameters()[0].device
        before, numbers = _Kept(self._optimizer), numbers_of_host(device)
        with Watch([torch.empty(1, device=device)], None) as watch:
            self._step()
        if watch.reason is not None:
            self._refuse(watch.reason)
        elif numbers != numbers_of_host(device):
            self._refuse("it draws random numbers on the host")
        elif not before.holds():
            self._refuse("it counts, or keeps something, in Python")

    def _recorded(self, key: Key) -> _Recording | None:
        """A step, recorded; None where that fails: then all is as if it had not been tried."""
        before, numbers = _Kept(self._optimizer), host_states()
        try:
            _, replay = self._recorder.record(self._step)
        except RuntimeError as error:
            set_host_states(numbers)
            self._refuse(str(error).partition("\n")[0])
            return None
        if not before.holds():
            self._refuse("it counts, or keeps something, in Python")
            return None
        self._recordings[key] = _Recording(replay, self._tensors())
        return self._recordings[key]

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _tensors(self) -> list[Tensor]:
        """Of the state; they are held, so that no other is taken for one of them."""
        parts = [item for state in self._optimizer.state.values() for item in state.values()]
        return [item for item in parts if isinstance(item, Tensor)]

    def _key(self) -> Key:
        """What makes steps equal."""
        optimizer, parameters = self._optimizer, self._parameters()
        options = [(n, _look(v)) for group in optimizer.param_groups for n, v in group.items() if n != "params"]
        gradients = [parameter.grad for parameter in parameters]
        there = [gradient for gradient in gradients if gradient is not None]
        kept = [item for state in optimizer.state.values() for item in state.values()]
        # Of thousands of tensors, by functions that are no Python.
        return (
            tuple(options),
            tuple(map(Tensor.data_ptr, parameters)),
            tuple([gradient is None for gradient in gradients]),
            tuple(map(Tensor.data_ptr, there)),
            tuple(map(Tensor.stride, there)),
            tuple(map(attrgetter("dtype"), there)),
            tuple([id(item) if isinstance(item, Tensor) else repr(item) for item in kept]),
        )


def record_updates(
    optimizers: Iterable[Optimizer], recorder: Callable[[], Recorder], tell: Callable[[str], object]
) -> None:
    """Records the steps of optimizers from now on, or anew; those that are not torch's own are left alone.

    Args:
        optimizers: as they are used; what stands for their `step` stays until they go.
        recorder: makes the recorder of their device.
        tell: is told why steps run as they are.
    """
    for optimizer in optimizers:
        step = vars(optimizer).get("step")
        if isinstance(step, RecordedUpdate):
            step.forget()
        elif type(optimizer).__module__.startswith("torch.optim.") and not isinstance(optimizer, LBFGS):
            RecordedUpdate(optimizer, recorder, tell)


@final
class _Recording:
    """A step, and the tensors that it goes by."""

    def __init__(self, replay: Callable[[], None], tensors: list[Tensor]) -> None:
        self.replay, self._tensors = replay, tensors


@final
class _Kept:
    """What an optimizer keeps beside the numbers in its tensors."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._before = self._now()

    def holds(self) -> bool:
        """Whether it is the same."""
        return self._before == self._now()

    def _now(self) -> list[object]:
        optimizer = self._optimizer
        attributes = [(n, _look(v)) for n, v in vars(optimizer).items() if n not in ("state", "step", "param_groups")]
        options = [(n, _look(v)) for group in optimizer.param_groups for n, v in group.items() if n != "params"]
        states = [(id(p), n, _look(v)) for p, state in optimizer.state.items() for n, v in state.items()]
        return [attributes, options, states]


def _look(value: object) -> object:
    """Equal for one tensor, whatever its numbers, and for equal things of Python."""
    return (id(value), value.data_ptr()) if isinstance(value, Tensor) else repr(value)
