"""Early stopping in real experiments."""

import math
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from torch import nn

import nas
from nas import (
    Experiment,
    Hyperband,
    MedianStop,
    NasTypeError,
    NasValueError,
    Patience,
    Real,
    SuccessiveHalving,
    Trial,
    TrialState,
    ValueChoice,
)
from nas.evaluators import FunctionalEvaluator
from nas.strategies import LocalSearch, Random


class Quality(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quality = ValueChoice(Real(0, 1), label="quality")


def flat_curves(steps: int, first: int = 0) -> Callable[..., float]:
    """A trial reports its quality at every step."""

    def evaluate(model: Quality) -> float:
        for step in range(first, first + steps):
            nas.report(model.quality, step=step)
        return model.quality

    return evaluate


def run(folder: Path, function: Callable[..., float], trials: int, rule: object, **options: object) -> list[Trial]:
    experiment = Experiment(
        Quality,
        FunctionalEvaluator(function),
        options.pop("strategy", None) or Random(),  # type: ignore[arg-type]
        name=str(options.pop("name", "stopped")),
        directory=folder,
        early_stopping=rule,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )
    experiment.run(trials, progress="silent")
    return experiment.trials


PUBLISHED = (
    ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81)),
    ((34, 3), (11, 9), (3, 27), (1, 81)),
    ((15, 9), (5, 27), (1, 81)),
    ((8, 27), (2, 81)),
    ((5, 81),),
)
"""Li et al. 2018, table 1."""


def test_hyperband_has_the_published_schedule() -> None:
    assert Hyperband(min_resource=1, max_resource=81, reduction_factor=3).brackets == PUBLISHED
    assert len(Hyperband(max_resource=243).brackets) == 6  # log(243) / log(3) is 4.999... in floats
    assert Hyperband(max_resource=1).brackets == (((1, 1),),)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("least", [1, 2, 5])
def test_the_schedule_is_that_of_the_paper_for_any_largest_resource(least: int, factor: int) -> None:
    for largest in range(least, 300):
        deepest = max(s for s in range(12) if least * factor**s <= largest)  # floor(log(R / r)), without its floats
        published = tuple(
            tuple(
                (
                    math.ceil(Fraction((deepest + 1) * factor**s, s + 1)) // factor**i,
                    Fraction(largest, factor ** (s - i)),
                )
                for i in range(s + 1)
            )
            for s in range(deepest, -1, -1)
        )
        rule = Hyperband(min_resource=least, max_resource=largest, reduction_factor=factor)
        assert rule.trials_per_round == sum(bracket[0][0] for bracket in published)
        for mine, theirs in zip(rule.brackets, published, strict=True):
            assert [trials for trials, _ in mine] == [trials for trials, _ in theirs]
            assert all(abs(r - exact) <= Fraction(1, 2) for (_, r), (_, exact) in zip(mine, theirs, strict=True))
            resources = [r for _, r in mine]
            assert resources == sorted(set(resources))
            assert (resources[0] >= least, resources[-1]) == (True, largest)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("largest", "rungs"), [(10, [{1, 3}, {3}, set()]), (8, [{3}, set()])])
def test_trials_are_judged_at_the_rungs_of_their_bracket_and_no_others(
    tmp_path: Path, largest: int, rungs: list[set[int]], first: int
) -> None:
    rule = Hyperband(max_resource=largest)
    trials = run(tmp_path, flat_curves(largest, first), 2 * rule.trials_per_round, rule)
    for bracket, mine in enumerate(rungs):
        ends = {len(trial.intermediate) for trial in trials if rule.bracket_of(trial.number) == bracket}
        assert ends == mine | {largest}


def test_a_rung_that_no_report_is_made_at_is_judged_by_the_next(tmp_path: Path) -> None:
    def every_fourth(model: Quality) -> float:
        for step in (4, 8, 12, 16, 20, 24, 27):
            nas.report(model.quality, step=step)
        return model.quality

    rule = Hyperband(max_resource=27)  # 1 and 3 are judged at 4, 9 at 12
    trials = run(tmp_path, every_fourth, rule.trials_per_round, rule)
    ends = [{max(t.intermediate) for t in trials if rule.bracket_of(t.number) == i} for i in range(4)]
    assert ends == [{4, 12, 27}, {4, 12, 27}, {12, 27}, {27}]


def test_a_search_says_how_many_trials_a_round_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = Hyperband(max_resource=9)
    assert rule.trials_per_round == 17
    whole = "a full round of Hyperband's brackets takes 17 trials"
    short = f"{whole}; with 4 of them, the later brackets are not filled"
    for trials, expected in ((4, short), (17, whole)):
        experiment = Experiment(
            Quality,
            FunctionalEvaluator(flat_curves(9)),
            Random(),
            name=str(trials),
            directory=tmp_path,
            early_stopping=rule,
        )
        experiment.run(trials, progress="plain")
        assert expected in capsys.readouterr().out.splitlines()


