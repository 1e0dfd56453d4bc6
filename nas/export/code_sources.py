"""The source of what no fresh process could import: statements of scripts, notebooks and modules that lie about.

An experiment's script cannot be imported, for that would start the experiment again. So what a class needs of its file
is written out: its own statement, those of the functions and classes that it uses, and so on, and nothing else.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import tokenize
from collections.abc import Iterable, Iterator
from functools import cached_property
from types import ModuleType
from typing import Any, final

from nas.errors import NasTypeError, explain


@final
class LocalModule:
    """A module that is there in this process only, and its top-level statements.

    Args:
        module: imported, or the script that runs.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module, self.values = module, vars(module)

    @cached_property
    def text(self) -> str:
        """Its source; that of a notebook is all of its cells, in the order in which they ran.

        Raises:
            NasTypeError: there is none.
        """
        file, cells = self.values.get("__file__"), self.values.get("In")
        if file is None and isinstance(cells, list) and all(isinstance(cell, str) for cell in cells):
            return "\n".join(cell for cell in cells if _is_python(cell))
        if file is None:
            raise NasTypeError(
                explain(
                    "what is made in an interactive session has no source to write down",
                    got=self.module.__name__,
                    mend="put it in a file",
                )
            )
        try:
            with tokenize.open(file) as opened:
                return opened.read()
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise NasTypeError(
                explain(
                    f"the source of {self.module.__name__}, which no fresh process can import, cannot be read: {error}",
                    got=str(file),
                    mend="install it, or put it in a Python file",
                )
            ) from error

    @cached_property
    def statements(self) -> list[ast.stmt]:
        """Those at its top, but what only runs in a script (`if __name__ == "__main__"`)."""
        return [s for s in ast.parse(self.text).body if not (isinstance(s, ast.If) and "__name__" in _names(s.test))]

    @property
    def postpones_annotations(self) -> bool:
        """Whether it has `from __future__ import annotations`."""
        return any(
            isinstance(s, ast.ImportFrom) and s.module == "__future__" and any(a.name == "annotations" for a in s.names)
            for s in self.statements
        )

    def binding(self, name: str) -> list[ast.stmt]:
        """The statements that give a name its value; earlier ones that the last does away with are left out."""
        found = [s for s in self.statements if name in _bound(s)]
        for start in reversed(range(len(found))):
            if _defines(found[start], name) and name not in self.used(found[start]):
                return found[start:]
        return found

    def segment(self, statement: ast.stmt) -> str:
        """The text of a statement, with its decorators and comments."""
        first, last = _first_line(statement), statement.end_lineno or statement.lineno
        others = (s for s in self.statements if s is not statement)
        if any(_first_line(s) <= last and (s.end_lineno or s.lineno) >= first for s in others):
            return ast.unparse(statement)  # it shares a line with another one
        return "\n".join(self.text.splitlines()[first - 1 : last])

    def imported(self, name: str) -> tuple[str, str] | None:
        """The module and the name that the only statement that binds a name imports it from."""
        for statement in (found := self.binding(name)):
            if len(found) == 1 and isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                return next(((statement.module, a.name) for a in statement.names if (a.asname or a.name) == name), None)
        return None

    def used(self, statement: ast.stmt) -> set[str]:
        """The names that a statement, or what it defines, looks up outside of itself, but for Python's own."""
        table = symtable.symtable(ast.unparse(statement), "statement", "exec")
        names = set(_looked_up(table))
        return {name for name in names if name in self.values or not hasattr(builtins, name)}


def attributes_of(name: str, statements: Iterable[ast.stmt]) -> set[str] | None:
    """Which attributes of a name are looked up; None where it is used in other ways too."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    found = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == name]
    alone = [n for n in nodes if isinstance(n, ast.Name) and n.id == name]
    return {node.attr for node in found} if len(alone) == len(found) else None


def _is_python(cell: str) -> bool:
    try:
        ast.parse(cell)
    except SyntaxError:
        return False
    return True


def _looked_up(table: symtable.SymbolTable) -> Iterator[str]:
    for symbol in table.get_symbols():
        outermost = table.get_type() == "module"
        if symbol.is_referenced() and (symbol.is_global() or outermost):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _looked_up(child)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _defines(statement: ast.stmt, name: str) -> bool:
    """Whether a statement gives a name a value whatever it was before."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return True
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _bound(node: ast.AST) -> set[str]:
    """The names at the top of a module that a statement gives values, or whose items and attributes it sets."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return set()
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    found: set[str] = set()
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        found.add(node.id)
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
        inner: Any = node
        while isinstance(inner, ast.Attribute | ast.Subscript):
            inner = inner.value
        if isinstance(inner, ast.Name):
            found.add(inner.id)
    return found.union(*(_bound(child) for child in ast.iter_child_nodes(node)))
