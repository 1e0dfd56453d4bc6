"""The program that a space is made of: what is called or copied to construct, under whichever handler."""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import nullcontext
from typing import Any, Literal, TypeVar, final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nas._compat.called_modules import is_unfinished
from nas._compat.torch_internals import children_of
from nas.calls import explain_construction, explained, misfit
from nas.copying import Making, Seen
from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.random_state import untouched
from nas.space.discover import Discover
from nas.space.factories import begun, without_super
from nas.space.questions import Answering, Handler, asked_so_far, default_answer, handling, is_handled, label_scope
from nas.weightless import without_weights

M = TypeVar("M", bound=nn.Module)
H = TypeVar("H", bound=Handler)
Device = torch.device | str | int | None

_ARGUMENTS = "_nas_arguments"


@explained()
def model_space(cls: type[M]) -> type[M]:
    """Makes a module class with choices name its space: it remembers its constructor arguments.

    `Net(...)` is then the base model, every choice at its default, ready to run; and `ModelSpace(Net(...))` its space.

    Raises:
        NasTypeError: not an `nn.Module` class.

    Example:
        >>> from nas import ModelSpace, ValueChoice
        >>> @model_space
        ... class Net(nn.Module):
        ...     def __init__(self, classes: int = 10) -> None:
        ...         super().__init__()
        ...         self.head = nn.Linear(ValueChoice([4, 8], label="width"), classes)
        >>> Net(3).head.in_features, ModelSpace(Net(3)).size
        (4, 2)
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise NasTypeError(explain("@model_space decorates an nn.Module class", got=cls, mend="decorate the class"))
    explain_construction(cls)
    construct = cls.__init__

    @functools.wraps(construct)
    def init(self: M, *args: Any, **kwargs: Any) -> None:
        if is_handled():
            construct(self, *args, **kwargs)
            return
        with handling(Answering(default_answer)), begun():
            construct(self, *args, **kwargs)
        if type(self) is cls:
            self.__dict__[_ARGUMENTS] = (args, kwargs)

    cls.__init__ = init  # type: ignore[method-assign,assignment]  # the decorator's purpose
    return cls


class Mutator(ABC):
    """Changes a base model; the choices it asks become part of the model space.

    Example:
        >>> from nas import LayerChoice, ModelSpace
        >>> class Activation(Mutator):
        ...     def mutate(self, model):
        ...         replace_module(model, "1", LayerChoice([nn.ReLU, nn.GELU], label="activation"))
        >>> space = ModelSpace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), mutators=[Activation()])
        >>> space.build({"activation": 1})[1]
        GELU(approximate='none')
    """

    @abstractmethod
    def mutate(self, model: nn.Module) -> nn.Module | None:
        """Changes `model` in place (return None), or returns the module that takes its place."""


def as_device(value: object) -> torch.device | None:
    """Refuses anything but None and what torch knows as a device; whether it is there is another matter.

    Returns:
        The device.

    Raises:
        NasTypeError: neither a device, nor a name or a number of one.
        NasValueError: a name that torch does not know.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    if value is None or isinstance(value, torch.device):
        return value
    rule = "device must be a device of torch"
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise NasTypeError(explain(rule, got=value, mend='device="cpu"'))
    try:
        return torch.device(value)
    except RuntimeError as error:
        raise NasValueError(explain(rule, got=value, mend='device="cuda:0" or "cpu"')) from error


def as_mutators(mutators: object) -> tuple[Mutator, ...]:
    """What is given as mutators, if it is a list of them.

    Raises:
        NasTypeError: it is a single one, or something in it is none.
    """
    if isinstance(mutators, str | type | Mapping | Set) or not isinstance(mutators, Iterable):
        mend = f"mutators=[{type(mutators).__name__}(...)]"
        raise NasTypeError(explain("mutators is a list of instances of nas.Mutator", got=mutators, mend=mend))
    found = tuple(mutators)
    for one in found:
        if not isinstance(one, Mutator):
            name = one.__name__ if isinstance(one, type) else "Widen"
            mend = f"give an instance: {name}(...), of a class below nas.Mutator"
            raise NasTypeError(explain("mutators must be instances of nas.Mutator", got=one, mend=mend))
    return found


