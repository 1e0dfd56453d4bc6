"""What this package writes beside Optuna's own records, and what each of it must be when it is read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from nas.domains import loads_sample
from nas.errors import ExperimentError, NasError, explain
from nas.records.disk import (
    Rule,
    broken,
    count,
    flag,
    listed,
    mapped,
    nullable,
    number,
    one_of,
    optional,
    text,
    whole,
)

HEADER: Final = "nas:experiment"
"""The key, among the attributes of a study, of what the experiment is."""
QUEUE, STOPS, RUN, CHANGES, KILLS = "nas:queue", "nas:stops", "nas:run", "nas:changes", "nas:kills"
"""Their keys there: samples in the queue, and what was asked of those who run the experiment."""
ASKED, RESULT = "nas:asked", "nas:result"
"""The keys, among the attributes of a trial, of what is known when it begins, and when it has ended."""
PASSED, PAUSE = "nas:passed", "nas:pause"
"""Their keys there: how many rungs it has been let pass, and where it waits."""

_LIMITS = {"max_trials", "timeout", "concurrency", "max_trial_time"}
_DEEPEST = 32
"""So many brackets the text of a sample has, before it is looked how deep they lie in each other."""


def sample(value: object) -> bool:
    """The text of a sample."""
    if not isinstance(value, str) or (value.count("[") > _DEEPEST and _depth(value) > _DEEPEST):
        return False
    try:
        loads_sample(value)
    except (NasError, ValueError, TypeError, RecursionError):
        return False
    return True


def _depth(value: str) -> int:
    """How deep brackets lie in each other; those in texts count too."""
    deepest = depth = 0
    for character in value:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    return deepest


def _queued(value: object) -> bool:
    if isinstance(value, str):
        return sample(value)
    return isinstance(value, list) and len(value) == 2 and sample(value[0]) and nullable(count)(value[1])


def _change(value: object) -> bool:
    return isinstance(value, dict) and value.keys() <= _LIMITS and all(map(nullable(number), value.values()))


def _input(value: object) -> bool:
    return isinstance(value, dict) and (
        not broken(value, {"shape": listed(count), "dtype": text, "name": optional(text)})
        or ("value" in value and not broken(value, {"name": optional(text)}))
    )


def _parameters(value: object) -> bool:
    return (
        isinstance(value, dict) and value.keys() <= {"space", "strategy", "evaluator"} and mapped(mapped(text))(value)
    )


def _metric(value: object) -> bool:
    return isinstance(value, bool) or number(value)


_RULES: dict[str, dict[str, Rule]] = {
    HEADER: {
        "model": optional(nullable(text)),
        "space": mapped(text),
        "constraint": optional(text),
        "strategy": text,
        "objective": mapped(one_of("maximize", "minimize"), least=1),
        "named": flag,
        "assumed": optional(flag),
        "hyperparameters": optional(listed(text)),
        "seed": whole,
        "repeats": count,
        "code": optional(nullable(mapped(text))),
        "parameters": optional(nullable(_parameters)),
        "ranked": optional(flag),
        "changes": optional(listed(listed(text))),
        "renamed": optional(mapped(text)),
    },
    RUN: {
        **dict.fromkeys(("max_trials", "concurrency", "most", "size", "place"), optional(nullable(count))),
        **dict.fromkeys(("timeout", "max_trial_time"), optional(nullable(number))),
        "changes": optional(count),
        "began": number,
        "finished": optional(count),
        "file": optional(text),
        "module": optional(text),
        "arguments": optional(listed(text)),
    },
    ASKED: {
        "sample": sample,
        "seed": count,
        "told": count,
        "place": optional(count),
        "supernet_steps": optional(count),
        "again": optional(flag),
        "mark": optional(text),
    },
    RESULT: {
        "order": count,
        "sample": optional(sample),
        "metrics": optional(mapped(_metric)),
        "repeats": optional(listed(mapped(_metric))),
        "duration": optional(number),
        "error": optional(text),
        "inputs": optional(listed(_input)),
        "same_as": optional(count),
        "steps": optional(listed(whole)),
    },
    PAUSE: {"sample": sample, "duration": number, "inputs": listed(_input), "rung": nullable(count)},
}
_VALUES: dict[str, Rule] = {
    QUEUE: listed(_queued),
    STOPS: count,
    CHANGES: listed(_change),
    KILLS: listed(count),
    PASSED: count,
}


def wrong_attribute(key: str, value: Any) -> str:
    """What is wrong with an attribute that this package has written; nothing where it is as it must be, or another's.

    Example:
        >>> wrong_attribute("nas:stops", 2), wrong_attribute("nas:stops", "two"), wrong_attribute("mine", "two")
        ('', "it cannot be 'two'", '')
    """
    if key in _RULES:
        return broken(value, _RULES[key])
    return broken({"it": value}, {"it": _VALUES[key]}).replace("'it'", "it", 1) if key in _VALUES else ""


def refuse_damaged(attributes: Mapping[str, Any], keys: Iterable[str], place: str) -> None:
    """Looks whether attributes are what they must be.

    Args:
        attributes: of a study or a trial.
        keys: of those that are looked at, where they are there.
        place: where the ledger is, for the message.

    Raises:
        ExperimentError: one is not.
    """
    for key in keys:
        if key in attributes and (wrong := wrong_attribute(key, attributes[key])):
            raise ExperimentError(
                explain(f"the ledger is damaged, at {key!r}: {wrong}", got=place, mend="restore it from a copy")
            )
