"""Checks of what a user hands over: everywhere the same mistake is the same error, and says the same.

What is of another kind is a NasTypeError; what is only too small, too large or unknown is a NasValueError. True and
False are no numbers here, though Python says so; the ints and floats of numpy are, and leave as Python's own.
"""

from __future__ import annotations

import math
import numbers
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import numpy

from nas.errors import NasTypeError, NasValueError, explain, nearest, shown
from nas.plain_text import flaw_of_label

if TYPE_CHECKING:
    from torch import Tensor


def as_plain(value: object) -> object:
    """A number, truth value or text of numpy or torch as Python's own, one that is traced without its trace.

    A tuple is taken item by item; all else stays as it is.

    Example:
        >>> import torch
        >>> as_plain(numpy.float64(0.1)), as_plain(torch.tensor(3)), as_plain("relu")
        (0.1, 3, 'relu')
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(as_plain, value))
    if isinstance(value, numpy.generic | numpy.ndarray) or is_tensor(value):
        return value.item() if value.ndim == 0 else value
    return getattr(value, "plain", value) if isinstance(value, int | float | str) else value


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is one of torch's tensors, said without loading torch.

    Example:
        >>> is_tensor(3)
        False
    """
    torch = sys.modules.get("torch")  # Where it has not been imported there are no tensors.
    return torch is not None and isinstance(value, torch.Tensor)


def absolute(path: str | Path) -> Path:
    """A path that stays the same when the working directory changes; `~` is the home directory.

    Links are left as they are, for their names are what a user knows.

    Example:
        >>> absolute("/data/../runs"), absolute("~").is_absolute()
        (PosixPath('/runs'), True)
    """
    return Path(os.path.abspath(check_path("the path", path)))


def check_path(name: str, value: object, *, where: str = "") -> Path:
    """Refuses anything but a path; `~` is the home directory.

    Returns:
        The path.

    Raises:
        NasTypeError: neither a text nor a path.

    Example:
        >>> check_path("path", "/data/best.json")
        PosixPath('/data/best.json')
    """
    if not isinstance(value, str | os.PathLike):
        mend = "a text or a pathlib.Path"
        raise NasTypeError(explain(f"{name} must name a file or a folder", got=value, where=where, mend=mend))
    return Path(value).expanduser()


_PLAIN = frozenset({int, float, str, bool, type(None)})


