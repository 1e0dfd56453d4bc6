"""Forward passes of copies: on the meta device, where that cannot be with fake tensors, and where not, for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, TypeAlias, TypeVar, final, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas._compat.torch_internals import FakeTensors, has_numbers, hook_dicts, inside_compiled
from nas.copying import Memo, copy_module, rebind
from nas.domains import Answer
from nas.errors import NasError, NasTypeError, NasValueError, explain
from nas.example_inputs import Example, Inputs, read_example
from nas.profile.recurrent import SeenOperations
from nas.random_state import untouched
from nas.space import ModelSpace
from nas.weightless import NoInitialisation

Ground: TypeAlias = Literal["meta", "fake", "real"]
"""What tensors a pass computes with: without numbers on the meta device; without numbers, but such as say that they are
on the CPU and mix with others; with numbers."""

R = TypeVar("R")
"""As `copy.deepcopy` takes it: what stands for which object, by its id."""

_GROUNDS = get_args(Ground)
_MOST_BYTES = 4 * 2**30


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model whose passes are wanted, as something that copies of it can be made of."""

    name: str
    meta: Callable[[], nn.Module]
    """Makes one on the meta device, in evaluation mode."""
    real: Callable[[], nn.Module]
    """Makes one with numbers, in evaluation mode."""
    sample: Mapping[str, Answer] | None = None
    """Of a space."""

    def __str__(self) -> str:
        return self.name if self.sample is None else f"{self.name} (sample {dict(self.sample)})"


