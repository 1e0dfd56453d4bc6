"""Errors of other libraries, told on one line."""

from __future__ import annotations

import re


def one_line(error: BaseException) -> str:
    """What went wrong at the root; torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[\d*m", "", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
