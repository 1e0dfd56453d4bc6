"""What a user's code is, as digests by name: so that a search that is gone on with can say what has changed in it."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any, final

from nas.protocols import Remembers, arguments_of

VERSION = "Python"
"""The entry that says which Python the digests are of: another one compiles the same code to something else."""


def fingerprint(*roots: object) -> dict[str, str]:
    """Digests of the functions and methods of the user's that these objects are made of, and of settings in plain text.

    Functions are followed into those that they call by name, classes into their methods and bases. What is installed,
    and this package, is left out. Comments, formatting and line numbers do not count. Of the globals that a function
    reads those in capitals count, but for what the code of their file changes itself, a cache or a counter say.

    Example:
        >>> def train(model):
        ...     return 1.0
        >>> before = fingerprint(train)
        >>> def train(model):
        ...     return 2.0
        >>> after = fingerprint(train)
        >>> [name for name in before if before[name] != after[name]]
        ['train']
    """
    reader = _Reader()
    for root in roots:
        reader.read(root)
    digests = {
        name: hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()[:12] for name, parts in reader.parts.items()
    }
    return {VERSION: f"{sys.version_info.major}.{sys.version_info.minor}", **digests, **reader.settings}


def changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between two fingerprints, a line each; between two versions of Python the settings alone."""
    comparable = before.get(VERSION) == now.get(VERSION)
    lines = []
    for name in dict.fromkeys([*before, *now]):
        then, new = before.get(name), now.get(name)
        if name == VERSION or then == new:
            continue
        if name.startswith("setting "):
            lines.append(f"{name}: {then or 'absent'} then, {new or 'absent'} now")
        elif comparable:
            lines.append(
                f"code of {name}: {'new' if then is None else 'not used any more' if new is None else 'changed'}"
            )
    return lines


_MOST = 32
"""Entries of a table that are looked at; a benchmark has hundreds of thousands."""


@final
class _Reader:
    def __init__(self) -> None:
        self.parts: dict[str, list[str]] = {}
        self.settings: dict[str, str] = {}
        self._seen: set[int] = set()
        self._kept: list[object] = []  # An id means nothing once its object is gone.

    def read(self, thing: object) -> None:
        if id(thing) in self._seen:
            return
        self._seen.add(id(thing))
        self._kept.append(thing)
        # What cannot be looked at (a property that raises, a class of C) has no say: no search fails by that.
        with suppress(Exception):
            self._read(thing)

    def _read(self, thing: object) -> None:
        if isinstance(thing, functools.partial):
            self.read(thing.func)
        elif isinstance(thing, MethodType):
            self.read(thing.__func__)
            self.read(thing.__self__)
        elif isinstance(thing, FunctionType):
            self._read_function(thing)
        elif isinstance(thing, type):
            self._read_class(thing)
        elif isinstance(thing, Remembers):
            self._read_class(type(thing))
            for value in arguments_of(thing).values():
                self._read_parts(value)
        elif not inspect.ismodule(thing) and not inspect.isbuiltin(thing):
            self._read_class(type(thing))
            self._read_settings(thing)

    def _read_parts(self, value: object) -> None:
        """The code of an argument, or of what is in a list or dict of them; its settings are not a matter of code."""
        if isinstance(value, Mapping | list | tuple):
            parts = value.values() if isinstance(value, Mapping) else value
            for part in islice(parts, _MOST):
                self._read_parts(part)
        elif isinstance(value, FunctionType | type | functools.partial | MethodType | Remembers):
            self.read(value)
        elif not inspect.ismodule(value) and not inspect.isbuiltin(value):
            self._read_class(type(value))

    def _read_function(self, function: FunctionType) -> None:
        inner = inspect.unwrap(function)
        function = inner if isinstance(inner, FunctionType) else function  # A wrapper around a builtin has the code.
        code = function.__code__
        if not _is_users(code.co_filename):
            return
        text = [_describe(code), repr(_plain(function.__defaults__)), repr(_plain(function.__kwdefaults__))]
        for name in sorted(set(_names(code))):
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType | type | functools.partial):
                self.read(value)
            elif name.isupper() and name not in _changed_by_code(function.__globals__):
                text.append(f"{name}={_plain(value)!r}")
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # Not filled yet.
                continue
            if isinstance(value, FunctionType | type | functools.partial):
                self.read(value)
        name = function.__qualname__.rpartition("<locals>.")[2]
        self.parts.setdefault(name, []).append(hashlib.sha256("\0".join(text).encode()).hexdigest())

    def _read_class(self, cls: type) -> None:
        if not _is_users(_file_of(cls)):
            return
        for base in cls.__mro__[1:]:
            self.read(base)
        for value in vars(cls).values():
            inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            inner = inner.fget if isinstance(inner, property) else inner
            if isinstance(inner, FunctionType):
                self.read(inner)

    def _read_settings(self, thing: object) -> None:
        """The arguments of its constructor, where it keeps them under their names, and functions among them."""
        try:
            parameters = inspect.signature(type(thing)).parameters.values()
        except (TypeError, ValueError):
            return
        held = getattr(thing, "__dict__", {})
        owner = type(thing).__name__
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                found = {k: v for kept in held.values() if isinstance(kept, dict) for k, v in kept.items()}
            else:
                value = held.get(parameter.name, held.get("_" + parameter.name, _NOTHING))
                if isinstance(value, FunctionType | type | functools.partial | MethodType):
                    self.read(value)
                found = dict(_flat(parameter.name, value))
            for name, value in found.items():
                plain = _plain(value)
                if isinstance(name, str) and plain is not _NOTHING:
                    self.settings[f"setting {owner}.{name}"] = repr(plain)[:200]


