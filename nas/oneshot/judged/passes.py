"""The forward passes of a model that is judged, recorded and replayed: on a device its host bounds them otherwise."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import (
    TreeSpec,
    calls_are_watched,
    has_hooks,
    tree_flatten,
    tree_leaves,
    tree_unflatten,
)
from nas.oneshot.speed import CudaRecorder, Recorder, State, Watch, hides_tensors, look_of
from nas.random_state import host_states

Key: TypeAlias = tuple[object, ...]

FEWEST = 8
"""Passes that are worth a recording, which takes as long as some of them."""
_KINDS = 4
"""Different passes of one model that are recorded."""


@final
class JudgedPasses:
    """In the place of a model's forward, while its weights stay as they are.

    The first pass of a kind (shapes, modes, precision) runs as it is, and is watched. Where it has done nothing but
    compute with its inputs and the model's own tensors, the second one is recorded, and replayed from then on; the
    same kernels on the same numbers. Where it draws random numbers, looks at what it has computed, keeps something in
    the model, changes its inputs, calls hooks inside or takes tensors from elsewhere, all passes run as they are; so
    do those with gradients, those that somebody watches by a mode of torch, and those after a change of the model.
    What a forward pass reads of the world without torch, the time or a global counter, is read once.

    Args:
        model: is on its device, and stays there.
        recorder: of that device.

    Attributes:
        reason: why passes run as they are, where they do.
        failed: whether a recording was tried, and failed.
        replayed: how many were replayed.
    """

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        self._model, self._recorder = model, recorder
        self._forward: Callable[..., Any] = vars(model).get("forward") or MethodType(type(model).forward, model)
        with suppress(TypeError, ValueError):  # who asks how it is called is told how the model is
            self.__signature__ = inspect.signature(self._forward)
        self._kinds: list[_Kind] = []
        self._worth = self.failed = False
        self.reason: str | None = None
        self.replayed = 0

    def expect(self, passes: int | float) -> None:
        """Says how many passes are to come: a few are not worth a recording."""
        self._worth = passes >= FEWEST

    def are_recorded_of(self, model: nn.Module) -> bool:
        """Whether those of this model are recorded, as far as is known before they run."""
        return model is self._model and self._worth and self.reason is None

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        """The forward of a copy of the model, which is not judged."""
        return copy.deepcopy(self._forward, memo)

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Inside, these are the model's passes."""
        attributes = vars(self._model)
        before = {name: attributes[name] for name in ("forward",) if name in attributes}
        attributes["forward"] = self
        try:
            yield
        finally:
            attributes.pop("forward", None)
            attributes.update(before)

    def forget(self) -> None:
        """Frees the memory of the recordings; the device must have done what it was asked for."""
        self._kinds.clear()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model yields."""
        if torch.compiler.is_compiling():
            return self._forward(*args, **kwargs)
        if not self._worth or self.reason is not None or torch.is_grad_enabled() or calls_are_watched():
            return self._forward(*args, **kwargs)
        leaves, spec = tree_flatten((args, kwargs))
        if hides_tensors(leaves) or not any(isinstance(leaf, Tensor) for leaf in leaves):
            self.reason = "it takes objects that hold tensors, or none"
            return self._forward(*args, **kwargs)
        key = _key(leaves, spec)
        kind = next((kind for kind in self._kinds if kind.key == key and kind.state.holds()), None)
        if kind is None:
            return self._first(key, leaves, args, kwargs)
        if kind.recording is None:
            try:
                kind.recording = self._record(leaves, spec)
            except RuntimeError as error:
                self.reason, self.failed = f"it cannot be recorded: {str(error).splitlines()[0]}", True
                self._kinds.clear()
                return self._forward(*args, **kwargs)
        self.replayed += 1
        return kind.recording.run(leaves)

    def _first(self, key: Key, leaves: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A pass as it is, watched."""
        if any(has_hooks(module) for module in self._model.modules() if module is not self._model):
            self.reason = "parts of it have hooks"
        if self.reason is not None or len(self._kinds) == _KINDS:
            return self._forward(*args, **kwargs)
        state = State(self._model, aside=self)
        if any(kind.key[:-1] == key[:-1] and kind.state.is_like(state) for kind in self._kinds):
            # It was watched when its batch norms had another mode, and what these do in either is known.
            output = self._forward(*args, **kwargs)
            if state.holds():
                self._kinds.append(_Kind(key=key, state=state))
            return output
        random = _host_numbers()
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        with Watch(inputs, state.tensors) as watch:
            output = self._forward(*args, **kwargs)
        self.reason = watch.reason or _unlike_a_replay(output, watch)
        if random != _host_numbers():
            self.reason = "it draws random numbers"
        elif not state.holds():
            self.reason = "it keeps something in the model"
        if self.reason is None:
            self._kinds.append(_Kind(key=key, state=state))
        return output

    def _record(self, leaves: Sequence[Any], spec: TreeSpec) -> _Recording:
        inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(inputs, spec)
        cache = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)  # what was cast before belongs to another pass
        try:
            output, replay = self._recorder.record(lambda: self._forward(*args, **kwargs))
        finally:
            torch.set_autocast_cache_enabled(cache)
        outputs, out_spec = tree_flatten(output)
        return _Recording(inputs=inputs, outputs=outputs, spec=out_spec, replay=replay)


def recorder_of(device: torch.device) -> Recorder | None:
    """What records on a device; None where nothing can."""
    return CudaRecorder(device) if device.type == "cuda" else None


@final
@dataclass(kw_only=True, eq=False)
class _Recording:
    """Where a pass reads, where it writes, and what runs it."""

    inputs: list[Any]
    outputs: list[Any]
    spec: TreeSpec
    replay: Callable[[], None]

    def run(self, leaves: Sequence[Any]) -> Any:
        """Another pass, on other inputs."""
        for place, leaf in zip(self.inputs, leaves, strict=True):
            if isinstance(place, Tensor):
                place.copy_(leaf, non_blocking=True)
        self.replay()
        # The next pass writes where this one has written.
        return tree_unflatten([out.clone() if isinstance(out, Tensor) else out for out in self.outputs], self.spec)


@final
@dataclass(kw_only=True, eq=False)
class _Kind:
    """Passes that do the same."""

    key: Key
    state: State
    recording: _Recording | None = None


def _unlike_a_replay(output: Any, watch: Watch) -> str | None:
    """Why the output of a pass cannot be handed out by a replay."""
    leaves = tree_leaves(output)
    if hides_tensors(leaves):
        return "it yields objects that hold tensors"
    if not all(watch.made(leaf) for leaf in leaves if isinstance(leaf, Tensor)):
        return "it yields what it was given, or a tensor of the model"
    return None


def _key(leaves: Sequence[Any], spec: TreeSpec) -> Key:
    """What makes passes equal, beside the state of the model."""
    device = next(leaf.device.type for leaf in leaves if isinstance(leaf, Tensor))
    return (
        repr(spec),
        tuple(look_of(leaf) for leaf in leaves),
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        torch.is_inference_mode_enabled(),
    )


def _host_numbers() -> tuple[Any, ...]:
    """The states of the generators that a pass could draw from without torch's operations."""
    python, (_, keys, *place), torchs = host_states()
    return python, keys.tobytes(), place, torchs.numpy().tobytes()
