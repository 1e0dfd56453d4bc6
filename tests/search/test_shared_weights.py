"""A strategy that trains something shared of its own is a one-shot strategy, whatever it derives from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas import (
    Evaluator,
    Experiment,
    ExperimentArguments,
    ExperimentError,
    Job,
    LayerChoice,
    MedianStop,
    ModelSpace,
    NasError,
    OneShotTask,
    Sample,
    SearchSpaceExhausted,
    SharedTraining,
    Strategy,
    Task,
    Trial,
)
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Chain, Random
from nas.testing import refused

KINDS = {"half": 0.5, "one": 1.0, "two": 2.0}


class Scaled(nn.Module):
    """(n, 1) times a factor and a weight."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.weight = factor, nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight * self.factor


def network() -> nn.Module:
    return LayerChoice({name: lambda factor=factor: Scaled(factor) for name, factor in KINDS.items()}, label="kind")


class Judged(Evaluator):
    """Says how far the outputs are from 2, with the shared weight."""

    def __init__(self, training: "OneWeight") -> None:
        self._training = training

    def evaluate(self, job: Job) -> dict[str, float]:
        return {"error": self._training.error(job.sample)}


class OneWeight(SharedTraining):
    """One number that all samples share, trained for as long as the time allows; kept in a file."""

    def __init__(self, *, ranks: bool = True, goal: int = 3, counted: bool = False) -> None:
        self.order: list[Sample] = []
        self._ranks, self._goal, self._counted, self._weight = ranks, goal, counted, 0.0

    @property
    def ranks(self) -> bool:
        return self._ranks

    @property
    def steps(self) -> int | None:
        return round(3 * self._weight) if self._counted else None

    def refuse(self, arguments: ExperimentArguments) -> None:
        if arguments.early_stopping is not None:
            raise NasError("one weight stops no trial early")

    def search(self, task: OneShotTask) -> Evaluator | None:
        task.directory.mkdir(parents=True, exist_ok=True)
        file = task.directory / "weight.json"
        steps = json.loads(file.read_text()) if file.exists() else 0
        while steps < self._goal:
            steps += 1
            file.write_text(json.dumps(steps))
            task.note(f"step {steps}")
            if task.deadline is not None:
                return None
        self._trained(task)
        return Judged(self)

    def restore(self, task: OneShotTask) -> None:
        if not (task.directory / "weight.json").exists():
            raise ExperimentError("no weight is trained yet")
        self._trained(task)

    def _trained(self, task: OneShotTask) -> None:
        self._weight = json.loads((task.directory / "weight.json").read_text()) / 3
        # By chance the worst comes first: the ranking is its own.
        self.order = [{"kind": "half"}, {"kind": "two"}, {"kind": "one"}]

    def error(self, sample: Sample) -> float:
        return abs(2.0 - self._weight * KINDS[sample["kind"]])

    def inherit(self, sample: Sample) -> nn.Module:
        model = Scaled(KINDS[sample["kind"]])
        nn.init.constant_(model.weight, self._weight)
        return model

    def report(self, trials: list[Trial], *, k: int, **options: Any) -> Any:
        return {"trials": len(trials), "k": k, **options}


class Own(Strategy):
    """Derives from nothing but the protocol."""

    def __init__(self, *, ranks: bool = True) -> None:
        self._training = OneWeight(ranks=ranks)

    @property
    def shared_training(self) -> SharedTraining:
        return self._training

    def start(self, task: Task) -> None:
        pass

    def ask(self, number: int) -> Sample:
        if number >= len(self._training.order):
            raise SearchSpaceExhausted("all are ranked")
        return dict(self._training.order[number])

    def tell(self, trial: Trial) -> None:
        pass


class Longer(Own):
    """Counts how long it has trained, and proposes anew when that is longer."""

    may_change = frozenset({"goal"})

    def __init__(self, goal: int, *, ranks: bool = True) -> None:
        self._training = OneWeight(goal=goal, counted=True, ranks=ranks)

    def start(self, task: Task) -> None:
        self._told: dict[int, int | None] = {}

    def tell(self, trial: Trial) -> None:
        self._told[trial.number] = trial.supernet_steps

    def ask(self, number: int) -> Sample:
        return super().ask(list(self._told.values()).count(self._training.steps))


