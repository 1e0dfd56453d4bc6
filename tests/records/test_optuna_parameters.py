"""Samples as Optuna's parameters: under the names and distributions that ledgers hold already."""

import json
from typing import Any

import optuna
from hypothesis import given
from hypothesis import strategies as st

from nas import Categorical, Integer, Real, SearchSpace, Subset
from nas.records.optuna_parameters import suggest, to_optuna

DOMAINS = {
    "kernel": Categorical([(3, 3), (5, 5)]),
    "activation": Categorical(["relu", None, True, 2, 0.5]),
    "layers": Integer(1, 8),
    "even": Integer(0, 9, step=2),
    "rate": Real(1e-3, 1, log=True),
    "dropout": Real(0, 0.5, step=0.1),
    "some": Subset(3, None),
    "two": Subset(3, 2),
    "none": Subset(3, 0),
}
SAMPLE = {
    "kernel": (3, 3),
    "activation": None,
    "layers": 4,
    "even": 6,
    "rate": 0.1,
    "dropout": 0.2,
    "some": [1],
    "two": [0, 2],
    "none": [],
    "met later": 1,
}
STORED: dict[str, tuple[Any, dict[str, Any]]] = {
    "kernel": ("[3, 3]", {"choices": ["[3, 3]", "[5, 5]"]}),
    "activation": (None, {"choices": ["relu", None, True, 2, 0.5]}),
    "layers": (4, {"log": False, "step": 1, "low": 1, "high": 8}),
    "even": (6, {"log": False, "step": 2, "low": 0, "high": 8}),
    "rate": (0.1, {"log": True, "step": None, "low": 0.001, "high": 1.0}),
    "dropout": (0.2, {"log": False, "step": 0.1, "low": 0.0, "high": 0.5}),
    "some[0]": (False, {"choices": [False, True]}),
    "some[1]": (True, {"choices": [False, True]}),
    "some[2]": (False, {"choices": [False, True]}),
    "two[0]": (0, {"choices": [0, 1, 2]}),
    "two[1]": (2, {"choices": [0, 1, 2]}),
}


def test_names_values_and_distributions_are_those_of_stored_ledgers() -> None:
    parameters, distributions = to_optuna(SAMPLE, SearchSpace.of(DOMAINS))
    assert parameters == {name: value for name, (value, _) in STORED.items()}
    assert list(parameters) == list(distributions)
    for name, (value, attributes) in STORED.items():
        assert json.loads(optuna.distributions.distribution_to_json(distributions[name]))["attributes"] == attributes
        assert distributions[name]._contains(distributions[name].to_internal_repr(value)), name


@given(st.integers(0, 10**6))
def test_what_is_suggested_under_these_names_is_the_sample(seed: int) -> None:
    space = SearchSpace.of(DOMAINS)
    sample = space.sample(seed)
    parameters, _ = to_optuna(sample, space)
    trial: Any = optuna.trial.FixedTrial(parameters)
    assert {label: suggest(trial, label, domain) for label, domain in DOMAINS.items()} == sample


def test_a_text_that_reads_as_the_json_of_another_answer_stays_apart() -> None:
    domains = {"kernel": Categorical([(3, 3), "[3, 3]", "same"])}
    space = SearchSpace.of(domains)
    stored = [to_optuna({"kernel": answer}, space)[0]["kernel"] for answer in domains["kernel"].values()]
    assert len(set(stored)) == 3
    found = [suggest(optuna.trial.FixedTrial({"kernel": value}), "kernel", domains["kernel"]) for value in stored]
    assert found == [(3, 3), "[3, 3]", "same"]
