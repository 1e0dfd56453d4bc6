"""What a strategy and an evaluator were made with, as text by name that is the same in any process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import math
import numbers
import os
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, final

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from nas.domains import Domain
from nas.protocols import Remembers, arguments_of, bound_arguments
from nas.records.fingerprint import fingerprint, is_users_class
from nas.space import ModelSpace, SearchSpace

DATA = " ~"
"""Ends the name of numbers in data: others are said, and no reason to refuse."""

_DIGEST = re.compile(r" \([0-9a-f]{8}\)$")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_FOLDER = re.compile(r"(^|_)(dir|dirpath|directory|folder|path|root|file|filename)($|_)")
"""Names of folders and files, which may move."""

_LEFT_OUT = "left out"

_DEEPEST = 8
_MOST = 32
"""Entries of a table that are looked at; a benchmark has hundreds of thousands."""
_LONGEST = 160


def parameters(thing: Remembers, *, free: Set[str] = frozenset()) -> dict[str, str]:
    """The arguments of a strategy or evaluator: its class under "", each argument under its name, parts under theirs.

    Numbers, words, domains and spaces stand for themselves; functions and classes for their names and code; all other
    objects for their class and the arguments of its constructor, as far as they keep them under their names.

    Args:
        thing: that remembers its arguments.
        free: arguments that may change, besides those of its class.

    Example:
        >>> from nas.protocols import Strategy
        >>> class Halves(Strategy):
        ...     def __init__(self, rate=0.5, *, sizes=(1, 2)):
        ...         pass
        ...     def start(self, task): ...
        ...     def ask(self, number): ...
        ...     def tell(self, trial): ...
        >>> parameters(Halves(sizes=[1, 4]))
        {'': 'Halves', 'rate': '0.5', 'sizes.0': '1', 'sizes.1': '4'}
    """
    return dict(_Describer(free).describe_remembering(thing, "", 0))


def space_parameters(space: ModelSpace) -> dict[str, str]:
    """What a space is called with, in the same way: by the names of its class or function.

    Example:
        >>> from nas.space import ValueChoice
        >>> class Net(torch.nn.Linear):
        ...     def __init__(self, classes=10, *, bias=True):
        ...         super().__init__(ValueChoice([4, 8], label="width"), classes, bias)
        >>> space_parameters(ModelSpace(Net, 3))
        {'': 'Net', 'classes': '3', 'bias': 'True'}
    """
    program, describer = space.program, _Describer(frozenset())
    found = {"": space.name}
    if isinstance(program.source, torch.nn.Module):
        return found | dict(describer.describe(program.source, "model"))
    # A function that does not say what it takes leaves it at its name.
    with suppress(TypeError, ValueError):
        for name, value in bound_arguments(program.source, program.args, program.kwargs).items():
            found |= dict(describer.describe(value, name))
    return found


def changed_parameters(before: Mapping[str, str], now: Mapping[str, str], *, digests: bool = True) -> list[str]:
    """What differs, a line for each argument; a line about numbers in data ends with `DATA`.

    Args:
        before: the parameters then.
        now: the parameters now.
        digests: whether those of code count.
    """
    owner = now.get("", "")
    if before.get("") != owner:
        return [f"{before.get('')} -> {owner}"]
    if not digests:
        before, now = ({name: _DIGEST.sub("", text) for name, text in found.items()} for found in (before, now))
    lines = []
    for name in sorted({*before, *now}):
        then, new = before.get(name, _LEFT_OUT), now.get(name, _LEFT_OUT)
        inside_another = any(before.get(outer) != now.get(outer) for outer in _outer(name))
        # An object of another release of its library may have other settings.
        inside_the_same = _LEFT_OUT in (then, new) and name.rpartition(".")[0] in before
        if then != new and not inside_another and not (inside_the_same and "." in name):
            end = DATA if of_data(name) else ""
            lines.append(f"{owner}.{name.removesuffix(DATA)}: {then} -> {new}{end}")
    return lines


def of_data(name: str) -> bool:
    """Whether a name, or a line about it, is of numbers in data."""
    return name.endswith(DATA)


def _outer(name: str) -> Iterator[str]:
    """The names of what an argument is a part of."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts)))


