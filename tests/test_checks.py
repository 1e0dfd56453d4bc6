"""The checks of what a user hands over, and that every public argument that takes a number goes through them."""

from __future__ import annotations

import concurrent.futures
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from importlib import import_module
from tempfile import mkdtemp
from typing import Any, get_type_hints

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

import nas
from nas import Categorical, Experiment, LayerChoice, ModelSpace, NasTypeError, NasValueError, SearchSpace, ValueChoice
from nas.checks import (
    as_plain,
    check_bool,
    check_int,
    check_number,
    check_pair,
    check_word,
    plain_int,
    plain_number,
)
from nas.evaluators import (
    Classification,
    FunctionalEvaluator,
    Tabular,
)
from nas.model_zoo import SPACES, list_spaces
from nas.model_zoo import space as zoo_space
from nas.oneshot import DARTS, RelaxedSupernet
from nas.profile import Cost, LatencyTable, profile
from nas.strategies import Policy, Random

NO_NUMBERS: list[object] = [True, False, "3", b"3", None, [3], (1, 2), 3j, object(), torch.tensor(3), numpy.bool_(True)]
CHECKED = settings(max_examples=200, deadline=None, derandomize=True)


# The checks themselves.


@CHECKED
@given(
    number=st.integers(-100, 100),
    least=st.none() | st.integers(-100, 100),
    most=st.none() | st.integers(-100, 100),
    kind=st.sampled_from([int, numpy.int8, numpy.int64]),
)
def test_an_int_within_its_bounds_is_one_of_python(
    number: int, least: int | None, most: int | None, kind: Callable[[int], object]
) -> None:
    if (least is None or number >= least) and (most is None or number <= most):
        found = check_int("width", kind(number), least=least, most=most)
        assert (type(found), found) == (int, number)
    else:
        with pytest.raises(
            NasValueError, match=rf"^Net: width must be an int.*; received .*{number}.* To mend: wider\.$"
        ):
            check_int("width", kind(number), least=least, most=most, where="Net", mend="wider")


@CHECKED
@given(value=st.one_of(st.floats(), st.text(), st.booleans(), st.none(), st.sampled_from(NO_NUMBERS)))
def test_what_is_no_int_is_of_another_kind_whatever_the_bounds(value: object) -> None:
    assert plain_int(value) is None
    with pytest.raises(NasTypeError, match="width must be an int from 1 to 9"):
        check_int("width", value, least=1, most=9)


@CHECKED
@given(
    number=st.one_of(st.floats(), st.integers(-(10**6), 10**6), st.floats(width=32).map(numpy.float32)),
    low=st.floats(-10, 10),
    high=st.floats(-10, 10),
    closed=st.booleans(),
)
def test_a_number_within_its_bounds_is_one_of_python(number: Any, low: float, high: float, closed: bool) -> None:
    bounds: dict[str, Any] = {"least": low, "most": high} if closed else {"above": low, "below": high}
    inside = low <= float(number) <= high if closed else low < float(number) < high
    if inside:
        found = check_number("rate", number, **bounds)
        assert type(found) in (int, float)
        assert found == number
    else:
        with pytest.raises(NasValueError, match="rate must be a(?: finite)? number"):
            check_number("rate", number, **bounds)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_of_another_kind(value: object) -> None:
    assert plain_number(value) is None
    with pytest.raises(NasTypeError, match="rate must be a number; received"):
        check_number("rate", value)


def test_nan_is_no_limit_and_infinity_only_where_it_may_be_one() -> None:
    assert check_number("timeout", math.inf, above=0, infinite=True) == math.inf
    for value, infinite in ((math.nan, True), (math.nan, False), (math.inf, False), (-math.inf, False)):
        with pytest.raises(
            NasValueError, match=f"must be a{'' if infinite else ' finite'} number of seconds above 0, or None"
        ):
            check_number("timeout", value, above=0, infinite=infinite, unit="seconds", or_else="None")


def test_other_kinds_of_numbers_become_plain_ones() -> None:
    assert repr(check_number("rate", Fraction(1, 4))) == "0.25"
    scalars = (numpy.float64(0.1), numpy.int64(3), numpy.bool_(True), "3", None)
    assert list(map(repr, map(as_plain, scalars))) == ["0.1", "3", "True", "'3'", "None"]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, "a number; "),
        ({"least": 0}, "a number from 0 on; "),
        ({"above": 0}, "a number above 0; "),
        ({"most": 5}, "a number up to 5; "),
        ({"below": 1}, "a number up to below 1; "),
        ({"least": 0, "most": 1e6}, "a number from 0 to 1,000,000; "),
        ({"least": 0, "below": 1}, "a number from 0 to below 1; "),
        ({"above": 0, "most": 0.5, "or_else": "None"}, "a number above 0 to 0.5, or None; "),
    ],
)
def test_the_bounds_are_said_in_words(bounds: dict[str, Any], words: str) -> None:
    with pytest.raises(NasTypeError, match=f"rate must be {words}received 'fast'"):
        check_number("rate", "fast", **bounds)