@explained()
def replace_module(model: nn.Module, name: str, new: nn.Module, *, alone: bool = False) -> nn.Module:
    """Puts a module in the place of the submodule with this dotted name, as in `named_modules()`.

    A submodule that is used in several places (one activation for all layers, say), of which `named_modules()` names
    the first alone, is replaced in all of them.

    Args:
        model: the model to change; the empty name stands for the model itself.
        name: such as "layer1.0.conv2".
        new: the module to put there.
        alone: whether the other places of a submodule that is used in several keep it.

    Returns:
        The model (for the empty name, `new`).

    Raises:
        NasValueError: there is no submodule of this name.
        NasTypeError: `new` is no module.

    Example:
        >>> act = nn.ReLU()
        >>> net = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act)
        >>> replace_module(net, "1", nn.Tanh())[3]
        Tanh()
    """
    if not isinstance(new, nn.Module):
        raise NasTypeError(
            explain(
                "only a module can replace a module",
                got=new,
                where=f"submodule {name!r}",
                mend="an instance: nn.ReLU(), not nn.ReLU",
            )
        )
    if not isinstance(model, nn.Module):
        raise NasTypeError(
            explain(
                "the submodules of a module are replaced",
                got=model,
                where="replace_module",
                mend="an instance of it, not its class",
            )
        )
    if not name:
        return new
    parent_name, _, leaf = name.rpartition(".")
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        names = [known for known in modules if known]
        rule = f"{type(model).__name__} has no submodule {name!r}; {close_names(name, names)}"
        raise NasValueError(explain(rule, got=name, mend="a name as in dict(model.named_modules())"))
    old = modules[name]
    places = [
        (parent, child) for parent in model.modules() for child, found in children_of(parent).items() if found is old
    ]
    for parent, child in [(modules[parent_name], leaf)] if alone else places:
        parent.register_module(child, new)
    return model


@final
class Program:
    """A function of answers to choices: a class, a function or a module, and mutators that change what comes of it.

    Args:
        source: what is called, or copied if it is a module.
        args, kwargs: what it is called with.
        mutators: applied in order.
        modules: whether it must build modules; else anything.

    Raises:
        NasTypeError: a source that is neither, or mutators that are none.
    """

    def __init__(
        self,
        source: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        mutators: Iterable[Mutator] = (),
        *,
        modules: bool = True,
    ) -> None:
        self.source, self.args, self.kwargs = _resolve(source, args, dict(kwargs or {}))
        self.modules = modules
        self.mutators = as_mutators(mutators)
        if (found := misfit(self.source, self.args, self.kwargs)) is not None:
            words, got, mend = found
            raise NasTypeError(explain(f"{self.name} {words}", got=got, mend=f"ModelSpace({self.name}, ...): {mend}"))
        self._checked = self._needs_numbers = False
        self._seen = Seen()
        self._idle = {id(mutator): mutator for mutator in self.mutators}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": None, "_idle": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._seen = Seen()

    @property
    def name(self) -> str:
        """The name of the class or function."""
        if isinstance(self.source, nn.Module):
            return type(self.source).__name__
        return str(getattr(self.source, "__qualname__", type(self.source).__name__))

    def construct(self, handler: Handler, device: Device = None) -> Any:
        """Runs the program with another handler answering its choices: how a supernet is made of it.

        Args:
            handler: answers every choice.
            device: where the parameters are made.

        Raises:
            NasTypeError: the program or a mutator builds something that is no module.
        """
        making = Making(self._seen, on_meta=device is not None and torch.device(device).type == "meta")
        with handling(handler), nullcontext() if device is None else torch.device(device), making.active():
            if isinstance(self.source, nn.Module):
                model: object = making.copied(self.source)
            else:
                args, kwargs = making.copied_arguments((self.args, self.kwargs))
                with begun():
                    model = self.source(*args, **kwargs)
            if is_unfinished(model):
                raise without_super(type(model))
            if not isinstance(model, nn.Module):
                if not self.modules:
                    return model
                raise NasTypeError(
                    explain(
                        "the source of a model space must build an nn.Module",
                        got=model,
                        where=self.name,
                        mend="for a search without modules, hand the function to nas.search_space",
                    )
                )
            for mutator in self.mutators:
                model = self._mutated(model, mutator)
            return making.finish(model, device)

    def _mutated(self, model: nn.Module, mutator: Mutator) -> nn.Module:
        idle = id(mutator) in self._idle
        before = (_look(model), asked_so_far()) if idle else ()
        with label_scope(type(mutator).__name__):
            changed = mutator.mutate(model)
        if changed is not None and not isinstance(changed, nn.Module):
            raise NasTypeError(
                explain("mutate must return an nn.Module or None", got=changed, where=type(mutator).__name__)
            )
        model = model if changed is None else changed
        if idle and before != (_look(model), asked_so_far()):
            self._idle.pop(id(mutator), None)
        return model

    @property
    def idle(self) -> str:
        """The mutators that have changed nothing and asked nothing so far, with what they were told to look for."""
        return ", ".join(map(_described, self._idle.values()))

    def without_weights(
        self, make: Callable[[], H], *, serves: Callable[[nn.Module], bool] | None = None, alone: bool = True
    ) -> tuple[Any, H, Literal["meta", "cpu"]]:
        """Runs the program without weights, on the meta device or, where it needs numbers, on the CPU.

        Args:
            make: makes the handler that answers every choice; see `nas.weightless.without_weights`.
            serves: whether the module that was built on the meta device will do; where not, it is built on the CPU.
            alone: whether no other thread draws random numbers, so that the global generators can be put back.

        Returns:
            The module, the handler that has answered, and the device.
        """
        with untouched() if alone else nullcontext():
            return without_weights(self.construct, make, serves)

    def ask(self, make: Callable[[], Discover]) -> None:
        """Runs the program once, for discovery; the first time twice, for it must do the same again.

        Raises:
            NasValueError: it does not.
        """
        if self._needs_numbers:  # The meta device has none, so it would fail there each time.
            with untouched():
                self.construct(make(), "cpu")
            return
        module, handler, where = self.without_weights(make)
        if not self._checked:
            self._needs_numbers = where == "cpu"
            self._checked = True
            self._check_function(module, handler)

    def _check_function(self, module: object, handler: Discover) -> None:
        again, answering, _ = self.without_weights(lambda: Answering(default_answer))
        asked, shapes, others = set(handler.default), _shapes(module), _shapes(again)
        differences = [
            f"the choice {label!r} is asked in one of the two" for label in sorted(asked ^ set(answering.answers))
        ]
        differences += [
            f"{name!r} is {one} in one and {other} in the other"
            for name, one in shapes.items()
            if one != (other := others.get(name, "not there"))
        ]
        if differences:
            raise NasValueError(
                explain(
                    "a constructor must be a function of its answers, but two constructions under the same ones "
                    "differ: " + "; ".join(differences[:3]),
                    where=self.name,
                    mend="let it depend on nothing that changes from one construction to the next (a class attribute, "
                    "a global, a random number)",
                )
            )


