"""What a traceback says in short: the error itself, and where it was raised."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import final

_LONGEST = 500
"""Characters of a reason."""
_HEADER = "Traceback (most recent call last):"
_CHAIN = re.compile(
    r"^(?:During handling of the above exception, another exception occurred:"
    r"|The above exception was the direct cause of the following exception:)$",
    re.MULTILINE,
)
_ELSEWHERE = re.compile(r"^Original Traceback \(most recent call last\):$", re.MULTILINE)
"""As torch writes it where a worker of a loader, or a replica, has raised."""
_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+)(?:, in (?P<function>.+))?')
_GROUP = re.compile(r"^ *\| (?=\S)")


@final
@dataclass(frozen=True)
class Failure:
    """Why an evaluation failed."""

    reason: str
    """The type of the error and the first line of its message; those that follow are often advice."""
    place: str
    """Where it was raised, as "file.py:12 in forward"; empty where no traceback says it."""

    @property
    def kind(self) -> str:
        """The type of the error."""
        return self.reason.partition(":")[0]

    @property
    def cause(self) -> tuple[str, str]:
        """What is alike in errors of one cause: the place and the type; the reason where no place is known."""
        return (self.place, self.kind) if self.place else ("", self.reason)


def read_failure(text: str) -> Failure:
    """Reads a traceback, or what else is known of a failure.

    Of errors that were raised while others were handled it is the last, the one that ended the evaluation; of one that
    torch brings from a process of its own, that process's.

    Args:
        text: a traceback as Python prints it, or lines of which the last says why.

    Example:
        >>> text = 'Traceback (most recent call last):\\n  File "a.py", line 3, in step\\nValueError: no\\nTry b.\\n'
        >>> read_failure(text)
        Failure(reason='ValueError: no', place='a.py:3 in step')
    """
    block = _CHAIN.split(text)[-1]
    parts = _ELSEWHERE.split(block)
    if len(parts) > 1 and (" in DataLoader worker process " in block or " in replica " in block):
        block = _HEADER + parts[-1]
    lines = block.strip("\n").splitlines()
    begins = [i for i, line in enumerate(lines) if line.lstrip(" +").removeprefix("Exception Group ") == _HEADER]
    if not begins:
        last = [line for line in lines if line.strip() and not line.startswith(" ")]
        return _failure(last[-1] if last else "", "")
    place = ""
    for line in lines[begins[0] + 1 :]:
        inside = _GROUP.sub("", line) if _GROUP.match(line) else line
        if inside and not inside.startswith((" ", "|")):
            return _failure(inside, place)
        if (frame := _FRAME.search(line)) is not None:
            place = f"{os.path.basename(frame['file'])}:{frame['line']}"
            place += f" in {frame['function']}" if frame["function"] else ""
    return _failure(lines[-1].strip(), place)


def _failure(reason: str, place: str) -> Failure:
    return Failure(bounded(reason, line=_LONGEST), place)


_LONGEST_TEXT = 20_000
"""Characters of somebody else's text in a message."""


def bounded(text: str, *, line: int = 2000, whole: int = _LONGEST_TEXT) -> str:
    """A text of somebody else's that is to be kept or shown: what is too long is left out of its middle, and counted.

    Args:
        text: of an error, say, which may quote data of any size.
        line: characters of a line at most.
        whole: characters of all at most.

    Example:
        >>> bounded("ValueError: " + "x" * 1000, line=100)
        'ValueError: xxxxxxxxxxxxxxx [... 972 characters left out ...] xxxxxxxxxxxxx'
    """
    if len(text) <= line:
        return text
    if text.count("\n") > whole:  # Then it is not taken apart as it is.
        text = _without_middle(text, 4 * whole)
    lines = "".join(_without_middle(each, line) for each in text.splitlines(keepends=True))
    return _without_middle(lines, whole)


_MARK = 60
"""Characters, at most, that say how many are left out."""


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    room = most - _MARK
    end = room // 3
    begin = room - end
    left_out = len(text) - begin - end
    return f"{text[:begin]} [... {left_out:,} characters left out ...] {text[len(text) - end :]}"
