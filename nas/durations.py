"""Durations: seconds as a number, or as people write them, as "90s", "1h30m" or "1d"."""

from __future__ import annotations

import re

from nas.checks import check_number
from nas.errors import NasTypeError, NasValueError

_UNITS = {"d": 86400.0, "h": 3600.0, "m(?:in)?": 60.0, "s": 1.0}
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_PARTS = re.compile(r"\s*".join(rf"(?:({_NUMBER})\s*{unit})?" for unit in _UNITS))


def check_seconds(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    infinite: bool = False,
    bare: bool = False,
    or_else: str = "",
    where: str = "",
) -> float:
    """Refuses anything but a duration within bounds.

    Args:
        name: of the argument.
        value: what was given: a number of seconds, or a text that says days, hours, minutes and seconds, in this order.
        least: the bound, included; None for none.
        above, below: bounds that are not included; None for none.
        infinite: whether it may be infinite, as a limit that is never reached.
        bare: whether a text may be a number alone, of seconds, as in a shell, where all is text.
        or_else: what else may be given, in words; the caller lets it pass.
        where: whose argument it is.

    Returns:
        The number of seconds.

    Raises:
        NasTypeError: neither a number nor a text.
        NasValueError: a text that says no duration, or one outside the bounds.

    Example:
        >>> check_seconds("timeout", "1h30m"), check_seconds("timeout", "1.5d"), check_seconds("timeout", 90)
        (5400.0, 129600.0, 90)
        >>> check_seconds("timeout", "90 sec", or_else="None", where="run")
        Traceback (most recent call last):
        ...
        nas.errors.NasValueError: run: timeout must be a number of seconds, or None, or a text such as "12h", "1h30m" \
or "90s"; received '90 sec'. To mend: days, hours, minutes and seconds, in this order, each a number and d, h, m or s.
    """
    bad = isinstance(value, str) and (found := _read(str(value), bare=bare)) is None
    alternatives = f'{f"{or_else}, or " if or_else else ""}a text such as "12h", "1h30m" or "90s"'
    try:
        return check_number(
            name,
            found if isinstance(value, str) and not bad else value,
            least=least,
            above=above,
            below=below,
            infinite=infinite,
            unit="seconds",
            or_else=alternatives,
            where=where,
            mend="days, hours, minutes and seconds, in this order, each a number and d, h, m or s" if bad else "",
        )
    except NasTypeError as error:
        if not bad:
            raise
        raise NasValueError(str(error)) from None  # A text is of a kind that is taken.


def _read(text: str, *, bare: bool) -> float | None:
    """The seconds that a text says; None for one that says none."""
    if bare and re.fullmatch(rf"\s*-?(?:{_NUMBER})\s*", text):
        return float(text)
    found = _PARTS.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        return None
    return sum(float(number) * unit for number, unit in zip(found.groups(), _UNITS.values(), strict=True) if number)
