"""The step of an optimizer, and the clipping before it, as CUDA graphs: of thousands of parameters the host is slow."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter, is_not
from typing import Any, Protocol, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from nas._compat.gradients import gradient_of
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
class _Repeated:
    """Work of an optimizer that is done in each step: watched, recorded, and replayed while its key is the same.

    Args:
        what: it is, in words.
        optimizer: whose.
        recorder: makes the recorder of its device.
        tell: is told, in words, why it runs as it is.
    """

    def __init__(
        self, what: str, optimizer: Optimizer, recorder: Callable[[], Recorder], tell: Callable[[str], object]
    ) -> None:
        self._what, self._optimizer, self._make_recorder, self._tell = what, optimizer, recorder, tell
        self._recorder: Recorder | None = None
        self._seen: Counter[Key] = Counter()
        self._recordings: dict[Key, _Recording] = {}
        self.refused = False

    def forget(self) -> None:
        """Records anew from now on."""
        self._recordings.clear()
        self._recorder = None

    @property
    def recorded(self) -> int:
        """How many are recorded."""
        return len(self._recordings)

    def run(self, key: Key, work: Callable[[], object]) -> None:
        """Does it.

        Args:
            key: all that it goes by, but for numbers in tensors.
            work: what is recorded.
        """
        recording = self._recordings.get(key)
        if recording is None:
            if key not in self._seen and len(self._seen) == _DIFFERENT:
                self._refuse("other rates, or other gradients, in each step")
            self._seen[key] += 1
            if self.refused or self._seen[key] < _WARM_UP:
                work()
                return
            if self._seen[key] == _WARM_UP:
                self._watched(work)
                return
            recording = self._recorded(key, work)
        if recording is None:
            work()
            return
        recording.replay()

    def _refuse(self, why: str) -> None:
        self.refused = True
        self._recordings.clear()
        self._tell(f"{self._what} not recorded as CUDA graphs: {why}")

    def _watched(self, work: Callable[[], object]) -> None:
        """It as it is; where a replay of it would not be the same, none is recorded."""
        device = _parameters(self._optimizer)[0].device
        before, numbers = _Kept(self._optimizer), numbers_of_host(device)
        with Watch([torch.empty(1, device=device)], None) as watch:
            work()
        if watch.reason is not None:
            self._refuse(watch.reason)
        elif numbers != numbers_of_host(device):
            self._refuse("it draws random numbers on the host")
        elif not before.holds():
            self._refuse(_COUNTS)

    def _recorded(self, key: Key, work: Callable[[], object]) -> _Recording | None:
        """It, recorded; None where that fails: then all is as if it had not been tried."""
        before, numbers = _Kept(self._optimizer), host_states()
        if self._recorder is None:
            self._recorder = self._make_recorder()
        try:
            _, replay = self._recorder.record(work)
        except RuntimeError as error:
            set_host_states(numbers)
            self._refuse(str(error).partition("\n")[0])
            return None
        if not before.holds():
            self._refuse(_COUNTS)
            return None
        self._recordings[key] = _Recording(replay, _tensors(self._optimizer))
        return self._recordings[key]


_COUNTS = "it counts, or keeps something, in Python"


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
        self._optimizer, self._tell = optimizer, tell
        self._step: Callable[..., Any] = optimizer.step
        functools.update_wrapper(self, self._step)
        mark_as_followed(self)
        self._steps = _Repeated(f"steps of {type(optimizer).__name__} are", optimizer, recorder, self._say)
        self._asks = self._told = False
        self._first: tuple[Key, Callable[[], object]] | None = None
        optimizer.step = self  # type: ignore[method-assign]

    def _say(self, line: str) -> None:
        self._tell(line + "; give it capturable=True" * (self._optimizer.defaults.get("capturable") is False))

    def forget(self) -> None:
        """Records anew from now on."""
        self._steps.forget()

    @property
    def recorded(self) -> int:
        """How many steps are recorded."""
        return self._steps.recorded

    def __call__(self, closure: Callable[[], Any] | None = None) -> Any:
        """What the optimizer's own step does, and returns."""
        optimizer = self._optimizer
        tell_schedulers(optimizer)
        scaled = getattr(optimizer, "grad_scale", None) is not None
        if self._steps.refused or scaled or has_step_hooks(optimizer):
            return self._step() if closure is None else self._step(closure)
        if closure is None:
            self._steps.run(self._key(), self._step)
            return None
        self._asks = True
        try:
            with torch.enable_grad():
                loss = closure()
        finally:
            self._asks, first, self._first = False, self._first, None
        if first is None:
            self._steps.run(self._key(), self._step)
        else:
            how, clip = first
            self._steps.run((*how, *self._key()), lambda: (clip(), self._step()))
            if self.recorded and not self._told:
                self._told = True
                self._tell("gradients are clipped and weights updated as one CUDA graph")
        return loss

    def begin_with(self, key: Key, work: Callable[[], object]) -> bool:
        """Lets a step begin with what is to be done at the end of its closure, so that both are recorded as one.

        Args:
            key: all that the work goes by, beside the gradients.
            work: changes the gradients.

        Returns:
            Whether it will be done; else this is no such moment.
        """
        if not self._asks or self._first is not None:
            return False
        self._first = key, work
        return True

    def _key(self) -> Key:
        """What makes steps equal."""
        optimizer, parameters = self._optimizer, _parameters(self._optimizer)
        options = [(n, _look(v)) for group in optimizer.param_groups for n, v in group.items() if n != "params"]
        kept = [item for state in optimizer.state.values() for item in state.values()]
        return (
            tuple(options),
            tuple(map(Tensor.data_ptr, parameters)),
            *_look_of_gradients(parameters),
            tuple([id(item) if isinstance(item, Tensor) else repr(item) for item in kept]),
        )


