"""What an experiment is, as its ledger remembers it, and what differs when another one wants to go on with it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from nas.errors import ExperimentError, explain
from nas.plain_text import printable
from nas.protocols import Evaluator, Objectives, Strategy
from nas.records.fingerprint import VERSION, changed_code, fingerprint, is_users_class
from nas.records.parameters import DATA, changed_parameters, of_data, parameters, space_parameters
from nas.space import ModelSpace


def describe_experiment(
    space: ModelSpace, evaluator: Evaluator, strategy: Strategy, objectives: Objectives, *, seed: int, repeats: int
) -> dict[str, Any]:
    """All that the sequence of samples and their results depend on, as JSON."""
    constraint, shared = space.search_space.constraint, strategy.shared_training
    return {
        "model": space.name,
        "space": space.search_space.describe(),
        **({} if constraint is None else {"constraint": repr(constraint)}),
        "strategy": _strategy_name(type(strategy)),
        "objective": objectives.describe(),
        "named": objectives.names != (None,),
        **({"assumed": True} if objectives.assumed else {}),
        "hyperparameters": sorted(space.hyperparameters),
        "seed": seed,
        "repeats": repeats,
        "code": fingerprint(space.program.source, *space.mutators, evaluator, strategy),
        "parameters": {
            "space": space_parameters(space),
            "strategy": parameters(strategy),
            "evaluator": parameters(evaluator, free=frozenset() if shared is None else shared.evaluator_may_change),
        },
        **({"ranked": True} if shared is not None and shared.ranks else {}),
    }


def _strategy_name(cls: type) -> str:
    """With its module where it is installed; where a user's own class lies is no part of what it is."""
    return cls.__qualname__ if is_users_class(cls) else f"{cls.__module__}.{cls.__qualname__}"


_FIXED = ("objective", "named", "seed", "ranked")
"""What the recorded values and the order of the samples mean: never changed under the same name."""


def refuse_differences(
    ledger: Mapping[str, Any], now: Mapping[str, Any], name: str, *, accept: bool = False
) -> list[str]:
    """Lists what differs between the experiment in the ledger and this one, where that may be and is accepted.

    Args:
        ledger: the header in the ledger.
        now: this experiment's.
        name: of both.
        accept: whether another code, space or strategy is accepted.

    Raises:
        ExperimentError: they differ.
    """
    fixed: list[str] = []
    changes: list[str] = []
    known = str(ledger.get("strategy"))
    if known.endswith(f".{now['strategy']}") and not known.startswith("nas."):
        ledger = {**ledger, "strategy": now["strategy"]}  # Written when the module of a user's class was named too.
    for key in dict.fromkeys([*now, *(["constraint"] if "constraint" in ledger else [])]):
        # As text, for the order counts too: that of the objectives is the order of `Trial.values`.
        if key not in ("space", "code", "parameters", "assumed") and json.dumps(ledger.get(key)) != json.dumps(
            now.get(key)
        ):
            line = f"{key}: {ledger.get(key)!r} then, {now.get(key)!r} now"
            (fixed if key in _FIXED else changes).append(line)
    then, new = ledger.get("space", {}), now["space"]
    for label in dict.fromkeys([*then, *new]):
        if then.get(label) != new.get(label):
            changes.append(f"label {label!r}: {then.get(label, 'absent')} then, {new.get(label, 'absent')} now")
    changes += _changed_making(ledger, now)
    if fixed or (changes and not accept):
        lines = "\n".join(f"  - {line}" for line in (*fixed, *changes))
        way = "" if fixed else ", or go on all the same by accept_changes=True (nas resume --accept-changes)"
        raise ExperimentError(
            explain(
                f"the experiment {name!r} in the ledger is another one than this:\n{lines}\nSo it is not resumed",
                mend=f"restore what differs, or take another name{way}",
            )
        )
    return changes


def _changed_making(ledger: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs in the code, and in the arguments of space, strategy and evaluator."""
    code, known = ledger.get("code"), ledger.get("parameters")
    if known is None:
        # Written before arguments were remembered: some were among the code, and less code was followed.
        then = {name: digest for name, digest in (code or {}).items() if not name.startswith("setting ")}
        return changed_code(then, {name: digest for name, digest in now["code"].items() if name in then})
    lines = [] if code is None else changed_code(code, now["code"])
    for part, then in known.items():
        named = {"space": "model", "strategy": "strategy"}.get(part)
        if named is not None and ledger.get(named) != now.get(named):
            continue  # It is another one, and that is said.
        # Where code has changed that is said already, and digests of another Python's code tell nothing.
        digests = not lines and (code or {}).get(VERSION) == now["code"].get(VERSION)
        for line in changed_parameters(then, now["parameters"][part], digests=digests):
            if of_data(line):
                shown = printable(line.removesuffix(DATA))
                warnings.warn(f"the search is gone on with on other data: {shown}", stacklevel=2)
            else:
                lines.append(line)
    return lines


def amend(ledger: Mapping[str, Any], now: Mapping[str, Any], changes: list[str]) -> dict[str, Any]:
    """The header to go on with: this experiment's, and what has been changed on the way here.

    Optuna lets no parameter of a study change its candidates, so a label of another domain gets a parameter of its own.
    """
    history = list(ledger.get("changes", []))
    renamed = dict(ledger.get("renamed", {}))
    if changes:
        history.append(changes)
    for label, domain in now["space"].items():
        if label in ledger["space"] and ledger["space"][label] != domain:
            renamed[label] = f"{label} ({len(history) + 1})"
    kept = {"changes": history} if history else {}
    return {**now, **kept, **({"renamed": renamed} if renamed else {})}