_NOTHING = type("Nothing", (), {"__repr__": lambda self: "..."})()


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield f"{name}.{field.name}", getattr(value, field.name, _NOTHING)
    else:
        yield name, value


def _plain(value: object) -> object:
    """A value that reads the same in any process; anything else is as good as nothing."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return _NOTHING


def _describe(code: CodeType) -> str:
    constants = []
    for position, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            constants.append(_describe(constant))
        elif isinstance(constant, frozenset):
            constants.append(repr(sorted(map(repr, constant))))
        elif position or not isinstance(constant, str):  # The first is the docstring.
            constants.append(repr(constant))
    return repr((code.co_code, code.co_names, code.co_varnames, constants))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


_CHANGING = frozenset(
    [
        "append",
        "appendleft",
        "extend",
        "insert",
        "add",
        "update",
        "setdefault",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "discard",
        "clear",
        "sort",
        "reverse",
        "move_to_end",
        "subtract",
        "__setitem__",
        "__delitem__",
    ]
)
"""Methods that change the list, dict or set that they belong to."""


def _changed_by_code(module: Mapping[str, Any]) -> set[str]:
    """The globals that functions of a file change: they say how far a process has come, not what the code is."""
    found: set[str] = set()
    for value in list(module.values()):
        members = vars(value).values() if isinstance(value, type) else (value,)
        for member in members:
            inner: object = member.fget if isinstance(member, property) else member
            inner = inner.__func__ if isinstance(inner, staticmethod | classmethod) else inner
            while not isinstance(inner, type) and "__wrapped__" in getattr(inner, "__dict__", {}):
                inner = inner.__dict__["__wrapped__"]
            if isinstance(inner, FunctionType) and inner.__globals__ is module:
                found |= _changed_in(inner.__code__)
    return found


@functools.lru_cache(maxsize=4096)
def _changed_in(code: CodeType) -> frozenset[str]:
    """The globals that a function assigns, or changes: `SEEN[key] = 1`, `SEEN.append(1)`, `SEEN[key].add(1)`."""
    found: set[str] = set()
    loaded: dict[tuple[int | None, int | None], str] = {}
    for step in dis.get_instructions(code):
        place = step.positions and (step.positions.lineno, step.positions.col_offset)
        if step.opname == "LOAD_GLOBAL" and place:
            loaded[place] = step.argval
        elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            found.add(step.argval)
        elif place in loaded and (  # An expression begins where its first name stands.
            step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR", "DELETE_ATTR")
            or (step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in _CHANGING)
        ):
            found.add(loaded[place])
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _changed_in(constant)
    return frozenset(found)


def is_users_class(cls: type) -> bool:
    """Whether a class is neither installed nor of this package."""
    return _is_users(_file_of(cls))


def _file_of(cls: type) -> str:
    module: Any = sys.modules.get(cls.__module__)
    if module is None or cls.__module__ in sys.builtin_module_names:
        return "<frozen>" if module is not None else "<unknown>"
    return getattr(module, "__file__", None) or ("<frozen>" if cls.__module__ != "__main__" else "<main>")


@functools.cache
def _is_users(file: str) -> bool:
    if file.startswith("<frozen"):
        return False
    if file.startswith("<"):
        return True
    ours = str(Path(__file__).resolve().parents[1])
    paths = {file, os.path.realpath(file)}
    if any({"site-packages", "dist-packages"} & set(Path(path).parts) for path in paths):
        return False
    return not any(
        path.startswith(folder + os.sep) for path in paths for folder in (ours, *_installed(tuple(sys.path)))
    )


@functools.cache
def _installed(search: tuple[str, ...]) -> tuple[str, ...]:
    """The folders of what is installed: Python's own, those of sites, and any on the path that an installer filled."""
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    folders += [entry for entry in search if entry and any(Path(entry).glob("*.dist-info"))]
    return tuple({os.path.realpath(folder) for folder in folders} | set(folders))