@final
class ForwardPass:
    """A copy of a model and its inputs, where a pass can run; it may run more than once."""

    def __init__(
        self,
        ground: Ground,
        model: nn.Module,
        inputs: Inputs,
        computing: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.ground, self.model = ground, model
        self.args, self.kwargs = inputs.arguments_for(model)
        self._computing = computing

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside it can be called; random numbers and global variables of hooks are as before in the end."""
        with untouched(), self._computing(), _globals_kept(self.model):
            yield

    def __call__(self) -> Any:
        return self.model(*self.args, **self.kwargs)

    def convert(self, tensor: Tensor) -> Tensor:
        """A tensor without numbers where the pass has none."""
        return torch.empty_like(tensor, device="meta") if self.ground == "meta" else torch.empty_like(tensor)


def run_first(
    subject: Subject, example_input: Example, use: Callable[[ForwardPass], R], *, task: str, start: Ground = "meta"
) -> tuple[R, Ground]:
    """What is found in passes where they can run: on the first ground on which they raise nothing.

    On the meta device there are no numbers, and tensors from elsewhere are not there: a forward that computes with what
    numpy made, or with a tensor that no module holds, runs with fake tensors; one that asks whether all of a mask is 0,
    for real. Whether such was the reason nobody can tell; an error of the model's own comes again for real, and that is
    the one that is told.

    Args:
        subject: is not touched.
        example_input: see `Example`.
        use: runs passes; called anew on the next ground after any error but a NasError.
        task: what for, in messages: "profile of", say.
        start: where to begin.

    Returns:
        What `use` has returned, and the ground.

    Raises:
        NasTypeError: an example input of another kind.
        NasValueError: the pass fails for real.
    """
    inputs = read_example(example_input)
    error, where = Exception("not tried"), start
    for ground in _GROUNDS[_GROUNDS.index(start) :]:
        try:
            prepared = _PREPARE[ground](subject, inputs)
            if prepared is not None:
                with prepared.ready():
                    return use(prepared), ground
        except NasError:
            raise
        except Exception as found:
            error, where = found, ground
    raise NasValueError(_failed(subject, inputs, task, where, error)) from error


def _failed(subject: Subject, inputs: Inputs, task: str, ground: Ground, error: Exception) -> str:
    inside = "".join(getattr(error, "__notes__", [])[:1])
    by_hand = "model.eval()(example)" if subject.sample is None else "space.build(sample).eval()(example)"
    mend = f"see that `{by_hand}` runs"
    if subject.sample is not None:
        mend += "; what cannot run is taken out of a space by `space.where(...)`"
    if ground != "real":
        mend += f"; its weights take more than {_MOST_BYTES / 2**30:.0f} GiB, so it was not run for real"
    kind = "real tensors" if ground == "real" else "tensors without numbers"
    return explain(
        f"the forward pass on {kind} failed{inside} ({type(error).__name__}: {error})",
        got=f"inputs of shape {inputs}",
        where=f"{task} {subject} with inputs of shape {inputs}",
        mend=mend,
    )


def _on_meta(subject: Subject, inputs: Inputs) -> ForwardPass:
    return ForwardPass("meta", subject.meta(), inputs.on("meta"), SeenOperations)


def _with_fakes(subject: Subject, inputs: Inputs) -> ForwardPass:
    fakes = FakeTensors()
    model = _with_tensors(subject.meta(), fakes.like, {})
    return ForwardPass("fake", model, inputs.converted(lambda tensor: fakes.like(tensor.detach())), fakes.computing)


def _for_real(subject: Subject, inputs: Inputs) -> ForwardPass | None:
    weights = {id(tensor): tensor for tensor in _own_tensors(subject.meta()) if not is_lazy(tensor)}
    if sum(tensor.numel() * tensor.element_size() for tensor in weights.values()) > _MOST_BYTES:
        return None
    model = subject.real()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    given = inputs.converted(lambda tensor: filled(tensor.detach()).to(device, copy=True))
    return ForwardPass("real", model, given, _computing_numbers)


@contextmanager
def _computing_numbers() -> Iterator[None]:
    """No module takes a way around its children, which nothing could count."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


_PREPARE: Mapping[Ground, Callable[[Subject, Inputs], ForwardPass | None]] = {
    "meta": _on_meta,
    "fake": _with_fakes,
    "real": _for_real,
}


# What passes are made of.


def subject_of(model: nn.Module) -> Subject:
    """A module, of which copies are made."""
    if not isinstance(model, nn.Module):
        raise NasTypeError(explain("profile needs an nn.Module or a ModelSpace", got=model))
    inner = inside_compiled(model)
    return Subject(name=type(inner).__name__, meta=lambda: meta_copy(inner), real=lambda: _real_copy(inner))


def sample_subject(space: ModelSpace, sample: Mapping[str, Answer]) -> Subject:
    """An architecture of a space, which is built for each ground."""

    def build(device: str | None) -> nn.Module:
        try:
            with untouched() if device is None else NoInitialisation():
                return space.build(sample, device=device).eval()
        except NasError:
            raise
        except Exception as error:
            raise NasValueError(
                explain(
                    f"the constructor failed ({type(error).__name__}: {error})",
                    where=f"{space.name} (sample {dict(sample)})",
                    mend="what cannot be built is taken out of a space by `space.where(...)`",
                )
            ) from error

    return Subject(name=space.name, meta=lambda: build("meta"), real=lambda: build(None), sample=sample)


def build_on_meta(space: ModelSpace, sample: Mapping[str, Answer]) -> nn.Module:
    """The architecture of a sample on the meta device, in evaluation mode; global random numbers stay as they are."""
    return sample_subject(space, sample).meta()


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy on the meta device, in evaluation mode; nothing of the model is copied or touched.

    Its hooks are copied with all that they hold on to: what they write stays with the copy.

    Raises:
        NasTypeError: not a module, or one that cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise NasTypeError(explain("profile needs an nn.Module or a ModelSpace", got=model))
    memo: Memo = {}
    return rebind(copy_module(model, memo, on_meta=True), memo, everything=True).eval()


def _real_copy(model: nn.Module) -> nn.Module:
    """A copy with the same numbers, and with noise where the model has none."""
    memo: Memo = {}
    return rebind(_with_tensors(model, _numbers_of, memo), memo, everything=True).eval()


def with_numbers(model: nn.Module) -> nn.Module:
    """A copy with the same numbers, and with noise where the model has none; its functions are those of the model."""
    return _with_tensors(model, _numbers_of, {})


def _numbers_of(tensor: Tensor) -> Tensor:
    return filled(tensor.detach()).clone()


def filled(tensor: Tensor) -> Tensor:
    """The tensor itself, or for one without numbers one with some: small noise, or ones for integers."""
    if has_numbers(tensor):
        return tensor
    if not tensor.is_floating_point():
        return torch.ones(tensor.shape, dtype=tensor.dtype)
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
    return (noise * 0.05).to(tensor.dtype)


def _with_tensors(model: nn.Module, convert: Callable[[Tensor], Tensor], memo: Memo) -> nn.Module:
    """A copy with other tensors in the place of these; lazy ones stay lazy."""
    for tensor in _own_tensors(model):
        if id(tensor) not in memo and not is_lazy(tensor):
            new = convert(tensor)
            memo[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
    return copy_module(model, memo)


def _own_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors in plain attributes, in containers too."""
    seen: set[int] = set()

    def inside(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (dict, list, tuple) and id(value) not in seen:
            seen.add(id(value))
            for item in value.values() if type(value) is dict else value:
                yield from inside(item)

    for module in model.modules():
        yield from inside(vars(module))


@contextmanager
def _globals_kept(model: nn.Module) -> Iterator[None]:
    """What hooks keep in global variables, lists, dicts and sets is as before in the end."""
    hooks = [hook for module in model.modules() for place in hook_dicts(module) for hook in place.values()]
    kept: list[tuple[dict[str, Any], str, Any, Any]] = []
    for hook in hooks:
        if isinstance(hook, FunctionType):
            for name in hook.__code__.co_names:
                value = hook.__globals__.get(name)
                if isinstance(value, list | dict | set):
                    kept.append((hook.__globals__, name, value, value.copy()))
                elif type(value) in (int, float, bool, str, type(None)) and name in hook.__globals__:
                    kept.append((hook.__globals__, name, value, None))
    try:
        yield
    finally:
        for names, name, value, content in reversed(kept):
            names[name] = value
            if isinstance(value, list):
                value[:] = content
            elif isinstance(value, dict | set):
                value.clear()
                value.update(content)