@final
class _Describer:
    """Walks through arguments; each thing becomes lines (name, text)."""

    def __init__(self, free: Set[str]) -> None:
        self._free = free
        self._around: list[int] = []

    def describe_remembering(self, thing: Remembers, name: str, depth: int) -> Iterator[tuple[str, str]]:
        yield name, _class_name(type(thing))
        for argument, value in thing.decisive(arguments_of(thing)).items():
            if name or argument not in self._free:
                # Domains are compared as a part of the search space.
                searched = not name and isinstance(value, Domain | ModelSpace)
                inner = f"{name}.{argument}" if name else argument
                yield from [(inner, "searched")] if searched else self._describe(value, inner, depth + 1, data=False)

    def describe(self, thing: Any, name: str) -> Iterator[tuple[str, str]]:
        return self._describe(thing, name, 1, data=False)

    def _describe(self, thing: Any, name: str, depth: int, *, data: bool) -> Iterator[tuple[str, str]]:
        text = _plain(thing)
        if text is not None:
            yield name, text
        elif depth > _DEEPEST or id(thing) in self._around:
            yield name, _class_name(type(thing))
        else:
            self._around.append(id(thing))
            found: list[tuple[str, str]] = []
            # What cannot be looked at has no say: no search fails by that.
            with suppress(Exception):
                for line in self._describe_inside(thing, name, depth, data=data):
                    found.append(line)
            yield from found or [(name, _class_name(type(thing)))]
            self._around.pop()

    def _describe_inside(self, thing: Any, name: str, depth: int, *, data: bool) -> Iterator[tuple[str, str]]:
        if isinstance(thing, Remembers):
            yield from self.describe_remembering(thing, name, depth)
        elif isinstance(thing, functools.partial):
            yield name, _code_name(thing.func)
            bound: dict[Any, Any] = {**dict(enumerate(thing.args)), **thing.keywords}
            yield from self._each(bound, f"{name}.bound", depth, data=data)
        elif isinstance(thing, FunctionType | BuiltinFunctionType | type):
            yield name, _code_name(thing)
        elif isinstance(thing, MethodType):
            yield name, _code_name(thing.__func__)
            yield from self._describe(thing.__self__, f"{name}.self", depth + 1, data=data)
        elif isinstance(thing, Mapping):
            yield from self._each(thing, name, depth, data=data)
        elif isinstance(thing, list | tuple):
            yield from self._each(dict(enumerate(thing[:_MOST])), name, depth, data=data, length=len(thing))
        elif isinstance(thing, Set):
            inner = [dict(self._describe(item, "", depth + 1, data=data)) for item in thing]
            yield name, _short("{" + ", ".join(sorted(map(str, inner))) + "}")
        elif isinstance(thing, Tensor | numpy.ndarray):
            yield from _numbers(thing, name, data=data)
        else:
            yield from self._describe_object(thing, name, depth, data=data)

    def _each(
        self, entries: Mapping[Any, Any], name: str, depth: int, *, data: bool, length: int | None = None
    ) -> Iterator[tuple[str, str]]:
        length = len(entries) if length is None else length
        if length > _MOST or not length:
            yield name, f"{length} entries"
        for key, value in itertools.islice(entries.items(), _MOST):
            yield from self._describe(value, f"{name}.{_short(str(key))}", depth + 1, data=data)

    def _describe_object(self, thing: Any, name: str, depth: int, *, data: bool) -> Iterator[tuple[str, str]]:
        if not hasattr(thing, "__dict__"):  # A value like a date or a time.
            yield name, _short(_ADDRESS.sub("", repr(thing)))
            return
        yield name, _class_name(type(thing))
        data = data or isinstance(thing, Dataset | DataLoader)
        if isinstance(thing, DataLoader):
            parts: dict[str, Any] = {
                "batch_size": thing.batch_size,
                "drop_last": thing.drop_last,
                "sampler": type(thing.sampler),
                "batch_sampler": None if thing.batch_sampler is None else type(thing.batch_sampler),
                "collate_fn": thing.collate_fn,
                "dataset": thing.dataset,
            }
        elif isinstance(thing, Subset):  # Which samples these are may be drawn anew each time.
            parts = {"dataset": thing.dataset}
        elif isinstance(thing, TensorDataset):
            parts = dict(enumerate(thing.tensors))  # type: ignore[arg-type]  # their numbers are their names
        else:
            parts = _settings(thing)
        if isinstance(thing, torch.nn.Module) and next(thing.children(), None) is not None:
            yield f"{name}.layers", _short(_ADDRESS.sub("", repr(thing)))
        if isinstance(thing, Dataset | DataLoader):
            with suppress(Exception):
                yield f"{name}.length", str(len(thing))  # type: ignore[arg-type]  # else it has none
        for part, value in parts.items():
            if not _is_place(part, value):
                yield from self._describe(value, f"{name}.{part}", depth + 1, data=data)