def test_hyperband_fills_and_halves_its_brackets_as_published(tmp_path: Path) -> None:
    rule = Hyperband(max_resource=81)
    trials = run(tmp_path, flat_curves(81), 143, rule)
    for i, bracket in enumerate(PUBLISHED):
        members = [trial for trial in trials if rule.bracket_of(trial.number) == i]
        assert len(members) == bracket[0][0]
        for _, resource in bracket[:-1]:
            judged = [trial for trial in members if len(trial.intermediate) >= resource]
            seen: list[float] = []
            for trial in judged:
                # Asynchronous halving: the best third of those that came so far, and at least one.
                seen.append(trial.sample["quality"])
                passes = seen[-1] >= sorted(seen, reverse=True)[max(1, len(seen) // 3) - 1]
                assert (len(trial.intermediate) > resource) == passes
        assert {len(t.intermediate) for t in members} <= {resource for _, resource in bracket}
        assert all((t.state is TrialState.COMPLETE) == (len(t.intermediate) == 81) for t in members)
    passed = sum(len(trial.intermediate) > 1 for trial in trials[:81])
    assert 20 <= passed <= 34  # 27 in the published schedule; asynchronously, about that


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_successive_halving_counts_steps_from_zero_or_one(tmp_path: Path, direction: str) -> None:
    rule = SuccessiveHalving(min_resource=2, max_resource=18)
    assert rule.rungs == (2, 6)
    found = [
        run(tmp_path, flat_curves(18, first), 30, rule, name=f"from {first}", objective=direction) for first in (0, 1)
    ]
    lengths = [[len(trial.intermediate) for trial in trials] for trials in found]
    assert lengths[0] == lengths[1]
    assert set(lengths[0]) == {2, 6, 18}
    best = min if direction == "minimize" else max
    kept = best(found[0], key=lambda trial: trial.sample["quality"])
    assert kept.state is TrialState.COMPLETE


def test_a_stopped_trial_keeps_its_curve_and_its_last_value(tmp_path: Path) -> None:
    trials = run(tmp_path, flat_curves(10), 20, MedianStop(warmup_trials=3, warmup_steps=4, interval=2))
    stopped = [trial for trial in trials if trial.state is TrialState.STOPPED]
    assert 5 <= len(stopped) <= 15
    assert not {trial.number for trial in stopped} & {0, 1, 2}
    for trial in stopped:
        assert list(trial.intermediate) == list(range(5))
        assert trial.value == trial.sample["quality"]
    assert Experiment.load(tmp_path / "stopped").trials == trials


def test_patience_waits_for_something_better(tmp_path: Path) -> None:
    def rises_then_rests(model: Quality) -> float:
        top = 3 + int(model.quality * 4)
        for step in range(20):
            nas.report(float(min(step, top)), step=step)
        return 20.0

    trials = run(tmp_path, rises_then_rests, 5, Patience(patience=4))
    for trial in trials:
        assert trial.state is TrialState.STOPPED
        assert len(trial.intermediate) == 3 + int(trial.sample["quality"] * 4) + 1 + 4
    trials = run(tmp_path, rises_then_rests, 3, Patience(4, min_delta=1.5), name="impatient")
    for trial in trials:
        assert len(trial.intermediate) == 3 + int(trial.sample["quality"] * 4) + 1 + 3  # a rise of 1 is too little


def test_strategies_make_use_of_stopped_trials(tmp_path: Path) -> None:
    trials = run(
        tmp_path,
        flat_curves(9),
        60,
        SuccessiveHalving(max_resource=9),
        strategy=LocalSearch(),
    )
    assert sum(trial.state is TrialState.STOPPED for trial in trials) > 20
    later = [trial.sample["quality"] for trial in trials[40:]]
    assert sum(later) / len(later) > 0.6


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match="Hyperband: max_resource must be an int from 9 on; received 3"):
        Hyperband(min_resource=9, max_resource=3)
    with pytest.raises(NasTypeError, match="max_resource must be an int from 1 on; received 81.0"):
        Hyperband(max_resource=81.0)  # type: ignore[arg-type]
    with pytest.raises(NasValueError, match="SuccessiveHalving: reduction_factor must be an int from 2 on"):
        SuccessiveHalving(reduction_factor=1)
    with pytest.raises(NasValueError, match="MedianStop: warmup_trials must be an int from 0 on"):
        MedianStop(warmup_trials=-1)
    with pytest.raises(NasValueError, match="Patience: min_delta must be a number from 0 on"):
        Patience(3, min_delta=-1.0)
    with pytest.raises(NasTypeError, match="early_stopping is a nas.EarlyStopping .* or an Optuna pruner"):
        run(tmp_path, flat_curves(2), 2, "median")
    with pytest.raises(NasValueError, match="early stopping needs a single objective"):
        run(tmp_path, flat_curves(2), 2, MedianStop(), objective={"a": "maximize", "b": "minimize"})


def test_the_bracket_of_a_trial_is_found_by_its_number() -> None:
    rule = Hyperband(max_resource=9)
    sizes = [bracket[0][0] for bracket in rule.brackets]
    assert sizes == [9, 5, 3]
    found = [rule.bracket_of(number) for number in range(34)]
    assert found == ([0] * 9 + [1] * 5 + [2] * 3) * 2
    assert rule.bracket_of(random.Random(0).randrange(10**9)) in (0, 1, 2)
