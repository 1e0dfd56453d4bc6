"""Draws the tree of a search space, as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from nas.domains import Domain
from nas.plain_text import printable
from nas.tree.choices import Choice, branch_text
from nas.tree.search_space import SearchSpace


def draw_text(title: str, space: SearchSpace) -> str:
    """The tree, a line for each choice and each condition, and the size."""
    lines = [title, *_choices(space.choices, "", {}), size_text(space)]
    return "\n".join(map(printable, lines))


def draw_html(title: str, space: SearchSpace) -> str:
    """The same tree for a notebook, foldable."""
    return (
        f"<details open><summary><b>{_safe(title)}</b>: {_safe(size_text(space))}</summary>"
        f"{_html(space.choices, {})}</details>"
    )


def _safe(text: str) -> str:
    return escape(printable(text))


def size_text(space: SearchSpace) -> str:
    """How many choices and how many architectures, in words."""
    size, number = space.size, len(space.domains)
    choices = f"{number} choice{'s' if number != 1 else ''}"
    if isinstance(size, float):
        return f"{choices}, infinitely many samples"
    least = "" if space.exact else "at least "
    about = f" (about {_power(size)})" if size >= 10**9 else ""
    return f"{choices}, {least}{size:,} architecture{'s' if size != 1 else ''}{about}"


def _power(size: int) -> str:
    digits = str(size)
    return f"{digits[0]}.{digits[1]}e{len(digits) - 1}"


def _describe(choice: Choice, seen: dict[str, Domain]) -> str:
    if seen.get(choice.label) == choice.domain:
        return f"{choice.label}: as above"
    seen[choice.label] = choice.domain
    return f"{choice.label}: {choice.domain!r}"


def _choices(choices: tuple[Choice, ...], indent: str, seen: dict[str, Domain]) -> Iterator[str]:
    for position, choice in enumerate(choices):
        last = position == len(choices) - 1
        yield f"{indent}{'└── ' if last else '├── '}{_describe(choice, seen)}"
        deeper = indent + ("    " if last else "│   ")
        for number, branch in enumerate(choice.branches):
            end = number == len(choice.branches) - 1
            yield f"{deeper}{'└── ' if end else '├── '}when {branch_text(choice, branch)}"
            yield from _choices(branch.choices, deeper + ("    " if end else "│   "), seen)


def _html(choices: tuple[Choice, ...], seen: dict[str, Domain]) -> str:
    items = ""
    for choice in choices:
        label, _, rest = _describe(choice, seen).partition(": ")
        inner = "".join(
            f"<details open><summary>when <code>{_safe(branch_text(choice, branch))}</code></summary>"
            f"{_html(branch.choices, seen)}</details>"
            for branch in choice.branches
        )
        items += f"<li><code>{_safe(label)}</code>: {_safe(rest)}{inner}</li>"
    return f"<ul>{items}</ul>"