def test_a_switch_is_true_or_false() -> None:
    assert check_bool("hard", numpy.bool_(True)) is True
    assert check_bool("hard", False) is False
    for value in (0, 1, "no", None):
        with pytest.raises(NasTypeError, match='hard must be True or False, or "auto"; received'):
            check_bool("hard", value, or_else='"auto"')


def test_a_word_is_one_of_a_few() -> None:
    check_word("remove", "worst", ("oldest", "worst"))
    with pytest.raises(
        NasValueError, match=r'^E: remove must be "a", "b" or "c"; received \'d\'\. To mend: remove="a"\.$'
    ):
        check_word("remove", "d", ("a", "b", "c"), where="E")
    with pytest.raises(NasValueError, match='To mend: remove="oldest"'):
        check_word("remove", "oldes", ("oldest", "worst"))
    for value in (3, None, ["worst"], True):
        with pytest.raises(NasTypeError, match='remove must be "oldest" or "worst", or None'):
            check_word("remove", value, ("oldest", "worst"), or_else="None")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0.9, NasTypeError),
        ("ab", NasTypeError),
        ((0.9, "b"), NasTypeError),
        ((0.9, True), NasTypeError),
        ((0.9,), NasValueError),
        ((0.9, 1), NasValueError),
        ((math.nan, 0.5), NasValueError),
    ],
)
def test_a_pair_is_two_numbers(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="betas"):
        check_pair("betas", value, least=0, below=1)
    assert check_pair("betas", [numpy.float64(0.5), 0], least=0, below=1) == (0.5, 0)


# Whoever takes a number.

LABELS = TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
TARGETS = TensorDataset(torch.zeros(8, 4), torch.zeros(8, 1))
TREE = SearchSpace.of({"width": Categorical([2, 4])})


@cache
def space() -> ModelSpace:
    return ModelSpace(lambda: nn.Linear(4, ValueChoice([2, 4], label="width")))


@cache
def layers() -> ModelSpace:
    return ModelSpace(lambda: LayerChoice([nn.ReLU, nn.Tanh], label="layer"))


def experiment(**options: Any) -> Experiment:
    evaluator = FunctionalEvaluator(lambda model: 1.0)
    return Experiment(space(), evaluator, Random(), name="checks", directory=mkdtemp(), **options)


@cache
def finished() -> Experiment:
    found = experiment()
    found.run(1, progress="silent")
    return found


def one_shot() -> Experiment:
    evaluator = Classification(LABELS, LABELS)
    return Experiment(layers(), evaluator, DARTS(), name="checks", directory=mkdtemp())


def in_a_trial(*, step: object) -> None:
    job = nas.Job(number=0, sample={}, seed=0, build=lambda sample, seed: (nn.ReLU(), sample))
    job.report(1.0, step)  # type: ignore[arg-type]


def cost() -> Cost:
    return profile(space(), (1, 4)).flops


MAKERS: tuple[object, ...] = (space, layers, cost, mkdtemp)

