"""The rule of `nas/_compat`: private names of other libraries stand there, and nowhere else in the package."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import nas

ROOT = Path(nas.__file__).parent
DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields", "_field_defaults", "_make"}
"""Public in spite of their underscore: `os._exit`, and the methods of named tuples."""
BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED and name != "_"


def sources() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}


def own_names(trees: Mapping[str, ast.AST]) -> set[str]:
    """The private names that the package defines: functions, classes, fields, what is assigned to `self`."""
    found: set[str] = set()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self")):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return {name for name in found if is_private(name)}


def mentioned(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, private name and how it is met: "import", "self", "other" or "text"."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=module, names=names) if not (module or "").startswith("nas"):
                parts = [*(module or "").split("."), *(alias.name for alias in names)]
                yield from ((node.lineno, part, "import") for part in parts if is_private(part))
            case ast.Import(names=names):
                parts = [part for alias in names for part in alias.name.split(".")]
                yield from ((node.lineno, part, "import") for part in parts if is_private(part))
            case ast.Attribute(attr=name, value=ast.Name(id="self" | "cls")) if is_private(name):
                yield node.lineno, name, "self"
            case ast.Attribute(attr=name) if is_private(name):
                yield node.lineno, name, "other"
            case ast.Call(func=ast.Name(id=function) | ast.Attribute(attr=function), args=args) if function in BY_NAME:
                texts = [a.value for a in args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                yield from ((node.lineno, text, "other") for text in texts if is_private(text))
            case ast.Constant(value=str(text)) if is_private(text) and text.isidentifier():
                yield node.lineno, text, "text"


def strangers(files: Mapping[str, str]) -> list[str]:
    """The places where a private name of a library stands outside of `_compat`."""
    trees = {path: ast.parse(source) for path, source in files.items()}
    inside = {path: tree for path, tree in trees.items() if path.startswith("_compat/")}
    outside = {path: tree for path, tree in trees.items() if path not in inside}
    ours = own_names(outside)
    # What `_compat` reads of libraries is theirs, though a class of ours may have a field of that name.
    theirs = {name for tree in inside.values() for _, name, how in mentioned(tree) if how != "self"}
    found = []
    for path, tree in outside.items():
        for line, name, how in mentioned(tree):
            if {
                "import": True,
                "self": name not in ours,
                "other": name not in ours or name in theirs,
                "text": name in theirs,
            }[how]:
                found.append(f"nas/{path}:{line}: {name}")
    return sorted(set(found))


def test_private_names_of_libraries_stand_in_compat_alone() -> None:
    found = strangers(sources())
    assert not found, "\n".join(["give these a name in nas/_compat, and a test in tests/_compat:", *found])


def test_private_methods_of_libraries_are_overridden_in_compat_alone() -> None:
    """Were the library to rename one, it would be called no more, and nobody would notice."""
    found = []
    for info in pkgutil.walk_packages(nas.__path__, "nas."):
        if info.name.startswith("nas._compat") or info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for kind in [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == info.name]:
            found += [f"{info.name}.{kind.__name__}.{name} of {base.__module__}" for name, base in overridden(kind)]
    assert not found, "\n".join(found)


def overridden(kind: type) -> Iterator[tuple[str, type]]:
    """The private methods of libraries that a class has in another form."""
    for name, value in vars(kind).items():
        if is_private(name) and (inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)):
            for base in kind.__mro__[1:]:
                top = base.__module__.partition(".")[0]
                if top != "nas" and top not in sys.stdlib_module_names and name in vars(base):
                    yield name, base


GOOD = """
import os
class Ours:
    _storage: int
    def _run(self): self._kept = self._storage
def use(ours, ledger, pair):
    ours._run(), ours._kept, os._exit(1), pair._replace(a=1)
    return f"{ours}_std", "_kept_", __name__
"""
COMPAT = """
from torch.lib._inside import _Base as Base
def storage_of(study): return study._storage
def results(trainer): return getattr(trainer, "_results")
TENSORS = "_parameters"
"""


def test_the_rule_allows_our_own_names() -> None:
    assert strangers({"search/ours.py": GOOD, "_compat/lib.py": COMPAT}) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from torch.nn.modules.batchnorm import _BatchNorm", "_BatchNorm"),
        ("from torch.utils._pytree import tree_map", "_pytree"),
        ("import torch._dynamo.config", "_dynamo"),
        ("def f(x): return torch._foreach_copy_(x)", "_foreach_copy_"),
        ("def f(study): return study._storage", "_storage"),  # a class of ours has a field of that name
        ("def f(x): return x.fit_loop._results", "_results"),
        ("def f(x): return getattr(x, '_wrapped', None)", "_wrapped"),
        ("def f(x): return hasattr(x, '_results')", "_results"),
        ("def f(x): return vars(x)['_parameters']", "_parameters"),
        ("class A(Library):\n    def f(self): return self._inherited", "_inherited"),
        ("class A(Library):\n    def f(self): return super()._inherited()", "_inherited"),
    ],
)
def test_the_rule_finds(line: str, name: str) -> None:
    found = strangers({"search/ours.py": GOOD, "_compat/lib.py": COMPAT, "search/bad.py": line})
    assert [place.split(": ")[1] for place in found] == [name]
    assert all(place.startswith("nas/search/bad.py:") for place in found)


def test_an_override_is_found() -> None:
    from torch import nn

    class Bad(nn.Module):
        def _apply(self, *args, **kwargs): ...  # type: ignore[no-untyped-def]

        def _own(self) -> None: ...

    assert list(overridden(Bad)) == [("_apply", nn.Module)]
