"""Things in one line, and tables as notebooks show them."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Set
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy

from nas.checks import is_tensor
from nas.errors import shown_container
from nas.plain_text import printable

_FEW = 4
"""So many entries of a list are shown."""
_DEEPEST = 2


def brief(value: object, *, longest: int = 60, depth: int = 0) -> str:
    """A value in one line that is never long: of arrays the shape, of data the length, of functions the name.

    Args:
        value: anything; no code of the user's runs but what shows it.
        longest: characters.
        depth: how many lists it is inside of.

    Example:
        >>> import torch
        >>> brief({"rate": 0.1, "kind": sum, "data": torch.zeros(3, 4)})
        "{'rate': 0.1, 'kind': sum, 'data': Tensor of 3 x 4}"
        >>> brief([*range(100)]), brief("a" * 100, longest=10)
        ('[0, 1, 2, 3, ...]', "'aaaaa...")
    """
    if isinstance(value, numpy.ndarray) or is_tensor(value):
        return f"{type(value).__name__} of {' x '.join(map(str, value.shape)) or 'one number'}"
    if isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType):
        return value.__qualname__.replace("<locals>.", "")
    if isinstance(value, functools.partial):
        return f"partial({brief(value.func, longest=longest, depth=depth)}, ...)"
    if isinstance(value, Mapping | list | tuple | Set) and depth < _DEEPEST:
        return _cut(_entries(value, longest, depth + 1), longest)
    try:
        text = shown_container(value) or repr(value)
    except Exception:  # what cannot be shown is shown by its kind
        return type(value).__name__
    if re.search(r" object at 0x[0-9a-fA-F]+", text) or "\n" in text or len(text) > 2 * longest:
        return _cut(_kind(value, text), longest)
    return _cut(text, longest)


def call_text(name: str, arguments: Mapping[str, object]) -> str:
    """How something would be made, in one line.

    Example:
        >>> call_text("Evolution", {"population": 20, "mutate": None})
        'Evolution(population=20, mutate=None)'
    """
    return f"{name}({', '.join(f'{key}={brief(value)}' for key, value in arguments.items())})"


def rich_html(renderable: Any, *, width: int = 140) -> str:
    """What rich draws on a terminal, as HTML for a notebook."""
    import io

    from rich.console import Console

    console = Console(record=True, width=width, file=io.StringIO(), force_jupyter=False, legacy_windows=False)
    console.print(renderable)
    style = "overflow-x:auto;line-height:normal;font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace"
    code_format = f'<pre style="white-space:pre;{style}">{{code}}</pre>'
    return printable(console.export_html(inline_styles=True, code_format=code_format), lines=True)


def _entries(value: Mapping[Any, Any] | Collection[Any], longest: int, depth: int) -> str:
    def shown(entries: Iterable[str]) -> str:
        return ", ".join([*entries, *(["..."] if len(value) > _FEW else [])])

    first = [*islice(value, _FEW)]
    if isinstance(value, Mapping):
        return "{" + shown(f"{key!r}: {brief(value[key], longest=longest, depth=depth)}" for key in first) + "}"
    inner = shown(brief(entry, longest=longest, depth=depth) for entry in first)
    if isinstance(value, tuple):
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return f"[{inner}]" if isinstance(value, list) else f"{{{inner}}}"


def _kind(value: object, text: str) -> str:
    """The kind of what has no short text of its own, and how much there is of it."""
    if isinstance(value, str | bytes | int | float):
        return text
    name = type(value).__name__
    try:
        return f"{name} of {len(value)}"  # type: ignore[arg-type]  # else it has none
    except Exception:
        return name


def _cut(text: str, longest: int) -> str:
    text = printable(" ".join(text.split("\n")))
    return text if len(text) <= longest else text[: longest - 4] + "..."