GIVEN: dict[str, dict[str, Any]] = {
    "nas.Cell": {"operations": {"skip": lambda i: nn.Identity()}, "nodes": 2, "label": "cell"},
    "nas.Experiment": {"space": space, "evaluator": FunctionalEvaluator(lambda model: 1.0), "strategy": Random()}
    | {"name": "checks", "directory": mkdtemp},
    "nas.FuturesExecutor": {"pool": concurrent.futures.ThreadPoolExecutor(1)},
    "nas.Hyperband": {"max_resource": 9},
    "nas.InputChoice": {"n_candidates": 3},
    "nas.Integer": {"low": 1, "high": 3},
    "nas.Patience": {"patience": 1},
    "nas.Real": {"low": 1, "high": 3},
    "nas.Repeat": {"block": nn.Identity, "depth": 1},
    "nas.Subset": {"n": 3, "k": 2},
    "nas.draw": {"architecture": nn.Linear(4, 2), "example_input": (1, 4)},
    "nas.evaluators.Classification": {"train": LABELS, "validation": LABELS},
    "nas.evaluators.LightningEvaluator": {"train": LABELS, "validation": LABELS, "metric": "loss"}
    | {"factory": lambda model: nn.ReLU()},
    "nas.evaluators.Regression": {"train": TARGETS, "validation": TARGETS},
    "nas.evaluators.Run": {"metrics": {"accuracy": 1.0}},
    "nas.evaluators.SimulatedBudget": {"strategy": Random(), "evaluator": Tabular({})},
    "nas.evaluators.read_nasbench101": {"path": "absent"},
    "nas.evaluators.read_nasbench201": {"path": "absent"},
    "nas.evaluators.read_nats_bench": {"path": "absent"},
    "nas.evaluators.Surrogate": {"predict": lambda sample: 1.0},
    "nas.export.to_onnx": {"model": nn.Linear(4, 2), "example_input": torch.zeros(2, 4), "path": "unwritten.onnx"},
    "nas.oneshot.CostPenalty": {"cost": cost, "weight": 1, "target": 1},
    "nas.oneshot.Architecture": {"mixing": None},
    "nas.oneshot.GumbelMixer": {"start": 5, "end": 1, "hard": False, "seed": 0},
    "nas.oneshot.largest_eigenvalue": {"loss": sum, "network": nn.ReLU(), "architecture": None, "batch": None},
    "nas.oneshot.PathSupernet": {"space": layers},
    "nas.oneshot.RelaxedSupernet": {"space": layers},
    "nas.profile.CostConstraint": {"cost": cost, "comparison": "<"},
    "nas.profile.LatencyTable": {"space": space, "example_input": (1, 4)},
    "nas.profile.latency": {"model": nn.Linear(4, 2), "example_input": (1, 4)},
    "nas.profile.latency_table": {"space": space, "example_input": (1, 4)},
    "nas.strategies.Policy": {"space": TREE},
}
"""What else a call needs; of a maker, what it makes."""

CALLS: dict[str, Callable[..., object]] = {
    "nas.Experiment.export_top_models": lambda **given: finished().export_top_models(**given),
    "nas.Experiment.one_shot_report": lambda **given: one_shot().one_shot_report(**given),
    "nas.Experiment.retrain": lambda **given: finished().retrain(**given),
    "nas.Experiment.run": lambda **given: experiment().run(progress="silent", **given),
    "nas.ModelSpace.complete": lambda seed: space().complete({}, seed),
    "nas.ModelSpace.mutate": lambda **given: space().mutate(space().default(), **{"rng": 0, **given}),
    "nas.ModelSpace.sample": lambda seed: space().sample(seed),
    "nas.SearchSpace.mutate": lambda **given: TREE.mutate(TREE.default(), **{"rng": 0, **given}),
    "nas.SearchSpace.sample": lambda seed: TREE.sample(seed),
    "nas.oneshot.RelaxedSupernet.discretise": lambda k: RelaxedSupernet(layers()).discretise(k),
    "nas.profile.LatencyTable.calibrate": lambda **given: LatencyTable(space(), (1, 4)).calibrate(**given),
    "nas.profile.LatencyTable.error": lambda **given: LatencyTable(space(), (1, 4)).error(**given),
    "nas.report": in_a_trial,
    "nas.strategies.Policy.sample": lambda seed: Policy(TREE).sample(seed),
}
"""How what is no constructor or function of a door is called."""

RECORDS = {
    "nas.Assignment": "the experiment makes it",
    "nas.ChosenInputs": "what InputChoice leaves in a model",
    "nas.ExperimentArguments": "the experiment makes it",
    "nas.Job": "the experiment makes it",
    "nas.OneShotTask": "the experiment makes it",
    "nas.Outcome": "an executor makes it",
    "nas.Plan": "the experiment makes it",
    "nas.Task": "the experiment makes it",
    "nas.Trial": "the experiment makes it",
    "nas.evaluators.TrainingEvaluator": "abstract",
    "nas.evaluators.SupervisedModule": "an evaluator makes it, and has checked its numbers",
    "nas.evaluators.fresh": "a search calls it, with a seed that it has made itself",
    "nas.export.OnnxReport": "to_onnx makes it",
    "nas.oneshot.Compared": "trust_report makes it",
    "nas.oneshot.Moment": "a learner makes it",
    "nas.oneshot.SupernetStrategy": "abstract",
    "nas.oneshot.TrustReport": "trust_report makes it",
    "nas.profile.Bounds": "a cost makes it",
    "nas.profile.Cost": "a profile makes it",
    "nas.profile.Latency": "latency makes it",
    "nas.profile.ModelProfile": "profile makes it",
    "nas.profile.ModuleProfile": "profile makes it",
    "nas.profile.ModuleRun": "a dry run makes it",
    "nas.profile.PeakMemory": "profile makes it",
}
"""What is made by the package itself, and by whom."""
ANSWERS = {
    "nas.LayerChoice.default": "one of the candidates, whatever their kind",
    "nas.label_scope.names": "texts, and ints for their texts",
    "nas.report.value": "what an evaluator measured: tensors of one number too",
}
"""Arguments that take numbers, and are no number of something."""
MAY_BE_NEGATIVE = {"failed_reward", "high", "limit", "low", "rng", "seed", "step"}
DOORS = ("nas", "nas.strategies", "nas.oneshot", "nas.evaluators", "nas.profile", "nas.export")