def experiment(folder: Path, strategy: Strategy | None = None, **arguments: Any) -> Experiment:
    evaluator = FunctionalEvaluator(lambda model: {"error": 0.0})
    given: dict[str, Any] = {"name": "own", "directory": folder, "objective": {"error": "minimize"}} | arguments
    return Experiment(ModelSpace(network), evaluator, strategy or Own(), **given)


def test_it_is_trained_ranked_and_inherited_from(tmp_path: Path) -> None:
    search = experiment(tmp_path)
    search.run(timeout=60, progress="silent")
    assert search.trials == []
    assert "the time is up" in search.ending
    search = experiment(tmp_path, resume=True)
    search.run(progress="silent")
    assert [trial.sample["kind"] for trial in search.trials] == ["half", "two", "one"]
    assert [trial.metrics["error"] for trial in search.trials] == [1.5, 0.0, 1.0]
    assert search.export_top_models(3) == [{"kind": "half"}, {"kind": "two"}, {"kind": "one"}]
    (model,) = search.export_top_models(1, "model", inherit_weights=True)
    assert model(torch.ones(1)).item() == 0.5
    assert search.one_shot_report(k=2, choose="best") == {"trials": 3, "k": 2, "choose": "best"}


def test_it_may_leave_the_ranking_to_the_values(tmp_path: Path) -> None:
    search = experiment(tmp_path, Own(ranks=False))
    search.run(progress="silent")
    assert search.export_top_models(3) == [{"kind": "two"}, {"kind": "one"}, {"kind": "half"}]
    assert search.best_trial.value == 0.0


def test_it_says_itself_what_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="stops no trial early"):
        experiment(tmp_path, early_stopping=MedianStop())
    assert list(tmp_path.iterdir()) == []
    search = experiment(tmp_path, repeats=2)
    search.run(progress="silent")
    assert search.best_trial.metrics["error"] == 1.5


def test_what_is_not_trained_gives_nothing(tmp_path: Path) -> None:
    refused(lambda: experiment(tmp_path).one_shot_report(), "no weight is trained yet", ExperimentError)
    ordinary = experiment(tmp_path / "other", Random())
    refused(lambda: ordinary.one_shot_report(), "only one-shot search has a supernet", ExperimentError)


def test_a_chain_does_not_train() -> None:
    refused(lambda: Chain([(Random(), 2), (Own(), None)]), "part 1 trains something before it proposes")


@pytest.mark.parametrize("ranks", [True, False])
def test_what_is_trained_on_judges_anew(ranks: bool, tmp_path: Path) -> None:
    """And what it judged before is history, kept and not compared: after 6 steps another sample is the best."""
    first = experiment(tmp_path, Longer(1, ranks=ranks))
    first.run(3, progress="silent")
    assert [trial.metrics["error"] for trial in first.trials] == pytest.approx([2 - 1 / 6, 2 - 2 / 3, 2 - 1 / 3])
    longer = experiment(tmp_path, Longer(6, ranks=ranks), resume=True, accept_changes=True)
    assert longer.results.counted == first.trials, "nothing is judged anew yet"
    longer.run(3, progress="silent")
    assert longer.trials[:3] == first.trials
    assert [trial.supernet_steps for trial in longer.trials] == [1, 1, 1, 6, 6, 6]
    assert [trial.metrics["error"] for trial in longer.trials[3:]] == pytest.approx([1.0, 2.0, 0.0])
    assert longer.results.counted == longer.trials[3:]
    assert [trial.number for trial in longer.results.top(9)] == ([3, 4, 5] if ranks else [5, 3, 4])
    assert longer.best_trial.number == (3 if ranks else 5)
    assert [trial.number for trial in longer.pareto_front] == [5]
    assert longer.hypervolume({"error": 3.0}) == 3.0
    assert longer.one_shot_report(k=2)["trials"] == 3
    assert longer.to_dataframe()["supernet_steps"].tolist() == [1, 1, 1, 6, 6, 6]
    read = Experiment.load(longer.path)
    assert [trial.number for trial in read.top(9)] == [trial.number for trial in longer.results.top(9)]
    again = experiment(tmp_path, Longer(6, ranks=ranks), resume=True)
    again.run(progress="silent")
    assert again.trials == longer.trials, "nothing is left"


def test_what_counts_nothing_has_no_column(tmp_path: Path) -> None:
    search = experiment(tmp_path)
    search.run(progress="silent")
    assert search.results.counted == search.trials
    assert "supernet_steps" not in search.to_dataframe()
