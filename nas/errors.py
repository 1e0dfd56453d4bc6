"""The errors users meet: each says the rule, the value received, where it happened and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasError(Exception):
    """Base of every error this package raises on purpose."""


class NasValueError(NasError, ValueError):
    """A value that breaks a rule: an impossible domain, a sample outside the space, a torn file."""


class NasTypeError(NasError, TypeError):
    """An object of a kind that cannot serve: a factory that builds no module, a source that is no model."""


class ExperimentError(NasError, RuntimeError):
    """An experiment that cannot start, go on, or answer what it was asked."""


class SearchSpaceExhausted(NasError):  # noqa: N818 - names the situation, as StopIteration does
    """Raised by a strategy's `ask` when it has nothing left to propose; the experiment ends in good order."""


class TrialPruned(NasError):  # noqa: N818 - the name users of Optuna know
    """Raised inside an evaluator by `nas.report` when early stopping says that this trial should not go on."""


class MissingDependency(NasError, ImportError):  # noqa: N818 - reads as what it says
    """An optional library that is not installed; the message holds the pip line that installs it."""

    def __init__(self, package: str, *, purpose: str, extra: str | None = None) -> None:
        line = f'pip install "torch-nas[{extra}]"' if extra else f"pip install {package}"
        super().__init__(f"{purpose} needs {package}, which is not installed here. Install it with: {line}")


def explain(rule: str, *, got: object = ..., where: str = "", mend: str = "") -> str:
    """One message out of its four parts.

    Example:
        >>> explain("low must not exceed high", got=(5, 3), where="ValueChoice 'width'", mend="swap them")
        "ValueChoice 'width': low must not exceed high; received (5, 3). To mend: swap them."
    """
    text = f"{where}: {rule}" if where else rule
    if got is not ...:
        text += f"; received {got!r}"
    text += "" if text.endswith("?") else "."
    if mend:
        text += f" To mend: {mend}."
    return text


def close_names(name: str, known: Iterable[str]) -> str:
    """The known names nearest to a misspelt one, ready to append to a message.

    Example:
        >>> close_names("widht", ["width", "depth"])
        "did you mean 'width'?"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    listed = ", ".join(repr(n) for n in known[:12]) + (", ..." if len(known) > 12 else "")
    return f"the known names are {listed}" if known else "there are none"
