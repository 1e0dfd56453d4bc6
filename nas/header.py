"""What an experiment is, as its ledger remembers it, and what differs when another one wants to go on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nas.errors import ExperimentError, explain
from nas.objectives import Objectives
from nas.one_shot import OneShotStrategy
from nas.space import ModelSpace
from nas.strategy import Strategy


def describe_experiment(
    space: ModelSpace, strategy: Strategy, objectives: Objectives, *, seed: int, repeats: int
) -> dict[str, Any]:
    """All that the sequence of samples and their results depend on, as JSON."""
    constraint = space.search_space.constraint
    return {
        "model": space.name,
        "space": space.search_space.describe(),
        **({} if constraint is None else {"constraint": repr(constraint)}),
        "strategy": f"{type(strategy).__module__}.{type(strategy).__qualname__}",
        "objective": objectives.describe(),
        "named": objectives.names != (None,),
        "hyperparameters": sorted(space.hyperparameters),
        "seed": seed,
        "repeats": repeats,
        **({"ranked": True} if isinstance(strategy, OneShotStrategy) else {}),
    }


def refuse_differences(ledger: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raises an ExperimentError that lists what differs, unless the two are the same."""
    differences = [
        f"{key}: {ledger.get(key)!r} then, {now.get(key)!r} now"
        for key in dict.fromkeys([*now, *(["constraint"] if "constraint" in ledger else [])])
        # As text, for the order counts too: that of the objectives is the order of `Trial.values`.
        if key != "space" and json.dumps(ledger.get(key)) != json.dumps(now.get(key))
    ]
    then, new = ledger.get("space", {}), now["space"]
    for label in dict.fromkeys([*then, *new]):
        if then.get(label) != new.get(label):
            differences.append(f"label {label!r}: {then.get(label, 'absent')} then, {new.get(label, 'absent')} now")
    if differences:
        lines = "\n".join(f"  - {line}" for line in differences)
        raise ExperimentError(
            explain(
                f"the experiment {name!r} in the ledger is another one than this:\n{lines}\nSo it cannot be resumed",
                mend="restore what differs, or take another name",
            )
        )
