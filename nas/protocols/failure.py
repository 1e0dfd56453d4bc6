"""What a traceback says in short: the error itself, and where it was raised."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import final

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
        return Failure(last[-1] if last else "", "")
    place = ""
    for line in lines[begins[0] + 1 :]:
        inside = _GROUP.sub("", line) if _GROUP.match(line) else line
        if inside and not inside.startswith((" ", "|")):
            return Failure(inside, place)
        if (frame := _FRAME.search(line)) is not None:
            place = f"{os.path.basename(frame['file'])}:{frame['line']}"
            place += f" in {frame['function']}" if frame["function"] else ""
    return Failure(lines[-1].strip(), place)