def plain_int(value: object) -> int | None:
    """The value as an int of Python; None for what is no int, 3.0 and True among it.

    Example:
        >>> plain_int(numpy.int64(3)), plain_int(3.0), plain_int(True)
        (3, None, None)
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    return int(value)


def plain_number(value: object) -> float | None:
    """The value as an int or a float of Python; None for what is no number, True among it.

    Example:
        >>> plain_number(3), plain_number(numpy.float32(0.5)), plain_number("0.5")
        (3, 0.5, None)
    """
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_int(
    name: str,
    value: object,
    *,
    least: int | None = None,
    most: int | None = None,
    or_else: str = "",
    where: str = "",
    mend: str = "",
) -> int:
    """Refuses anything but an int within bounds, both included.

    Args:
        name: of the argument.
        value: what was given.
        least, most: the bounds; None for none.
        or_else: what else may be given, in words; the caller lets it pass.
        where: whose argument it is.
        mend: how to mend it; where omitted, by an int that would do.

    Returns:
        The int, as one of Python's own.

    Raises:
        NasTypeError: no int.
        NasValueError: one outside the bounds.

    Example:
        >>> check_int("epochs", numpy.int64(3), least=1)
        3
        >>> check_int("folds", 1, least=2, or_else="None", where="Classification")
        Traceback (most recent call last):
        ...
        nas.errors.NasValueError: Classification: folds must be an int from 2 on, or None; received 1. To mend: folds=2.
    """
    found = plain_int(value)
    if found is not None and (least is None or found >= least) and (most is None or found <= most):
        return found
    rule = f"{name} must be an int{_range(least, most)}{_alternative(or_else)}"
    mend = mend or _int_within(name, value, least, most, searched="domain" in or_else)
    raise (NasTypeError if found is None else NasValueError)(explain(rule, got=value, where=where, mend=mend))


def check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    infinite: bool = False,
    unit: str = "",
    or_else: str = "",
    where: str = "",
    mend: str = "",
) -> float:
    """Refuses anything but a number within bounds, and NaN always.

    Args:
        name: of the argument.
        value: what was given.
        least, most: the bounds, included; None for none.
        above, below: bounds that are not included; None for none.
        infinite: whether it may be infinite, as a limit that is never reached.
        unit: "seconds", for the message.
        or_else: what else may be given, in words; the caller lets it pass.
        where: whose argument it is.
        mend: how to mend it; where omitted, by a number that would do.

    Returns:
        The number, as an int or a float of Python.

    Raises:
        NasTypeError: no number.
        NasValueError: one outside the bounds, NaN, or an infinite one.

    Example:
        >>> check_number("decay", 0.95, least=0, below=1)
        0.95
        >>> check_number("decay", math.nan, least=0, below=1)
        Traceback (most recent call last):
        ...
        nas.errors.NasValueError: decay must be a finite number from 0 to below 1; received nan. To mend: decay=0.5.
    """
    found = plain_number(value)
    odd = found is not None and (math.isnan(found) or (math.isinf(found) and not infinite))
    if found is not None and not odd and _within(found, least, most, above, below):
        return found
    noun = f"a{' finite' if odd and not infinite else ''} number{f' of {unit}' if unit else ''}"
    rule = f"{name} must be {noun}{_range(least, most, above, below)}"
    error = NasTypeError if found is None else NasValueError
    mend = mend or _number_within(name, value, least, most, above, below, searched="domain" in or_else)
    raise error(explain(rule + _alternative(or_else), got=value, where=where, mend=mend))


def check_pair(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    where: str = "",
) -> tuple[float, float]:
    """Refuses anything but two finite numbers within bounds, as a tuple or a list; see `check_number`.

    Returns:
        The two, as numbers of Python.

    Raises:
        NasTypeError: no tuple or list, or something in it that is no number.
        NasValueError: more or less than two, or one that `check_number` refuses.

    Example:
        >>> check_pair("betas", [0.9, 0.999], least=0, below=1)
        (0.9, 0.999)
        >>> check_pair("betas", (0.9, 2), least=0, below=1)
        Traceback (most recent call last):
        ...
        nas.errors.NasValueError: betas[1] must be a number from 0 to below 1; received 2. To mend: betas[1]=0.5.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        rule = f"{name} must be a pair of numbers{_range(least, None, above, below)}"
        error = NasValueError if isinstance(value, tuple | list) else NasTypeError
        raise error(explain(rule, got=value, where=where, mend=f"{name}=(first, second), two numbers"))
    first, second = (
        check_number(f"{name}[{place}]", number, least=least, above=above, below=below, where=where)
        for place, number in enumerate(value)
    )
    return first, second


def check_bool(name: str, value: object, *, or_else: str = "", where: str = "", mend: str = "") -> bool:
    """Refuses anything but True and False: `"no"` and 0 mean one of them to Python, and to nobody else.

    Returns:
        The value, as one of Python's own.

    Raises:
        NasTypeError: neither.

    Example:
        >>> check_bool("hard", "no", where="GumbelDARTS")
        Traceback (most recent call last):
        ...
        nas.errors.NasTypeError: GumbelDARTS: hard must be True or False; received 'no'. To mend: hard=True.
    """
    if isinstance(value, bool | numpy.bool_):
        return bool(value)
    rule, mend = f"{name} must be True or False{_alternative(or_else)}", mend or f"{name}=True"
    raise NasTypeError(explain(rule, got=value, where=where, mend=mend))


