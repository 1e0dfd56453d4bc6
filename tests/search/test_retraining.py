"""Training what a search has found, by another evaluator than the search's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from nas import Categorical, Evaluator, Experiment, Job, NasTypeError, NasValueError, Real, ValueChoice
from nas.evaluators import Classification, FunctionalEvaluator
from nas.strategies import Random

SEEN: list[dict[str, Any]] = []


def space() -> nn.Module:
    return nn.Linear(4, ValueChoice([3, 4], label="width"))


def judge(model: nn.Module, rate: float = 0.25, epochs: int = 1) -> float:
    SEEN.append({"rate": rate, "epochs": epochs})
    return rate


def searched(folder: Path, evaluator: Evaluator | None = None) -> Experiment:
    evaluator = evaluator or FunctionalEvaluator(judge, rate=Real(0.5, 0.75))
    experiment = Experiment(space, evaluator, Random(), name="search", directory=folder)
    experiment.run(2, progress="silent")
    SEEN.clear()
    return experiment


def test_what_the_new_evaluator_fixes_wins_and_what_it_leaves_open_is_as_it_was_tuned(tmp_path: Path) -> None:
    experiment = searched(tmp_path)
    best = experiment.best_trial.sample
    own = experiment.retrain()
    fixed = experiment.retrain(evaluator=FunctionalEvaluator(judge, rate=0.125, epochs=9))
    opened = experiment.retrain(evaluator=FunctionalEvaluator(judge, epochs=8))
    without = experiment.retrain(evaluator=FunctionalEvaluator(lambda model: 1.0))
    assert [
        {"rate": best["rate"], "epochs": 1},
        {"rate": 0.125, "epochs": 9},
        {"rate": best["rate"], "epochs": 8},
    ] == SEEN
    assert (own.sample, opened.sample) == (best, best)
    assert fixed.sample == without.sample == {"width": best["width"]}
    assert fixed.metrics == {"value": 0.125}


def test_a_domain_that_the_search_did_not_search_is_not_guessed(tmp_path: Path) -> None:
    experiment = searched(tmp_path)
    with pytest.raises(
        NasValueError, match="retrain: one architecture is trained with one value.*'epochs': .*fix them"
    ):
        experiment.retrain(evaluator=FunctionalEvaluator(judge, epochs=Categorical([1, 2])))


def data(length: int = 30) -> TensorDataset:
    return TensorDataset(torch.randn(length, 4), torch.randint(3, (length,)))


class Rates(Callback):
    def on_train_start(self, trainer: Any, module: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        SEEN.append({"rate": group["lr"], "kind": type(trainer.optimizers[0]).__name__, "epochs": trainer.max_epochs})


def test_a_training_takes_what_it_is_not_given(tmp_path: Path) -> None:
    held, common = data(), {"callbacks": [Rates()], "accelerator": "cpu", "enable_checkpointing": False}
    tuned = Classification(
        held, held, learning_rate=Categorical([0.125]), optimizer=Categorical(["SGD"]), max_epochs=1, **common
    )
    experiment = searched(tmp_path, tuned)
    longer = experiment.retrain(evaluator=Classification(held, held, max_epochs=2, **common))
    given = Classification(held, held, learning_rate=0.001, optimizer=torch.optim.AdamW, max_epochs=2, **common)
    fixed = experiment.retrain(evaluator=given)
    assert SEEN == [{"rate": 0.125, "kind": "SGD", "epochs": 2}, {"rate": 0.001, "kind": "AdamW", "epochs": 2}]
    width = experiment.best_trial.sample["width"]
    assert longer.sample == {"width": width, "learning_rate": 0.125, "optimizer": "SGD"}
    assert fixed.sample == {"width": width}


def test_names_that_another_evaluator_does_not_know_are_asked_for(tmp_path: Path) -> None:
    held = data()
    kinds = {"plain": nn.CrossEntropyLoss(), "smooth": nn.CrossEntropyLoss(label_smoothing=0.1)}
    experiment = searched(tmp_path, Classification(held, held, criterion=kinds, max_epochs=1, accelerator="cpu"))
    with pytest.raises(NasTypeError, match="criterion must be a loss module or a function; received '(plain|smooth)'"):
        experiment.retrain(evaluator=Classification(held, held, max_epochs=1, accelerator="cpu"))


class Counted(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(index)
        return torch.ones(4) * index, torch.tensor(index % 3)


@pytest.mark.parametrize("loaded", [False, True])
def test_instead_of_folds_it_trains_once_on_everything(tmp_path: Path, loaded: bool) -> None:
    held = Counted()
    source: Any = (lambda: held) if loaded else held
    options: dict[str, Any] = {"batch_size": 5, "accelerator": "cpu", "callbacks": [Rates()], "num_sanity_val_steps": 0}
    evaluator = Classification(source, folds=2, executions=2, max_epochs=3, **options)
    experiment = searched(tmp_path, evaluator)
    held.seen.clear()
    found = experiment.retrain()
    assert len(SEEN) == 1
    assert len(held.seen) == 2 * 3 * 10  # for training and for the metrics in each epoch
    assert set(found.metrics) == {"train_accuracy", "train_loss"} | {
        name for name in found.metrics if name.startswith("train_")
    }
    assert not any(name.endswith("_std") for name in found.metrics)


class Own(Evaluator):
    """An evaluator that nobody here wrote: it is handed all that the search has tuned."""

    def evaluate(self, job: Job) -> float:
        SEEN.append(job.hyperparameters)
        return 1.0


def test_an_evaluator_of_ones_own_is_handed_what_was_tuned(tmp_path: Path) -> None:
    experiment = searched(tmp_path)
    experiment.retrain(evaluator=Own())
    assert [{"rate": experiment.best_trial.sample["rate"]}] == SEEN
    with pytest.raises(NasTypeError, match="the evaluator must be a nas.Evaluator"):
        experiment.retrain(evaluator=judge)  # type: ignore[arg-type]
