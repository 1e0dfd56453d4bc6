"""What a strategy lives through, with several trials under way, is what it lives through again on resume."""

import random
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas import Assignment, Executor, Experiment, Outcome, Plan, Sample, Strategy, Task, Trial, ValueChoice, execute
from nas.evaluators import FunctionalEvaluator


class OutOfOrder(Executor):
    """Eight at a time, collected in any order; dies where it is told to."""

    def __init__(self, seed: int, die_after: int | None = None) -> None:
        self.rng, self.die_after = random.Random(seed), die_after
        self.waiting: list[Assignment] = []

    @property
    def max_concurrency(self) -> int:
        return 8

    @property
    def usual_concurrency(self) -> int:
        return 1

    @property
    def is_isolated(self) -> bool:
        return False

    def start(self, plan: Plan, concurrency: int) -> None:
        self.plan = plan

    def submit(self, assignment: Assignment) -> None:
        self.waiting.append(assignment)

    def collect(self) -> tuple[int, Outcome]:
        if self.die_after == 0:
            raise KeyboardInterrupt
        self.die_after = None if self.die_after is None else self.die_after - 1
        assignment = self.waiting.pop(self.rng.randrange(len(self.waiting)))
        return assignment.number, execute(self.plan, assignment)

    def close(self) -> None:
        self.waiting.clear()


class Diary(Strategy):
    def start(self, task: Task) -> None:
        self.task, self.events = task, []

    def ask(self, number: int) -> Sample:
        return self.task.space.sample(random.Random(f"{number} {len(self.events)} {self.events[-1:]}"))

    def tell(self, trial: Trial) -> None:
        self.events.append((trial.number, str(trial.state), dict(trial.sample), trial.values))


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice(list(range(1, 200)), label="width"))


def picky(model: Any) -> float:
    if model.out_features % 5 == 0:
        raise ValueError("a multiple of five")
    return float(model.out_features)


def make(folder: Path, executor: Executor, strategy: Strategy, *, resume: bool = False) -> Experiment:
    return Experiment(
        space, FunctionalEvaluator(picky), strategy, name="h", directory=folder, executor=executor, resume=resume
    )


@pytest.mark.parametrize("die_after", [0, 1, 5, 17])
def test_the_events_are_relived_in_their_order(tmp_path: Path, die_after: int) -> None:
    live, relived = Diary(), Diary()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, OutOfOrder(1, die_after), live).run(40, concurrency=8, progress="silent")
    assert len(live.events) == 8 + 2 * die_after
    resumed = make(tmp_path, OutOfOrder(2), relived, resume=True)
    assert relived.events == live.events
    begun = [t.number for t in resumed.trials if not t.state.is_finished]
    assert len(begun) == 8
    resumed.run(40, concurrency=8, progress="silent")
    assert len(resumed.trials) == 40
    assert all(t.state.is_finished for t in resumed.trials)
    ended = [number for number, state, *_ in relived.events if state != "RUNNING"]
    assert sorted(ended) == list(range(40))
    again = Diary()
    make(tmp_path, OutOfOrder(3), again, resume=True)
    assert again.events == relived.events