def check_word(
    name: str, value: object, words: Sequence[str], *, or_else: str = "", where: str = "", mend: str = ""
) -> None:
    """Refuses anything but one of a few words.

    Args:
        name: of the argument.
        value: what was given.
        words: that there are.
        or_else: what else may be given, in words; the caller lets it pass.
        where: whose argument it is.
        mend: how to mend it; where omitted, the word that is meant, or the first.

    Raises:
        NasTypeError: no str.
        NasValueError: another one.

    Example:
        >>> check_word("remove", "olders", ("oldest", "worst"))
        Traceback (most recent call last):
        ...
        nas.errors.NasValueError: remove must be "oldest" or "worst"; received 'olders'. To mend: remove="oldest".
    """
    if isinstance(value, str) and value in words:
        return
    *others, last = [f'"{word}"' for word in words]
    rule = f"{name} must be {', '.join(others)}{' or ' if others else ''}{last}{_alternative(or_else)}"
    near = [*nearest(value, words), words[0]] if isinstance(value, str) else words
    mend = mend or f'{name}="{near[0]}"'
    if not isinstance(value, str):
        raise NasTypeError(explain(rule, got=value, where=where, mend=mend))
    raise NasValueError(explain(rule, got=value, where=where, mend=mend))


def check_label(label: str, *, what: str = "a label", where: str = "") -> None:
    """Refuses a label, or the name of a metric, that cannot be shown as it is, or has no room in a database.

    Raises:
        NasValueError: the rule that it breaks.
    """
    if flaw := flaw_of_label(label):
        mend = "leave it out, and it is named by where it goes" if not label else "take another one"
        raise NasValueError(explain(f"{what} {flaw}", got=label, where=where, mend=mend))


def read_number(value: object) -> float | None:
    """The number that a value is, or that a text reads: what a person meant who wrote "3" for 3."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return plain_number(value)


def _likely(name: str, number: float, most: float | None) -> str:
    number = number if most is None else min(number, most)
    return f"{name}={number:.10g}"


def _of_several(name: str, values: Sequence[object], *, searched: bool) -> str:
    return f"{name}=Categorical({shown(list(values))}) to search among them" if searched else f"{name}=..., one number"


def _int_within(name: str, value: object, least: int | None, most: int | None, *, searched: bool) -> str:
    """An argument that would do, for a mend."""
    if isinstance(value, list | tuple):
        return _of_several(name, value, searched=searched)
    meant = read_number(value)
    number = round(meant) if meant is not None and math.isfinite(meant) else 1
    return _likely(name, number if least is None else max(number, least), most)


def _number_within(
    name: str,
    value: object,
    least: float | None,
    most: float | None,
    above: float | None,
    below: float | None,
    *,
    searched: bool,
) -> str:
    """An argument that would do, for a mend."""
    if isinstance(value, list | tuple):
        return _of_several(name, value, searched=searched)
    low, high = least if above is None else above, most if below is None else below
    meant = read_number(value)
    if meant is not None and math.isfinite(meant) and _within(meant, least, most, above, below):
        return _likely(name, meant, None)
    if low is not None and high is not None:
        return _likely(name, (low + high) / 2, None)
    return _likely(name, max(1.0, low + 1) if low is not None else 1.0 if high is None else high - 1, None)


def _within(number: float, least: float | None, most: float | None, above: float | None, below: float | None) -> bool:
    return (
        (least is None or number >= least)
        and (most is None or number <= most)
        and (above is None or number > above)
        and (below is None or number < below)
    )


def _range(least: float | None, most: float | None, above: float | None = None, below: float | None = None) -> str:
    """The bounds in words, with a blank before them."""
    low = f" from {least:,.10g}" if least is not None else ""
    if above is not None:
        low = f" above {above:,.10g}"
    if most is None and below is None:
        return f"{low} on" if least is not None else low
    high = f"{most:,.10g}" if most is not None else f"below {below:,.10g}"
    return f"{low} to {high}" if low else f" up to {high}"


def _alternative(words: str) -> str:
    return f", or {words}" if words else ""
