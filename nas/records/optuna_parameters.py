"""Samples as Optuna's parameters and distributions, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.space import Answer, Categorical, Domain, Integer, Real, Subset

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def to_optuna(
    sample: Mapping[str, Answer], domains: Mapping[str, Domain]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """A sample as Optuna's parameters and distributions.

    Tuples become JSON text; a subset becomes one parameter for each item (taken or not) or each place (which item).
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for label, answer in sample.items():
        match domains.get(label):
            case Categorical(candidates=candidates):
                parameters[label] = _scalar(answer)
                distributions[label] = CategoricalDistribution(tuple(_scalar(c) for c in candidates))
            case Integer(low=low, high=high, step=step, log=log):
                parameters[label] = answer
                distributions[label] = IntDistribution(low, high, step=step, log=log)
            case Real(low=low, high=high, step=interval, log=log):
                parameters[label] = answer
                distributions[label] = FloatDistribution(low, high, step=interval, log=log)
            case Subset(n=n, k=None):
                for item in range(n):
                    parameters[f"{label}[{item}]"] = item in answer
                    distributions[f"{label}[{item}]"] = CategoricalDistribution((False, True))
            case Subset(n=n):
                for place, item in enumerate(answer):
                    parameters[f"{label}[{place}]"] = item
                    distributions[f"{label}[{place}]"] = CategoricalDistribution(tuple(range(n)))
            case _:
                # A label met only through the value of another choice: its domain is not in the tree.
                continue
    return parameters, distributions


def _scalar(value: Answer) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value


def from_scalar(value: Any, domain: Categorical[Any]) -> Answer:
    """The candidate that Optuna holds as this value."""
    return next(candidate for candidate in domain.candidates if _scalar(candidate) == value)
