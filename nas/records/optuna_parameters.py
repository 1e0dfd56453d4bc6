"""Samples as Optuna's parameters and distributions, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.domains import Answer, Domain, Integer, Real

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from nas.space import SearchSpace


def to_optuna(sample: Mapping[str, Answer], space: SearchSpace) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """A sample as Optuna's parameters and distributions, as its domains say (`Domain.parameters`).

    A subset, say, becomes one parameter for each item (taken or not) or each place (which item), and a label with
    several domains one for each (`SearchSpace.variables`). Left out are labels met only through the value of another
    choice, whose domain is not in the tree, and domains that know no parameters.
    """
    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    domains = space.variables
    for label, answer in space.as_variables(sample).items():
        if label in domains:
            answers = domains[label].to_parameters(answer)
            for part, simple in domains[label].parameters().items():
                parameters[label + part], distributions[label + part] = _stored(answers[part], simple)
    return parameters, distributions


def suggest(trial: optuna.Trial, label: str, domain: Domain) -> Answer:
    """The answer that Optuna suggests, under the names and distributions that `to_optuna` writes."""
    return domain.from_parameters({part: _suggest(trial, label + part, d) for part, d in domain.parameters().items()})


def _stored(answer: Answer, domain: Domain) -> tuple[Any, BaseDistribution]:
    """An answer of a simple domain as Optuna holds it, and where it comes from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match domain:
        case Integer(low=low, high=high, step=step, log=log):
            return answer, IntDistribution(low, high, step=step, log=log)
        case Real(low=low, high=high, step=interval, log=log):
            return answer, FloatDistribution(low, high, step=interval, log=log)
    names = _names(domain)
    return names[domain.index(answer)], CategoricalDistribution(names)


def _suggest(trial: optuna.Trial, name: str, domain: Domain) -> Answer:
    match domain:
        case Integer(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case Real(low=low, high=high, step=interval, log=log):
            return trial.suggest_float(name, low, high, step=interval, log=log)
    names = _names(domain)
    return domain.at(names.index(trial.suggest_categorical(name, names)))


def _names(domain: Domain) -> tuple[Any, ...]:
    """The answers as values that Optuna takes, all different: tuples and lists as JSON text."""
    answers = tuple(domain.values())
    if not any(isinstance(answer, tuple | list) for answer in answers):
        return answers
    found: dict[Any, None] = {}
    for answer in answers:
        name = json.dumps(answer) if isinstance(answer, tuple | list) else answer
        while name in found:  # a text that reads as the JSON of another answer
            name = f"{name}'"
        found[name] = None
    return tuple(found)
