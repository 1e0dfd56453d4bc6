"""Durations are written as people write them, wherever seconds are taken, and are seconds from there on."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import Experiment, FuturesExecutor, NasError, NasTypeError, NasValueError, ProcessExecutor, RayExecutor
from nas import ValueChoice as Choice
from nas.durations import check_seconds
from nas.evaluators import FunctionalEvaluator, SimulatedBudget, Surrogate, Tabular
from nas.strategies import Random


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("12h", 43200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("1.5h", 5400),
        (" 2D ", 172800),
        ("1d2h3m4.5s", 93784.5),
        (math.inf, math.inf),
        (7, 7),
        (0.5, 0.5),
    ],
)
def test_what_is_a_duration(text: object, seconds: float) -> None:
    assert check_seconds("timeout", text, infinite=True) == seconds


def test_in_a_shell_a_number_is_seconds() -> None:
    assert check_seconds("timeout", "90", bare=True) == 90
    assert check_seconds("timeout", "1h", bare=True) == 3600
    with pytest.raises(NasValueError, match="received 'nan'"):
        check_seconds("timeout", "nan", bare=True)
    with pytest.raises(NasValueError, match="above 0"):
        check_seconds("timeout", "-5", above=0, bare=True)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", NasValueError),
        ("soon", NasValueError),
        ("90", NasValueError),
        ("inf", NasValueError),
        ("30m1h", NasValueError),
        ("1h1h", NasValueError),
        ("-5s", NasValueError),
        ("1:30", NasValueError),
        ("nan", NasValueError),
        ("0s", NasValueError),
        (None, NasTypeError),
        (True, NasTypeError),
        (["12h"], NasTypeError),
    ],
)
def test_what_is_none(value: object, error: type[NasError]) -> None:
    with pytest.raises(error, match="run: timeout must be a") as caught:
        check_seconds("timeout", value, above=0, where="run")
    assert 'a text such as "12h"' in str(caught.value)


def budget(seconds: Any) -> SimulatedBudget:
    return SimulatedBudget(Random(), Tabular({}), seconds=seconds)


@pytest.mark.parametrize(
    "make",
    [
        lambda seconds: ProcessExecutor(grace=seconds),
        lambda seconds: RayExecutor(grace=seconds),
        lambda seconds: FuturesExecutor(ThreadPoolExecutor(1), grace=seconds),
        budget,
        lambda seconds: Surrogate(lambda sample: 1.0, seconds=seconds),
    ],
)
def test_they_are_taken_wherever_seconds_are(make: Callable[[Any], object]) -> None:
    make("1m")
    with pytest.raises(NasValueError, match=r"received 'a while'. To mend: days, hours, minutes"):
        make("a while")


def make(folder: Path, strategy: Any, evaluator: Any, **given: Any) -> Experiment:
    space = lambda: nn.Linear(1, Choice([1, 2, 3], label="width"))  # noqa: E731 - a space is a function
    return Experiment(space, evaluator, strategy, name="e", directory=folder, **given)


def test_a_run_notes_seconds(tmp_path: Path) -> None:
    evaluator = FunctionalEvaluator(lambda model: float(model.out_features))
    experiment = make(tmp_path, Random(), evaluator)
    experiment.run(1, timeout="1h30m", max_trial_time="2m", progress="silent")
    run = Experiment.load(tmp_path / "e").run
    assert (run["timeout"], run["max_trial_time"]) == (5400, 120)
    with pytest.raises(NasValueError, match="run: max_trial_time must be a number of seconds .*'2 weeks'"):
        experiment.run(2, max_trial_time="2 weeks")


def test_it_is_no_change_to_write_them_otherwise(tmp_path: Path) -> None:
    for seconds in ("1h", 3600, "60m"):
        evaluator = Surrogate(lambda sample: 1.0, seconds=seconds)
        strategy = SimulatedBudget(Random(), evaluator, seconds=seconds)
        make(tmp_path, strategy, evaluator, resume=True)._session.opened()
    strategy = SimulatedBudget(Random(), evaluator, seconds="2h")
    with pytest.raises(NasError, match="seconds"):
        make(tmp_path, strategy, evaluator, resume=True)
