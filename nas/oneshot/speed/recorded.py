"""The forward and the backward pass of a model as CUDA graphs: recorded once, then replayed with one launch each."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter, itemgetter
from types import MethodType
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import TreeSpec, tree_flatten, tree_unflatten
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed import Mixing
from nas.oneshot.speed.recorders import Gradients, Recorder
from nas.oneshot.speed.replays import Latest, Pass
from nas.oneshot.speed.watching import Listeners, Places, State, Watch, hides_tensors, look_of, numbers_of_host
from nas.random_state import host_states, set_host_states

Key: TypeAlias = tuple[object, ...]

_WARM_UP = 3
"""Passes that run as they are before one is recorded: kernels are compiled and chosen, caches filled."""
_MOST = 8
"""Different passes that are recorded, as many as torch compiles of one function."""
_WANTS = attrgetter("requires_grad")
_DIFFERENT = 64
"""Different passes that are counted: where there are more, hardly one comes again."""


@final
class RecordedForward:
    """The forward of a model in training, which is recorded together with its backward pass, and then replayed.

    A pass is recorded for each phase (which parameters want gradients, which candidates are computed), shape and
    precision, after some that ran as they are. The last of these is watched: where it looks at what it has computed,
    draws numbers on the host, keeps something in a module, changes its inputs, computes on several devices or calls
    hooks inside, no pass is recorded any more. What a model reads of the world without torch, the time or a global
    counter, is not seen; `forget` is for what differs from epoch to epoch. Passes without gradients run as they are,
    and so does one while another waits for its backward pass.

    Args:
        model: whose forward it is; it takes and yields tensors, in lists, tuples and dicts too. What hides tensors
            elsewhere (a dataclass) is not recorded.
        mixing: where the mixtures of the model read their weights.
        forward: what the model computes.
        recorder: makes the recorder of the device.
        tell: is told, in words, why passes run as they are; where it is omitted, that is an error or a warning.
    """

    def __init__(
        self,
        model: nn.Module,
        mixing: Mixing,
        forward: Callable[..., Any],
        recorder: Callable[[], Recorder],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.model, self.mixing, self._forward, self.make_recorder = model, mixing, forward, recorder
        self._tell, self._listeners = tell, Listeners(model)
        self._seen: Counter[Key] = Counter()
        self._passes: dict[Key, Pass] = {}
        self._told = self._paused = self._hidden = False
        self._latest = Latest()
        self.parameters: list[nn.Parameter] = []
        self._modes: list[Any] = []
        self._trains: Callable[[Any], bool] = bool
        self._recorder: Recorder | None = None
        self._places: Places | None = None
        self._moves = 0

    def forget(self) -> None:
        """Records anew from now on."""
        self._passes.clear()
        self._recorder = self.make_recorder()
        modules, self.parameters = list(self.model.modules()), list(self.model.parameters())
        # Asked for the mode, modules look in their classes first.
        keep = all("training" in vars(module) for module in modules)
        self._modes = list(map(vars, modules)) if keep else modules
        self._trains = itemgetter("training") if keep else attrgetter("training")
        self._places = Places(modules)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the model runs as it is: what is replayed cannot be differentiated twice."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedForward:
        """For a copy of the model, of which nothing is recorded yet."""
        model, forward = copy.deepcopy(self.model, memo), copy.deepcopy(self._forward, memo)
        return RecordedForward(model, self.mixing, forward, self.make_recorder, self._tell)

    @property
    def recorded(self) -> int:
        """How many passes are recorded."""
        return len(self._passes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model yields."""
        if self._recorder is None:
            self.forget()
        if not self._hidden and (why := self._listeners.reason()) is not None:
            self._refuse(why)
        leaves, spec = tree_flatten((args, kwargs))
        key = None if self._latest.waits or self._paused else self._key(leaves, spec)
        if key is not None and self._places is not None and not self._places.hold():
            self._moved()
        if key is None or self._hidden:
            return self._forward(*args, **kwargs)
        if not self._ready(key):
            watches = self._seen[key] == _WARM_UP
            output = self._watched(leaves, args, kwargs) if watches else self._forward(*args, **kwargs)
            if hides_tensors(tree_flatten(output)[0]):
                self._hide("yields")
            return output
        if key not in self._passes:
            recorded = self._recorded(leaves, spec)
            if recorded is None:
                return self._forward(*args, **kwargs)
            self._passes[key] = recorded
        recorded = self._passes[key]
        if recorded.gradients.are_kept():
            return self._forward(*args, **kwargs)
        if recorded.parameters and self._latest() is None:
            self._listeners.look_at_gradients()
        return recorded.run(leaves, self.mixing.weights, self._latest)

    def differentiate(self, loss: Tensor) -> bool:
        """Does what `loss.backward()` does, if the loss depends on the last replayed pass alone, and nobody is told.

        Args:
            loss: of one number.

        Returns:
            Whether it did; else nothing was done.
        """
        if torch.is_anomaly_enabled() or self._listeners.follow_gradients():
            return False
        return self._latest.differentiate(loss)

    def _moved(self) -> None:
        """Parameters or buffers were replaced: what was recorded reads and writes the old ones."""
        self._moves += 1
        if self._moves > _MOST:
            self._refuse("its parameters or buffers are replaced again and again")
        else:
            self.forget()

    def _hide(self, verb: str) -> None:
        """Records no more: a replay would hand out the tensors of the pass that was recorded."""
        if not self._hidden:
            self.say(
                f"the model {verb} objects that hold tensors, so its passes are not recorded; let it use tensors, "
                "lists, tuples and dicts"
            )
        self._hidden = True

    def say(self, text: str) -> None:
        """Tells somebody who wants to know, or warns."""
        if self._tell is not None:
            self._tell(f"CUDA graphs: {text}")
        else:
            warnings.warn(f"CUDA graphs: {text}", stacklevel=4)

    def _refuse(self, why: str, error: Exception | None = None) -> None:
        """Records no more, because of the model.

        Raises:
            NasValueError: nobody is to be told.
        """
        self._hidden = True
        self._passes.clear()
        if self._tell is not None:
            self._tell(f"not recorded as CUDA graphs: {why}")
            return
        raise NasValueError(
            explain(
                "the forward and backward pass of this model cannot be recorded as CUDA graphs: they must not wait for "
                "the device, nor copy from the host, nor do in Python what differs from step to step",
                got=why,
                where="Speed(cuda_graphs=True)",
                mend='cuda_graphs="auto", or Speed(compile=True)',
            )
        ) from error

    def _watched(self, leaves: Sequence[Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A pass as it is; where a replay of it would not be the same, none is recorded."""
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not inputs:
            return self._forward(*args, **kwargs)
        state, numbers = State(self.model, aside=self), numbers_of_host(inputs[0].device)
        with Watch(inputs, None, draws=True) as watch:
            output = self._forward(*args, **kwargs)
        why = watch.reason
        if why is None and numbers != numbers_of_host(inputs[0].device):
            why = "it draws random numbers on the host"
        elif why is None and self._listeners.come():
            why = "it registers hooks"
        elif why is None and not state.holds():
            why = "it keeps something in a module"
        if why is not None:
            self._refuse(why)
        return output

    def _recorded(self, leaves: Sequence[Any], spec: TreeSpec) -> Pass | None:
        """A pass, recorded; None where that fails: then all is as if it had not been tried."""
        state, numbers = State(self.model, aside=self), host_states()
        try:
            found = self._record(leaves, spec)
        except RuntimeError as error:
            failure: RuntimeError = error
        else:
            if state.holds():
                return found
            failure = RuntimeError("it keeps something in a module")
        state.put_back()
        set_host_states(numbers)
        self._refuse(str(failure).partition("\n")[0], failure)
        return None

    def _ready(self, key: Key) -> bool:
        """Whether a pass is recorded, or is to be."""
        if key in self._passes:
            return True
        if key not in self._seen and len(self._seen) == _DIFFERENT:
            if not self._told:
                self.say("other candidates are computed in each step, so most steps are not recorded")
            self._told = True
            return False
        self._seen[key] += 1
        return self._seen[key] > _WARM_UP and len(self._passes) < _MOST

    def _key(self, leaves: Sequence[Any], spec: TreeSpec) -> Key | None:
        """What makes passes equal; None of those that are not recorded."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if self._hidden:
            return None
        if hides_tensors(leaves):
            self._hide("takes")
            return None
        if not self.model.training or not torch.is_grad_enabled() or any(tensor.requires_grad for tensor in tensors):
            return None
        weights = self.mixing.weights
        device = next((tensor.device.type for tensor in tensors), "cpu")
        return (
            repr(spec),
            tuple(look_of(leaf) for leaf in leaves),
            tuple(self.mixing.active.items()),
            tuple((label, weight.shape, weight.requires_grad) for label, weight in weights.items()),
            # Of thousands, so by functions that are no Python.
            bytes(map(_WANTS, self.parameters)),
            tuple(map(self._trains, self._modes)),
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        )

    def _record(self, leaves: Sequence[Any], spec: TreeSpec) -> Pass:
        """Records a pass on copies of what it reads, at which later ones find it."""
        recorder = self._recorder
        assert recorder is not None
        inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(inputs, spec)
        kept = dict(self.mixing.weights)
        weights = {label: w.detach().clone().requires_grad_(w.requires_grad) for label, w in kept.items()}
        labels = [label for label, weight in weights.items() if weight.requires_grad]
        parameters = [parameter for parameter in self.parameters if parameter.requires_grad]
        wanted = [*(weights[label] for label in labels), *parameters]
        self.mixing.weights.update(weights)
        cache = torch.is_autocast_cache_enabled()
        # What was cast before belongs to another pass; the nodes of its gradients hang on another stream.
        torch.clear_autocast_cache()
        torch.set_autocast_cache_enabled(False)
        try:
            output, forward = recorder.record(lambda: self._forward(*args, **kwargs))
            outputs, out_spec = tree_flatten(output)
            tensors = [end for end in outputs if isinstance(end, Tensor)]
            differentiable = [i for i, end in enumerate(tensors) if end.requires_grad]
            ends = [tensors[i] for i in differentiable]
            given = [torch.zeros_like(end) for end in ends]
            gradients = Gradients(wanted)
            _, backward = recorder.record(
                lambda: gradients.write(torch.autograd.grad(ends, wanted, given, allow_unused=True))
            )
            gradients.settle()
        finally:
            torch.set_autocast_cache_enabled(cache)
            self.mixing.weights.update(kept)
        return Pass(
            inputs=inputs,
            weights=weights,
            labels=labels,
            parameters=parameters,
            outputs=[end.detach() if isinstance(end, Tensor) else end for end in outputs],
            differentiable=differentiable,
            spec=out_spec,
            given=given,
            gradients=gradients,
            forward=forward,
            backward=backward,
        )


def record_whole(
    model: nn.Module,
    mixing: Mixing,
    recorder: Callable[[], Recorder],
    tell: Callable[[str], None] | None = None,
) -> RecordedForward:
    """Gives a model a forward that is recorded.

    Args:
        model: a supernet; parts of it may be compiled.
        mixing: where its mixtures read their weights.
        recorder: makes the recorder of its device.
        tell: is told why passes run as they are, where they do; else that is an error or a warning.
    """
    forward = vars(model).get("forward") or MethodType(type(model).forward, model)
    found = RecordedForward(model, mixing, forward, recorder, tell)
    found.forget()
    model.__dict__["forward"] = found
    return found
