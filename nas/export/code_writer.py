"""Objects as Python expressions, with the imports and the definitions that these need."""

from __future__ import annotations

import ast
import copyreg
import enum
import functools
import keyword
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, final

import numpy
import torch
from torch import Tensor, nn

from nas.checks import as_plain
from nas.errors import NasTypeError, explain
from nas.export.code_places import Places, home_of, lookup
from nas.export.code_sources import LocalModule, attributes_of

_LARGEST = 1000
"""Numbers in an array that is written out, and letters of a global that need not be."""
_RESTORED = '''
def _restored(made, state=None, items=(), pairs=()):
    """An object put together from its state, as copies are; its constructor does not run."""
    if hasattr(made, "__setstate__") and state is not None:
        made.__setstate__(state)
    elif state is not None:
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        if attributes:
            vars(made).update(attributes)
        for name, value in (slots or {}).items():
            object.__setattr__(made, name, value)
    for item in items:
        made.append(item)
    for key, value in pairs:
        made[key] = value
    return made
'''


@final
class Writer:
    """Writes expressions for objects.

    Args:
        reserved: name -> what it stands for in the file in any case.
    """

    def __init__(self, reserved: dict[str, object]) -> None:
        self._names: dict[str, object] = dict(reserved)
        self._reserved = frozenset(reserved)
        self._imports: dict[str, None] = {}
        self._places = Places()
        self._modules: dict[str, LocalModule] = {}
        self._definitions: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self._needs: dict[str, list[str]] = {}
        self._captured: dict[str, str] = {}
        self._namespaces: dict[tuple[str, str], set[str]] = {}
        self._open: list[int] = []
        self._current: list[str] = []
        self._restores = False
        self._defined = 0

    # What there is to write in the end.

    @property
    def imports(self) -> list[str]:
        """The lines, those from `__future__` apart."""
        return sorted(self._imports, key=lambda line: (not line.startswith("import "), line))

    @property
    def future(self) -> str:
        """What must stand at the very top."""
        late = any(self._modules[name].postpones_annotations for name, _ in self._definitions)
        return "from __future__ import annotations\n\n" if late else ""

    @property
    def definitions(self) -> str:
        """The statements, in an order in which they run."""
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in order and name not in under_way:
                under_way.add(name)
                for other in self._needs.get(name, ()):
                    visit(other)
                order[name] = None

        under_way: set[str] = set()
        for name in [*self._needs, *(name for name, _ in self._definitions)]:
            visit(name)
        blocks = [_RESTORED] if self._restores else []
        for module in order:
            lines = {part for (home, _), parts in self._definitions.items() if home == module for part in parts}
            blocks += [f"\n{text}\n" for _, text in sorted(lines)]
        blocks += [f"\n{alias} = {name}\n" for name, alias in self._captured.items()]
        return "\n".join(blocks)

    # Objects.

    def expression(self, value: Any) -> str:
        """An object as an expression.

        Raises:
            NasTypeError: there is none for it.
        """
        if id(value) in self._open:
            raise _cannot(value, "it holds itself")
        self._open.append(id(value))
        try:
            return self._expression(value)
        finally:
            self._open.pop()

    def _expression(self, value: Any) -> str:
        kind = type(value)
        if value is None or value is Ellipsis or kind in (bool, int, str, bytes):
            return repr(value)
        if kind is float:
            return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
        if kind in (tuple, list, set, frozenset):
            return self._sequence(value)
        if kind is dict:
            return "{" + ", ".join(f"{self.expression(k)}: {self.expression(v)}" for k, v in value.items()) + "}"
        if isinstance(value, nn.Module):
            raise _cannot(value, "it is a module with weights")
        if isinstance(value, Tensor | numpy.ndarray | numpy.generic):
            return self._numbers(value)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return f"{self._module(torch)}.{str(value).removeprefix('torch.')}"
        if isinstance(value, ModuleType):
            return self._module(value)
        if isinstance(value, type | FunctionType | BuiltinFunctionType) and not _is_bound(value):
            return self.reference(value)
        if kind is functools.partial:
            given = [value.func, *value.args]
            keywords = [f"**{{{k!r}: {self.expression(v)}}}" for k, v in value.keywords.items()]
            inner = ", ".join([*map(self.expression, given), *keywords])
            return f"{self.reference(functools.partial)}({inner})"
        if isinstance(value, PurePath):
            return f"{self.reference(Path if isinstance(value, Path) else kind)}({str(value)!r})"
        if isinstance(value, enum.Enum) and value.name.isidentifier():
            return f"{self.reference(kind)}.{value.name}"
        plain = as_plain(value)
        return self._reduced(value) if plain is value else self.expression(plain)

    def _sequence(self, value: Any) -> str:
        inner = ", ".join(map(self.expression, value))
        if isinstance(value, tuple):
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if isinstance(value, list):
            return f"[{inner}]"
        if isinstance(value, set) and value:
            return f"{{{inner}}}"
        return f"{type(value).__name__}({f'[{inner}]' if inner else ''})"

    def _numbers(self, value: Any) -> str:
        if isinstance(value, numpy.generic):
            if isinstance(value, numpy.number | numpy.bool_):
                name = "bool_" if isinstance(value, numpy.bool_) else value.dtype.name  # numpy 1 has no `numpy.bool`
                return f"{self._module(numpy)}.{name}({self.expression(value.item())})"
            raise _cannot(value, "it is no number")
        if type(value) not in (Tensor, numpy.ndarray) or getattr(value, "requires_grad", False):
            raise _cannot(value, "it is more than an array of numbers")
        if value.reshape(-1).shape[0] > _LARGEST:
            raise _cannot(value, f"it has more than {_LARGEST} numbers")
        if isinstance(value, Tensor) and (value.device.type != "cpu" or value.layout != torch.strided):
            raise _cannot(value, "it is not on the CPU, or sparse")
        if isinstance(value, numpy.ndarray) and value.dtype.kind not in "biufc":
            raise _cannot(value, "it holds other things than numbers")
        numbers, shape = self.expression(value.reshape(-1).tolist()), self.expression(tuple(value.shape))
        if isinstance(value, Tensor):
            return f"{self._module(torch)}.tensor({numbers}, dtype={self._expression(value.dtype)}).reshape({shape})"
        return f"{self._module(numpy)}.array({numbers}, dtype={value.dtype.name!r}).reshape({shape})"

    def _reduced(self, value: Any) -> str:
        """As a copy would be made of it."""
        try:
            parts = value.__reduce_ex__(2)
        except Exception as error:
            raise _cannot(value, str(error)) from error
        if isinstance(parts, str):
            return self.reference(value)
        function, args, state, items, pairs = (*parts, None, None, None)[:5]
        if function is copyreg.__newobj__:  # type: ignore[attr-defined]  # the stubs lack it
            made = f"{self.expression(args[0])}.__new__({', '.join(map(self.expression, args))})"
        else:
            made = f"{self.expression(function)}({', '.join(map(self.expression, args))})"
        if state is None and items is None and pairs is None:
            return made
        self._restores = True
        rest = {"state": state, "items": None if items is None else list(items), "pairs": pairs and list(pairs)}
        return f"_restored({', '.join([made, *(f'{k}={self.expression(v)}' for k, v in rest.items() if v)])})"

    # Names.

    def reference(self, value: Any) -> str:
        """A class or function by its name: imported, or defined in the file.

        Raises:
            NasTypeError: it has none that could be looked up.
        """
        found = home_of(value)
        if found is None:
            raise _cannot(value, "it has no name at the top of a module by which it could be imported")
        module, name = found
        if module.__name__ == "builtins":
            return name
        top, dot, rest = name.partition(".")
        if self._places.can_import(module):
            return self._imported(module.__name__, top, lookup(module, top)) + dot + rest
        self._define(module, top)
        return self._captured.get(top, top) + dot + rest

    def _module(self, module: ModuleType) -> str:
        if not self._places.can_import(module):
            raise _cannot(module, "no fresh process can import it")
        return self._imported("", module.__name__, module)

    def _imported(self, home: str, name: str, value: object) -> str:
        """Imports something under a name that is free; that name."""
        wanted = name.replace(".", "_")
        number, alias = 1, wanted
        while self._names.setdefault(alias, value) is not value:
            number += 1
            alias = f"{wanted}_{number}"
        line = f"from {home} import {name}" if home else f"import {name}"
        self._imports[line if alias == name else f"{line} as {alias}"] = None
        return alias

    def _claim(self, name: str, value: object, home: str) -> None:
        """Takes a name as it is, for a statement that is written as it is."""
        if name in self._reserved and self._names[name] is not value:
            self._captured[name] = f"_{name}"
        elif self._names.setdefault(name, value) is not value:
            raise _cannot(value, f"another thing is called {name!r} too, outside of {home}")

    # Statements.

    def _define(self, module: ModuleType, name: str) -> None:
        """Writes what gives a name its value in a module that cannot be imported."""
        home = module.__name__
        self._defined += 1
        self._needs.setdefault(home, [])
        if self._current and self._current[-1] != home:
            self._needs[self._current[-1]].append(home)
        if (home, name) in self._definitions:
            return
        local = self._modules.setdefault(home, LocalModule(module))
        statements = local.binding(name)
        if not statements:
            raise _cannot(local.values.get(name), f"no statement of {home} says what {name!r} is")
        self._claim(name, local.values.get(name), home)
        self._definitions[home, name] = [(s.lineno, local.segment(s)) for s in statements]
        self._current.append(home)
        try:
            for used in sorted(set().union(*map(local.used, statements))):
                mine = local.values.get(used)
                if used in self._captured or (used in self._reserved and self._names[used] is not mine):
                    raise _cannot(mine, f"the file has a {used!r} of its own; call yours otherwise")
                self._need(local, used, statements)
        finally:
            self._current.pop()

    def _need(self, local: LocalModule, name: str, statements: Sequence[ast.stmt]) -> None:
        """Gives a name that statements look up the value that it has."""
        home = local.module.__name__
        if name == "__file__":
            raise _cannot(local.module, "it looks for files beside itself")
        value = local.values.get(name)
        if isinstance(value, ModuleType) and not self._places.can_import(value):
            self._as_namespace(local, name, value, statements)
            return
        if name not in local.values or name.startswith("__") or (home, name) in self._definitions:
            return
        if self._import_again(local, name, value):
            return
        place = home_of(value) if isinstance(getattr(value, "__qualname__", None), str) else None
        if place is None:
            self._value(local, name, value)
        elif place == (local.module, name):
            self._define(local.module, name)
        else:
            expression = self.reference(value)
            if expression != name:
                self._assign(local, name, value, expression)

    def _import_again(self, local: LocalModule, name: str, value: object) -> bool:
        """Imports what a module has imported, in its own words where they serve; whether there was such a thing."""
        home, original = local.imported(name) or ("", "")
        known = sys.modules.get(home)
        if known is not None and self._places.can_import(known) and lookup(known, original) is value:
            line = f"from {home} import {original}"
        elif isinstance(value, ModuleType):
            original, line = value.__name__, f"import {value.__name__}"
        else:
            return False
        self._claim(name, value, local.module.__name__)
        self._imports[line if name == original else f"{line} as {name}"] = None
        return True

    def _as_namespace(self, local: LocalModule, name: str, module: ModuleType, statements: Sequence[ast.stmt]) -> None:
        """Writes what is used of a module that cannot be imported, and puts it under the module's name."""
        used, key = attributes_of(name, statements), (local.module.__name__, name)
        if used is None:
            raise _cannot(module, "no fresh process can import it, and it is handed about as a whole")
        used |= self._namespaces.setdefault(key, set())
        self._namespaces[key] = used
        theirs = self._modules.setdefault(module.__name__, LocalModule(module))
        self._needs.setdefault(module.__name__, [])
        self._needs[local.module.__name__].append(module.__name__)
        self._current.append(module.__name__)
        try:
            for attribute in sorted(used):
                self._need(theirs, attribute, ())
        finally:
            self._current.pop()
        inner = ", ".join(f"{attribute}={attribute}" for attribute in sorted(used))
        self._assign(local, name, module, f"{self.reference(SimpleNamespace)}({inner})")

    def _value(self, local: LocalModule, name: str, value: object) -> None:
        """A global that is no class or function: by its value, else by the statement that gives it one.

        The statement serves better where the value is long, or holds what the file defines: a registry, say, is empty
        at first, and what is defined behind it enters itself.
        """
        before = self._defined
        try:
            with self._undone_where_it_fails():
                expression = self.expression(value)
        except NasTypeError:
            self._define(local.module, name)
            return
        if (len(expression) > _LARGEST or self._defined > before) and local.binding(name):
            self._define(local.module, name)
        else:
            self._assign(local, name, value, expression)

    def _assign(self, local: LocalModule, name: str, value: object, expression: str) -> None:
        self._claim(name, value, local.module.__name__)
        line = min((s.lineno for s in local.binding(name)), default=0)
        self._definitions[local.module.__name__, name] = [(line, f"{name} = {expression}")]
        self._needs.setdefault(local.module.__name__, [])

    @contextmanager
    def _undone_where_it_fails(self) -> Iterator[None]:
        kept = (self._names, self._imports, self._definitions, self._needs, self._captured)
        before = [dict(each) for each in kept]
        needs = {name: list(others) for name, others in self._needs.items()}
        restores = self._restores
        try:
            yield
        except NasTypeError:
            for each, old in zip(kept, before, strict=True):
                each.clear()  # type: ignore[attr-defined]  # they are dicts, of different kinds
                each.update(old)  # type: ignore[attr-defined]
            self._needs.update(needs)
            self._restores = restores
            raise


def _is_bound(value: object) -> bool:
    """Whether a method is bound to an object: that of a class written in C is a builtin function too."""
    owner = getattr(value, "__self__", None)
    return isinstance(value, MethodType) or not (owner is None or isinstance(owner, ModuleType | type))


def arguments_of(parts: Iterable[str], keywords: dict[str, str]) -> str:
    """What stands between the brackets of a call, over several lines where it is long; keywords may be any text."""
    plain = [f"{name}={text}" for name, text in keywords.items() if _is_word(name)]
    others = [f"{name!r}: {text}" for name, text in keywords.items() if not _is_word(name)]
    all_parts = [*parts, *plain, *([f"**{{{', '.join(others)}}}"] if others else [])]
    if sum(map(len, all_parts)) < 80:
        return ", ".join(all_parts)
    return "".join(f"\n        {part}," for part in all_parts) + "\n    "


def _is_word(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _cannot(value: object, why: str) -> NasTypeError:
    return NasTypeError(
        explain(
            "code can only be written for literal arguments (numbers, texts, lists, dicts), for what can be imported, "
            f"and for objects made of these; {why}",
            got=value,
            mend="wrap the class in a function without arguments, at the top of a module, and make the space from that",
        )
    )
