"""A strategy of your own: each answer is taken from one of the five best samples so far, or drawn afresh.

Run it by `python examples/own_strategy.py`: it is compared with random search on tables whose best sample is known,
and then searches a model space in an experiment.
"""

from __future__ import annotations

import statistics
import tempfile

from torch import nn

from nas import Answer, Choice, Experiment, LayerChoice, Repeat, Sample, Strategy, Task, Trial, ValueChoice, model_space
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random
from nas.testing import play, synthetic_table


class Elites(Strategy):
    """An estimation of distribution: univariate, over the five best (Mühlenbein and Paaß 1996)."""

    def start(self, task: Task) -> None:
        self.task, self.done = task, list[Trial]()

    def ask(self, number: int) -> Sample:
        rng, elites = self.task.rng(number), sorted(self.done, key=self.task.losses)[:5]

        def decide(choice: Choice) -> Answer:
            answers = [trial.sample[choice.label] for trial in elites if choice.label in trial.sample]
            return rng.choice(answers) if answers and rng.random() < 0.9 else choice.domain.sample(rng)

        return self.task.space.walk(decide)

    def tell(self, trial: Trial) -> None:
        self.done += [trial] if trial.values else []


@model_space
class Net(nn.Module):
    """A few hundred small networks for vectors (batch, 8)."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([8, 16, 32, 64], label="width")

        def block(i: int) -> nn.Module:
            return nn.Sequential(nn.Linear(width, width), LayerChoice([nn.ReLU, nn.GELU, nn.Tanh]))

        self.layers = nn.Sequential(nn.Linear(8, width), Repeat(block, (1, 4), label="depth"))


def closeness(model: nn.Module) -> float:
    """How near the number of parameters is to 5,000."""
    return -abs(sum(p.numel() for p in model.parameters()) - 5000)


def main() -> None:
    for strategy in (Random(), Elites()):
        regrets = []
        for seed in range(5):
            table = synthetic_table("conditional", seed)
            best = max(trial.value or 0.0 for trial in play(strategy, table, 100, seed=seed))
            regrets.append(table.regret(best))
        print(f"{type(strategy).__name__}: mean regret {statistics.fmean(regrets):.3f} after 100 evaluations")
    experiment = Experiment(
        Net(), FunctionalEvaluator(closeness), Elites(), name="elites", directory=tempfile.mkdtemp()
    )
    experiment.run(60)
    print(f"best: {experiment.best_trial.value} with {experiment.best_trial.sample}")


if __name__ == "__main__":
    main()