def options(annotation: object) -> set[str]:
    """The members of a union, as they are written."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return {part.strip() for part in text.split("|")}


def kinds(function: Callable[..., object]) -> Iterator[tuple[str, set[str]]]:
    """Each argument with the kinds that its annotation lists, those of keywords in a TypedDict too."""
    for name, parameter in inspect.signature(function).parameters.items():
        if found := re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation)):
            keywords = get_type_hints(vars(sys.modules[function.__module__])[found[1]])
            yield from ((key, options(kind)) for key, kind in keywords.items())
        else:
            yield name, options(parameter.annotation)


def public() -> Iterator[tuple[str, Callable[..., object]]]:
    """The constructors and functions of the doors, and what else stands in the table."""
    for door in DOORS:
        for name in import_module(door).__all__:
            found = getattr(import_module(door), name)
            is_made_by_python = isinstance(found, type) and issubclass(found, Exception | dict)
            if (inspect.isclass(found) or inspect.isfunction(found)) and not is_made_by_python:
                yield f"{door}.{name}", found
    for name in CALLS:
        door, _, path = next((door, "", name[len(door) + 1 :]) for door in reversed(DOORS) if name.startswith(door))
        owner: Any = import_module(door)
        for part in path.split("."):
            owner = getattr(owner, part)
        yield name, owner


def numbers() -> dict[tuple[str, str], bool]:
    """(name, argument) of every public argument that takes a number: whether it must be whole."""
    return {
        (name, argument): "float" not in taken
        for name, function in public()
        if name not in RECORDS
        for argument, taken in kinds(function)
        if taken & {"int", "float", "Rng"} and f"{name}.{argument}" not in ANSWERS
    }


NUMBERS = numbers()
DURATIONS = {
    (name, argument) for name, function in public() for argument, taken in kinds(function) if {"str", "float"} <= taken
}


def call(name: str, argument: str, value: object) -> None:
    """Calls it with a value for one argument, and what it needs besides."""
    function = CALLS.get(name) or dict(public())[name]
    given = {key: each() if each in MAKERS else each for key, each in GIVEN.get(name, {}).items()}
    function(**{**given, argument: value})


def mistakes() -> Iterator[tuple[str, str, object, type[Exception]]]:
    """(name, argument, a value that cannot serve, the error that it is)."""
    for (name, argument), whole in NUMBERS.items():
        yield name, argument, True, NasTypeError
        # A duration may be a text; this one has no unit.
        yield name, argument, "3", NasValueError if (name, argument) in DURATIONS else NasTypeError
        yield name, argument, math.nan, NasTypeError if whole else NasValueError
        if whole:
            yield name, argument, 2.5, NasTypeError
        if argument not in MAY_BE_NEGATIVE:
            yield name, argument, -1, NasValueError


@pytest.mark.parametrize(("name", "argument", "value", "error"), list(mistakes()))
def test_the_same_mistake_is_the_same_error_everywhere(
    name: str, argument: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=argument):
        call(name, argument, value)


def test_what_is_listed_here_is_there() -> None:
    names = {name for name, _ in public()}
    assert names >= {*GIVEN, *CALLS, *RECORDS}
    assert {key.rpartition(".")[0] for key in ANSWERS} <= names


@pytest.mark.parametrize("name", list_spaces())
def test_the_zoo_checks_the_numbers_of_all_its_spaces(name: str) -> None:
    for argument, taken in kinds(SPACES[name].source):
        if "int" in taken:
            for value, error in ((True, NasTypeError), ("3", NasTypeError), (2.5, NasTypeError), (-1, NasValueError)):
                with pytest.raises(error, match=f"model space '{name}': {argument} must be an int from 1 on"):
                    zoo_space(name, **{argument: value})