class Clipping(Protocol):
    """Clips the gradients of the parameters of an optimizer, which gradients is all that it changes."""

    def __call__(self, optimizer: Optimizer, clip_val: int | float) -> None:
        """Does so."""


@final
class RecordedClipping:
    """In the place of what clips gradients in each step: recorded, and replayed while they lie where they did.

    Where the optimizer's step is recorded too, and nobody can look at the gradients between the two, they are one.

    Args:
        clip: does it as it is.
        recorder: makes the recorder of the device.
        tell: is told, in words, whether it is recorded by itself, or runs as it is, and why.
        apart: why somebody may look at the gradients before the step; None where nobody does.
    """

    def __init__(
        self,
        clip: Clipping,
        recorder: Callable[[], Recorder],
        tell: Callable[[str], object],
        *,
        apart: str | None = None,
    ) -> None:
        self._clip, self._make_recorder, self._tell, self._apart = clip, recorder, tell, apart
        self._told = False
        self._of: dict[int, tuple[Optimizer, _Repeated]] = {}

    def forget(self) -> None:
        """Records anew from now on."""
        for _, repeated in self._of.values():
            repeated.forget()

    def __call__(self, optimizer: Optimizer, clip_val: int | float) -> None:
        """Clips, before the optimizer steps."""
        update = vars(optimizer).get("step")
        if isinstance(update, RecordedUpdate) and self._apart is None:
            key = "clipped", id(self), clip_val
            if update.begin_with(key, lambda: self._clip(optimizer, clip_val)):
                return None
        if self._apart is not None:
            self._say(f"gradients are clipped and weights updated as two CUDA graphs: {self._apart}")
        parameters = _parameters(optimizer)
        if not any(map(is_not, map(gradient_of, parameters), repeat(None))):
            return self._clip(optimizer, clip_val)
        if id(optimizer) not in self._of:
            repeated = _Repeated("the clipping of gradients is", optimizer, self._make_recorder, self._tell)
            self._of[id(optimizer)] = optimizer, repeated
        _, repeated = self._of[id(optimizer)]
        if repeated.refused:
            return self._clip(optimizer, clip_val)
        return repeated.run((clip_val, *_look_of_gradients(parameters)), lambda: self._clip(optimizer, clip_val))

    def _say(self, line: str) -> None:
        if not self._told:
            self._tell(line)
        self._told = True


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _tensors(optimizer: Optimizer) -> list[Tensor]:
    """Of the state; they are held, so that no other is taken for one of them."""
    parts = [item for state in optimizer.state.values() for item in state.values()]
    return [item for item in parts if isinstance(item, Tensor)]


def _look_of_gradients(parameters: Sequence[nn.Parameter]) -> Key:
    """Who has one, and where and how it lies; of thousands, by functions that are no Python."""
    gradients = list(map(gradient_of, parameters))
    has = bytes(map(is_not, gradients, repeat(None)))
    there: list[Any] = gradients if all(has) else [gradient for gradient in gradients if gradient is not None]
    return (
        has,
        tuple(map(Tensor.data_ptr, there)),
        tuple(map(Tensor.stride, there)),
        tuple(map(_DTYPE, there)),
    )


_DTYPE = attrgetter("dtype")


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
