"""What values read from a file must be: rules for the fields of JSON objects, and what breaks one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias, final

from nas.errors import shown

Rule: TypeAlias = Callable[[object], bool]
"""Whether a value is what it must be."""
_LONGEST = 120
"""Characters of a value that is shown."""


@final
class Absent:
    """What stands for a field that is not there."""


_ABSENT = Absent()


def broken(value: object, fields: Mapping[str, Rule]) -> str:
    """What is wrong with a JSON object, in words; nothing where each of these fields is as it must be.

    Example:
        >>> broken({"seed": "one"}, {"seed": whole})
        "'seed' cannot be 'one'"
        >>> broken({}, {"seed": whole}), broken({"seed": 1}, {"seed": whole})
        ("'seed' is missing", '')
    """
    if not isinstance(value, dict):
        return f"it cannot be {brief(value)}"
    for field, rule in fields.items():
        found = value.get(field, _ABSENT)
        if not rule(found):
            missing = isinstance(found, Absent)
            return f"{field!r} is missing" if missing else f"{field!r} cannot be {brief(found)}"
    return ""


def brief(value: object) -> str:
    """A value in a few words."""
    text = shown(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def text(value: object) -> bool:
    """A text."""
    return isinstance(value, str)


def flag(value: object) -> bool:
    """True or False."""
    return isinstance(value, bool)


def whole(value: object) -> bool:
    """A whole number."""
    return type(value) is int


def count(value: object) -> bool:
    """A whole number that is not negative, and no larger than anything that is counted."""
    return type(value) is int and 0 <= value < 1 << 63


def number(value: object) -> bool:
    """A number that a float can hold; NaN is one."""
    if type(value) is not int:
        return type(value) is float
    try:
        float(value)
    except OverflowError:
        return False
    return True


def moment(value: object) -> bool:
    """A date and time."""
    if not isinstance(value, str):
        return False
    try:
        datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError, OSError):
        return False
    return True


def one_of(*values: object) -> Rule:
    """One of some values."""
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def listed(rule: Rule, *, least: int = 0) -> Rule:
    """A list of what a rule allows."""
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(rule, value))


def mapped(rule: Rule, *, least: int = 0) -> Rule:
    """An object whose values a rule allows."""
    return lambda value: isinstance(value, dict) and len(value) >= least and all(map(rule, value.values()))


def shaped(fields: Mapping[str, Rule]) -> Rule:
    """An object with some fields."""
    return lambda value: not broken(value, fields)


def anything(value: object) -> bool:
    """Whatever is there."""
    return not isinstance(value, Absent)


def nullable(rule: Rule) -> Rule:
    """None, or what a rule allows."""
    return lambda value: value is None or rule(value)


def optional(rule: Rule) -> Rule:
    """Nothing, or what a rule allows."""
    return lambda value: isinstance(value, Absent) or rule(value)
