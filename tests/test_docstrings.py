"""What docstrings say of arguments, results and errors is what signatures say."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SECTIONS = ("Args", "Attributes", "Example", "Examples", "Raises", "Returns", "Yields")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Documented:
    """A function or a class with its docstring, and the arguments that it is called with."""

    where: str
    text: str
    arguments: list[str]
    """In order, the stars of *args and **kwargs with them."""
    returns: str | None
    """The annotation of what it returns; None for a class."""

    def section(self, name: str) -> list[str] | None:
        """The entries of a section, each in one line; None where there is no such section."""
        found = re.search(rf"^{name}:\n((?:[ ]{{4}}.*\n?|\n)+)", self.text, re.M)
        return None if found is None else re.findall(r"^ {4}(?! )(.*(?:\n {8}.*)*)", found[1], re.M)


def arguments_of(function: Function, *, method: bool) -> list[str]:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    bound = method and not any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    star = [f"*{given.vararg.arg}"] if given.vararg else []
    stars = [f"**{given.kwarg.arg}"] if given.kwarg else []
    return [*names[1 if bound else 0 :], *star, *(argument.arg for argument in given.kwonlyargs), *stars]


def documented(tree: ast.Module, path: str) -> Iterator[Documented]:
    """Every docstring of a file that has more than a summary."""
    for node in ast.walk(tree):
        inside = [(child, isinstance(node, ast.ClassDef)) for child in ast.iter_child_nodes(node)]
        for child, method in inside:
            if not isinstance(child, Function | ast.ClassDef) or (text := ast.get_docstring(child)) is None:
                continue
            where = f"{path}:{child.lineno}: {child.name}"
            if isinstance(child, ast.ClassDef):
                makers = [n for n in child.body if isinstance(n, Function) and n.name == "__init__"]
                given = arguments_of(makers[0], method=True) if makers else fields_of(child)
                yield Documented(where=where, text=text, arguments=given, returns=None)
            else:
                returned = "None" if child.returns is None else ast.unparse(child.returns)
                given = arguments_of(child, method=method)
                yield Documented(where=where, text=text, arguments=given, returns=returned)


def fields_of(node: ast.ClassDef) -> list[str]:
    """The annotated names of a class without a constructor: the fields of a dataclass."""
    names = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def named(entries: list[str]) -> list[str]:
    """`low, high: the bounds` names two."""
    return [name.strip().rstrip("?") for entry in entries for name in entry.split(":")[0].split(",")]


def disagreements(each: Documented, errors: set[str]) -> list[str]:
    """What a docstring says that the signature does not, or the other way round."""
    found = []
    arguments = each.section("Args")
    if arguments is not None:
        said = named(arguments)
        if sorted(said) != sorted(each.arguments):
            found.append(f"{each.where}: its Args are {said}, the signature's {each.arguments}")
        elif said != each.arguments:
            found.append(f"{each.where}: its Args are in another order, {said}, than {each.arguments}")
    if each.section("Returns") is not None and each.returns in ("None", "NoReturn"):
        found.append(f"{each.where}: Returns, but the signature says {each.returns}")
    for name in named(each.section("Raises") or []):
        if name not in errors and not hasattr(builtins, name):
            found.append(f"{each.where}: Raises {name!r}, which is no error of ours or of Python")
    headings = re.findall(r"^(\w+):$", each.text, re.M)
    found += [f"{each.where}: no such section: {name}" for name in headings if name not in SECTIONS]
    return found


def errors_of(trees: list[ast.Module]) -> set[str]:
    """The names of all exceptions that are defined."""
    classes = {
        node.name: {ast.unparse(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while True:
        more = {name for name, bases in classes.items() if any(b in found or is_error(b) for b in bases)}
        if more <= found:
            return found
        found |= more


def is_error(name: str) -> bool:
    kind = getattr(builtins, name, None)
    return isinstance(kind, type) and issubclass(kind, BaseException)


def read() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "nas").rglob("*.py"))
    }


def test_docstrings_agree_with_signatures() -> None:
    files = read()
    errors = errors_of(list(files.values()))
    said = [d for path, tree in files.items() for each in documented(tree, path) for d in disagreements(each, errors)]
    assert said == [], "\n".join(said)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('def f(a, b):\n    """Sum.\n\n    Args:\n        a, b: numbers.\n    """', None),
        ('def f(a, b):\n    """Sum.\n\n    Args:\n        a: a number.\n    """', "its Args are"),
        ('def f(a, b):\n    """Sum.\n\n    Args:\n        b: one.\n        a: two.\n    """', "another order"),
        ('def f(a) -> None:\n    """Sum.\n\n    Returns:\n        It.\n    """', "Returns, but"),
        ('def f(a):\n    """Sum.\n\n    Raises:\n        NoSuchError: never.\n    """', "no error"),
        ('def f(a):\n    """Sum.\n\n    Arguments:\n        a: one.\n    """', "no such section"),
        (
            'class F:\n    """F.\n\n    Args:\n        a: one.\n    """\n    def __init__(self, a, **b): ...',
            "its Args are",
        ),
    ],
)
def test_what_disagrees_is_found_out(source: str, said: str | None) -> None:
    (each,) = documented(ast.parse(source), "x.py")
    found = disagreements(each, set())
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