def _described(mutator: Mutator) -> str:
    """Its class and its attributes."""
    kept = (
        f"{k}={v.__name__ if isinstance(v, type) else repr(v)}" for k, v in getattr(mutator, "__dict__", {}).items()
    )
    return f"{type(mutator).__name__}({', '.join(kept)})"


def _look(model: nn.Module) -> tuple[object, ...]:
    """What a mutator may change: which modules stand where, and what they say of themselves."""
    return tuple((name, id(module)) for name, module in model.named_modules(remove_duplicate=False)), repr(model)


def _shapes(module: object) -> dict[str, str]:
    """The shapes of its parameters and buffers, in words."""
    if not isinstance(module, nn.Module):
        return {}
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    return {name: "lazy" if is_lazy(tensor) else str(tuple(tensor.shape)) for name, tensor in tensors}


def _resolve(
    source: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[nn.Module | Callable[..., object], tuple[Any, ...], dict[str, Any]]:
    """What is called or copied to construct, and with which arguments."""
    if isinstance(source, nn.Module):
        if args or kwargs:
            raise NasTypeError(
                explain(
                    "arguments go to a class or function, but the source is a module",
                    got=(args, kwargs),
                    mend=f"ModelSpace({type(source).__name__}, ...), the class with them",
                )
            )
        remembered = vars(source).get(_ARGUMENTS)
        return (type(source), *remembered) if remembered is not None else (source, (), {})
    if not callable(source):
        raise NasTypeError(
            explain(
                "the source of a model space is a module, a module class or a function that builds one",
                got=source,
                mend=f"nas.model_zoo.space({source!r}) for one of the zoo"
                if isinstance(source, str)
                else "ModelSpace(Net) for a class that asks choices in its constructor",
            )
        )
    return source, args, kwargs
