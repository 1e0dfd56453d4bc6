"""PPO beyond the contract."""

import importlib.util
from typing import Any

import pytest

from nas import Categorical, MissingDependency, NasValueError, SearchSpace, Task, Trial, TrialState
from nas.strategies import PPO
from nas.testing import play, synthetic_table


@pytest.mark.slow  # The contract of strategies has a shorter form of it.
def test_the_controller_comes_to_propose_better_samples() -> None:
    table = synthetic_table("conditional", 1)
    trials = play(PPO(), table, 200, seed=0)
    regrets = [table.regret(trial.value or 0.0) for trial in trials]
    assert sum(regrets[150:]) / 50 < 0.6 < sum(regrets[:20]) / 20


@pytest.mark.slow
def test_a_failed_trial_has_the_stated_reward() -> None:
    """Trials of one answer fail; the controller learns to leave it alone, and the more so the worse the reward."""
    space = SearchSpace.of({"risk": Categorical(["none", "some"]), "seed": Categorical(range(500))})

    def risky(failed_reward: float) -> float:
        strategy = PPO(trials_per_update=10, failed_reward=failed_reward)
        strategy.start(Task(space=space))
        late = 0
        for number in range(120):
            sample = strategy.ask(number)
            strategy.tell(Trial(number=number, sample=sample))
            fails = sample["risk"] == "some"
            state = TrialState.FAILED if fails else TrialState.COMPLETE
            values = None if fails else (sample["seed"] % 7 / 7,)
            strategy.tell(Trial(number=number, sample=sample, state=state, values=values))
            late += number >= 80 and fails
        return late / 40

    assert risky(-3.0) < 0.2
    assert risky(3.0) > 0.8


def test_results_that_come_late_are_weighed_by_the_policy_that_proposed_them() -> None:
    strategy = PPO(trials_per_update=4)
    space = SearchSpace.of({"a": Categorical(range(50)), "b": Categorical(range(50))})
    strategy.start(Task(space=space))
    late = strategy.ask(0)
    strategy.tell(Trial(number=0, sample=late))
    for number in range(1, 41):
        sample = strategy.ask(number)
        strategy.tell(Trial(number=number, sample=sample))
        value = float(sample["a"])
        strategy.tell(Trial(number=number, sample=sample, state=TrialState.COMPLETE, values=(value,)))
    before = strategy._running[0].log_probs
    assert sum(before) == pytest.approx(2 * -3.912, abs=0.01)  # uniform, as it was then
    assert strategy._controller.episode(late).log_probs != before
    strategy.tell(Trial(number=0, sample=late, state=TrialState.COMPLETE, values=(1.0,)))


def test_without_tianshou_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def hidden(name: str, *args: Any) -> Any:
        return None if name == "tianshou" else found(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    with pytest.raises(MissingDependency, match=r'pip install "torch-nas\[rl\]"'):
        PPO().start(Task(space=SearchSpace.of({"a": Categorical([1, 2])})))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(NasValueError, match="PPO: clip must be a number from 0 to 1; received 2"):
        PPO(clip=2)
    with pytest.raises(NasValueError, match="trials_per_update must be an int from 1 on"):
        PPO(0)
    task = Task(space=SearchSpace.of({"a": Categorical([1, 2])}), directions=("maximize", "minimize"))
    with pytest.raises(NasValueError, match="PPO searches for one objective; received '2 objectives'"):
        PPO().start(task)