def _is_place(name: object, value: object) -> bool:
    is_text = isinstance(value, str) and isinstance(name, str)
    return isinstance(value, os.PathLike) or bool(is_text and _FOLDER.search(str(name)))


_ABSENT: Any = object()


def _settings(thing: Any) -> dict[str, Any]:
    """The arguments of an object's constructor, where it keeps them under their names, or an attribute of it does."""
    if is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in fields(thing) if field.init}
    held: dict[str, Any] = getattr(thing, "__dict__", {})
    found = {}
    for cls in type(thing).__mro__:
        for name, kind in _parameters(cls):
            if name in found or "seed" in name or "generator" in name:
                continue
            if kind is inspect.Parameter.VAR_KEYWORD:
                continue
            value = _look_up(held, name)
            if value is _ABSENT:
                inner = (_inside(value) for key, value in held.items() if not key.startswith("_remembered"))
                value = next((v for attributes in inner if (v := _look_up(attributes, name)) is not _ABSENT), _ABSENT)
            if value is not _ABSENT:
                found[name] = value
    return found


@functools.lru_cache(maxsize=256)
def _parameters(cls: type) -> tuple[tuple[str, Any], ...]:
    init = vars(cls).get("__init__")
    if not isinstance(init, FunctionType):
        return ()
    return tuple((name, p.kind) for name, p in list(inspect.signature(init).parameters.items())[1:])


def _look_up(held: Mapping[str, Any], name: str) -> Any:
    return held.get(name, held.get(f"_{name}", _ABSENT))


def _inside(value: Any) -> Mapping[str, Any]:
    """The attributes of an attribute: of a tuple with names, of a dict of arguments, of an object."""
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple):
        return dict(zip(getattr(value, "_fields", ()), value, strict=False))
    if isinstance(value, type | FunctionType | MethodType | torch.nn.Module | Dataset | DataLoader):
        return {}
    held: Mapping[str, Any] = getattr(value, "__dict__", {})
    return held


def _plain(value: Any) -> str | None:
    """Words and numbers; a number that is whole is the same as an int and as a float."""
    if value is None or isinstance(value, bool | str | bytes):
        return _short(repr(value))
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, numbers.Integral | numpy.bool_):
        return str(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    if isinstance(value, Domain | torch.dtype | torch.device | torch.Size | range | slice):
        return _short(repr(value))
    if isinstance(value, ModelSpace):
        return _short(f"{value.name} {sorted(value.search_space.describe().items())}")
    if isinstance(value, SearchSpace):
        return _short(str(sorted(value.describe().items())))
    if isinstance(value, torch.Generator | numpy.random.Generator | numpy.random.RandomState):
        return type(value).__name__
    return None


def _numbers(values: Any, name: str, *, data: bool) -> Iterator[tuple[str, str]]:
    """Shape and dtype, and a look at some of the numbers."""
    yield name, f"{tuple(values.shape)} of {values.dtype}"
    shape = tuple(values.shape)
    count = math.prod(shape)
    if not shape or not count:
        chosen = [] if not count else [values.item()]
    else:
        places = numpy.unique(numpy.linspace(0, count - 1, min(count, 64)).astype("int64"))
        indices = numpy.unravel_index(places, shape)
        is_tensor = isinstance(values, Tensor)
        chosen = values[tuple(torch.from_numpy(index) for index in indices) if is_tensor else indices].tolist()
    yield f"{name}.numbers{DATA if data else ''}", hashlib.sha256(repr(chosen).encode()).hexdigest()[:8]


def _class_name(cls: type) -> str:
    """The name of a class; of what is installed, with its library."""
    name = cls.__qualname__.rpartition("<locals>.")[2]
    library = cls.__module__.partition(".")[0]
    return name if is_users_class(cls) or library in ("nas", "builtins") else f"{library}.{name}"


def _code_name(code: Any) -> str:
    """The name of a function or class, and of the user's a digest of the code."""
    if isinstance(code, type):
        name = _class_name(code)
    else:
        name = getattr(code, "__qualname__", type(code).__qualname__).rpartition("<locals>.")[2]
    digests = {key: value for key, value in fingerprint(code).items() if key != "Python"}
    if not digests:
        return name
    return f"{name} ({hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:8]})"


def _short(text: str) -> str:
    """A text that is too long to be shown ends with a digest of it."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
