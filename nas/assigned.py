"""Where the result of a call goes in the source that calls it: the attribute, variable or parameter that takes it."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, TypeAlias

_Place: TypeAlias = tuple[int, int, int, int]

_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_CONTAINERS = frozenset({"candidates", "block", "args", "modules", "iterable"})
"""Parameters that hold what goes on to somewhere else."""
_TAKES = frozenset({"append", "extend", "insert", "add_module", "register_module", "setdefault"})
"""Methods that put a value into what they are called on."""


@dataclass(frozen=True)
class Destination:
    """Where something goes.

    Attributes:
        name: dotted, from outside in; empty where the source does not tell.
        assigned: whether it begins with what an assignment binds.
        kind: the class of the object that takes it as an argument, and the argument; empty where there is none.
    """

    name: str = ""
    assigned: bool = False
    kind: str = ""


def destination(
    frame: FrameType | None, until: Callable[[CodeType], bool], skip: Callable[[CodeType], bool]
) -> Destination:
    """Where the result of the running call goes, seen from the outermost caller.

    Args:
        frame: that makes the call.
        until: the first caller, told by its code, that is not looked at any more.
        skip: callers that add no name.

    Example:
        >>> import inspect
        >>> def here():
        ...     return destination(inspect.currentframe().f_back, lambda code: True, lambda code: False)
        >>> here().name
        ''
    """
    found = Destination()
    while frame is not None and not until(frame.f_code):
        if not skip(frame.f_code):
            outer = _in(frame)
            name = ".".join(part for part in (outer.name, found.name) if part)
            found = Destination(name, outer.assigned or (found.assigned and not outer.name), found.kind or outer.kind)
        frame = frame.f_back
    return found


def _in(frame: FrameType) -> Destination:
    """Where the result of the call that a frame makes just now goes, as far as the frame's own source tells."""
    place = _place(frame)
    parsed = None if place is None else _parsed(frame.f_code.co_filename)
    node: ast.AST | None = None if parsed is None else parsed[1].get(place)  # type: ignore[arg-type]  # it is no None
    if parsed is None or node is None:
        return Destination()
    call, names, kind = node, list[str](), ""
    while not isinstance(node, ast.stmt | ast.Lambda) and not (isinstance(node, _COMPREHENSIONS) and node is not call):
        parent = parsed[0].get(node)
        if parent is None:
            break
        if isinstance(parent, ast.Call):
            taker = _taker(parent)
            if taker:
                return Destination(".".join([taker, *reversed(names)]), True, kind)
            function = _value(parent.func, frame)
            parameter = _parameter(function, parent, node)
            names += [parameter] if parameter else []
            kind = kind or (f"{function.__name__}.{parameter}" if isinstance(function, type) and parameter else "")
        elif isinstance(parent, ast.Dict) and node in parent.values:
            key = parent.keys[parent.values.index(node)]
            names += [key.value] if isinstance(key, ast.Constant) and isinstance(key.value, str) else []
        elif isinstance(parent, ast.List | ast.Tuple) and node in parent.elts and len(parent.elts) > 1:
            if isinstance(parsed[0].get(parent), ast.Assign) and isinstance(parent, ast.Tuple):
                node = parent  # Each of them has a target of its own.
                continue
            names.append(str(parent.elts.index(node)))
        elif isinstance(parent, ast.NamedExpr):
            return Destination(".".join([parent.target.id, *reversed(names)]), True, kind)
        elif isinstance(parent, ast.comprehension | ast.For) and node is parent.iter:
            names.append("count")
        node = parent
    target = _target(node, call)
    return Destination(".".join(part for part in (target, *reversed(names)) if part), bool(target), kind)


def _place(frame: FrameType) -> _Place | None:
    positions = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if positions is None or any(part is None for part in positions):
        return None
    line, end_line, column, end_column = positions
    return line, end_line, column, end_column  # type: ignore[return-value]  # none of them is None


@functools.lru_cache(maxsize=256)
def _parsed(filename: str) -> tuple[dict[ast.AST, ast.AST], dict[_Place, ast.AST]] | None:
    """Each node's parent, and what a file calls, comprehensions among it, by where it stands."""
    source = "".join(linecache.getlines(filename))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    parents: dict[ast.AST, ast.AST] = {}
    calls: dict[_Place, ast.AST] = {}
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            parents[child] = node
        if isinstance(node, ast.Call | _COMPREHENSIONS) and node.end_lineno and node.end_col_offset:
            calls[node.lineno, node.end_lineno, node.col_offset, node.end_col_offset] = node
    return (parents, calls) if calls else None


def _target(statement: ast.AST, call: ast.AST) -> str:
    """The one name that a statement binds to what the call makes."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
        if isinstance(target, ast.Tuple):
            if not isinstance(value, ast.Tuple) or len(value.elts) != len(target.elts):
                return ""
            inside = (one for one, part in zip(target.elts, value.elts, strict=True) if _holds(part, call))
            target = next(inside, target)
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        target = statement.target
    else:
        return ""
    while isinstance(target, ast.Subscript):
        key = target.slice
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return key.value
        target = target.value
    return target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""


def _holds(node: ast.AST, call: ast.AST) -> bool:
    return any(inner is call for inner in ast.walk(node))


def _taker(call: ast.Call) -> str:
    """The name of what a method puts its argument into."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _TAKES:
        return ""
    if call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
        return call.args[0].value
    holder = call.func.value
    return holder.attr if isinstance(holder, ast.Attribute) else holder.id if isinstance(holder, ast.Name) else ""


def _value(node: ast.expr, frame: FrameType) -> Any:
    """What a plain or dotted name means in a frame; None where it is anything else."""
    if isinstance(node, ast.Name):
        for names in (frame.f_locals, frame.f_globals):
            if node.id in names:
                return names[node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
        holder = _value(node.value, frame)
        # A module or a class is looked into; of an instance nothing is asked, for that may run code.
        return getattr(holder, node.attr, None) if inspect.ismodule(holder) or isinstance(holder, type) else None
    return None


def _parameter(function: Any, call: ast.Call, argument: ast.AST) -> str:
    """The name of the parameter that an argument is for; its position where it is one of many."""
    if isinstance(argument, ast.keyword):
        name = argument.arg or ""
    elif function is None or argument not in call.args:
        return ""
    else:
        position = call.args.index(argument)
        if any(isinstance(before, ast.Starred) for before in call.args[: position + 1]):
            return ""
        parameters = list(_parameters(function))
        if position < len(parameters) and parameters[position].kind is not inspect.Parameter.VAR_POSITIONAL:
            name = parameters[position].name
        else:
            is_one_of_many = parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL
            name = str(position) if is_one_of_many else ""
    return "" if name in _CONTAINERS else name


def _parameters(function: Any) -> Iterator[inspect.Parameter]:
    if getattr(function, "__module__", None) == "builtins":
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for parameter in signature.parameters.values():
        if parameter.kind in positional or parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            yield parameter
