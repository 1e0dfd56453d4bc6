"""Optuna's samplers as strategies, beyond the contract."""

import optuna
import pytest

from nas import Categorical, Integer, NasTypeError, NasValueError, Real, SearchSpace, Subset, Task, Trial, TrialState
from nas.strategies import TPE, OptunaStrategy, Random
from nas.testing import play, synthetic_table

SPACE = SearchSpace.of(
    {
        "kernel": Categorical([(3, 3), (5, 1), None, "same", True]),
        "width": Integer(8, 64, step=8),
        "depth": Integer(1, 100, log=True),
        "rate": Real(1e-4, 1e-1, log=True),
        "dropout": Real(0, 0.5, step=0.1),
        "any": Subset(2, None),
        "two": Subset(3, 2),
        "pair": Subset(2, 2, replace=True),
        "order": Subset(2, 2, ordered=True),
    }
)


def worth(sample: dict[str, object]) -> float:
    return float(sample["width"] == 64) + float(sample["kernel"] == (5, 1)) + float(0 in sample["any"])  # type: ignore[operator]


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(optuna.samplers.GPSampler(n_startup_trials=4), marks=pytest.mark.slow),
        optuna.samplers.NSGAIISampler(population_size=4),
        optuna.samplers.CmaEsSampler(n_startup_trials=3, warn_independent_sampling=False),
        optuna.samplers.TPESampler(n_startup_trials=4),
        optuna.samplers.RandomSampler(),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_every_domain_reaches_every_sampler(sampler: optuna.samplers.BaseSampler) -> None:
    strategy, again = OptunaStrategy(sampler), OptunaStrategy(sampler)
    for each in (strategy, again):
        each.start(Task(space=SPACE, seed=4))
    for number in range(6):
        sample = strategy.ask(number)
        assert SPACE.validate(sample) == sample
        assert again.ask(number) == sample  # the instance is shared, and nothing leaks through it
        for each in (strategy, again):
            each.tell(Trial(number=number, sample=sample))
            each.tell(Trial(number=number, sample=sample, state=TrialState.COMPLETE, values=(worth(sample),)))


def test_the_sampler_of_the_user_is_not_touched() -> None:
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    play(OptunaStrategy(sampler), synthetic_table("conditional", 0), 10)
    ours = optuna.create_study(sampler=sampler)
    assert ours.ask().suggest_float("x", 0, 1) == study.ask().suggest_float("x", 0, 1)


@pytest.mark.slow
def test_tpe_finds_what_chance_does_not() -> None:
    tables = [synthetic_table("conditional", seed) for seed in range(6)]

    def regret(strategy: TPE | Random) -> float:
        return sum(t.regret(max(trial.value or 0.0 for trial in play(strategy, t, 80))) for t in tables) / len(tables)

    assert regret(TPE()) < 0.6 * regret(Random())


def test_tpe_keeps_the_correlations_of_conditional_choices() -> None:
    import warnings

    from nas.strategies.sampler import OptunaStrategy as Inner

    strategy = TPE(initial=7, candidates=33)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strategy.start(Task(space=SPACE))
    assert isinstance(strategy._strategy, Inner)
    sampler = strategy._strategy.sampler
    assert (sampler._multivariate, sampler._group, sampler._constant_liar) == (True, True, True)  # type: ignore[attr-defined]
    assert (sampler._n_startup_trials, sampler._n_ei_candidates) == (7, 33)  # type: ignore[attr-defined]


def test_stopped_trials_reach_the_sampler_with_their_curves() -> None:
    strategy = OptunaStrategy(optuna.samplers.TPESampler())
    strategy.start(Task(space=SPACE))
    sample = strategy.ask(0)
    strategy.tell(Trial(number=0, sample=sample))
    curve = {0: 0.5, 3: 0.25}
    strategy.tell(Trial(number=0, sample=sample, state=TrialState.STOPPED, values=(0.25,), intermediate=curve))
    (trial,) = strategy._study._study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    assert (trial.intermediate_values, trial.last_step) == (curve, 3)


def test_what_is_no_sampler_is_refused() -> None:
    with pytest.raises(NasTypeError, match="the sampler must be an Optuna sampler, an instance; received 'TPE'"):
        OptunaStrategy("TPE")  # type: ignore[arg-type]
    with pytest.raises(NasTypeError, match="must be an Optuna sampler"):
        OptunaStrategy(optuna.samplers.TPESampler)  # type: ignore[arg-type]
    several = Task(space=SPACE, directions=("maximize", "minimize"))
    with pytest.raises(NasValueError, match="CmaEsSampler refuses several objectives"):
        OptunaStrategy(optuna.samplers.CmaEsSampler()).start(several)
