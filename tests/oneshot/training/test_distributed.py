"""Two processes: the same paths, the same architecture, gradients averaged."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice, NasValueError, ValueChoice
from nas.evaluators import Classification
from nas.oneshot import DARTS, ENAS, CurvatureStop, RandomOneShot
from nas.oneshot.training.distributed import choose_strategy
from nas.oneshot.training.steering import Steering
from nas.testing import differences, ended_well, fork

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*epoch will be drop:UserWarning")]


def network() -> nn.Module:
    """(batch, 6) -> (batch, 3); without batch statistics, which would differ between the processes."""
    width = ValueChoice([4, 8], label="width")
    kinds = {"linear": lambda: nn.Linear(8, 8), "tanh": nn.Tanh, "skip": nn.Identity}
    return nn.Sequential(nn.Linear(6, width), nn.Linear(width, 8), LayerChoice(kinds, label="kind"), nn.Linear(8, 3))


def learner_of(trainer: Any) -> Any:
    (steering,) = (callback for callback in trainer.callbacks if isinstance(callback, Steering))
    return steering.learner


class Witness(Callback):
    """Writes down what each process has trained, step by step, and how it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, list[Any]()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        supernet = learner_of(trainer).supernet
        self.steps.append([getattr(supernet, "sample", None), batch[0].sum().item()])

    def on_train_end(self, trainer: Any, module: Any) -> None:
        learner = learner_of(trainer)
        state = {
            "steps": self.steps,
            "state": module.state_dict(),
            "learner": learner.state_dict(),
            "stopped": learner.stopped,
        }
        torch.save(state, self.folder / f"{trainer.global_rank}.pt")


def search(folder: Path, strategy: Any, launch: str) -> dict[str, Any]:
    """What comes of a search that is launched so: the best samples and their metrics, and what each process saw."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(72, 6, generator=generator)
    pairs = TensorDataset(inputs, inputs[:, :3].argmax(1))
    devices = 1 if launch == "auto" else 2
    evaluator = Classification(
        pairs,
        pairs,
        batch_size=8 // devices,
        optimizer="SGD",
        learning_rate=0.1,
        accelerator="cpu",
        devices=devices,
        strategy=launch,
        logger=False,
        callbacks=[Witness(folder)],
    )
    experiment = Experiment(network, evaluator, strategy, name="search", directory=folder, seed=1)
    experiment.run(progress="plain")
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(devices)]
    top = experiment.export_top_models(3)
    return {"ranks": ranks, "top": top, "metrics": experiment.best_trial.metrics}


def save_search(folder: Path, strategy: Any) -> None:
    warnings.filterwarnings("ignore", ".*epoch will be drop")
    torch.save(search(folder, strategy, "ddp_fork"), folder / "found.pt")


def search_of_two(folder: Path, strategy: Any, launch: str) -> dict[str, Any]:
    """The processes of `ddp` start from nothing, which takes seconds; those of `ddp_fork` must leave this one alone."""
    if launch == "ddp":
        return search(folder, strategy, launch)
    output = folder.with_suffix(".txt")
    ended_well(fork(save_search, folder, strategy, output=output), output)
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=False)
    return found


def weights(state: dict[str, Any]) -> dict[str, Tensor]:
    learned = {name: tensor for name, tensor in state["learner"].items() if "logits" in name}
    return learned | {name: tensor for name, tensor in state["state"].items() if "model" in name}


SHORT: Any = {"epochs": 2, "candidates": 3, "recalibration": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "launch"),
    [
        (lambda: DARTS(learning_rate=0.05, stop=CurvatureStop(), **SHORT), "ddp"),
        (lambda: RandomOneShot(evaluations=6, **SHORT), "ddp_fork"),
    ],
    ids=["darts", "paths"],
)
def test_two_processes_train_as_one_with_the_joint_batch(make: Any, launch: str, tmp_path: Path) -> None:
    two = search_of_two(tmp_path / "two", make(), launch)
    one = search(tmp_path / "one", make(), "auto")
    ranks, (alone,) = two["ranks"], one["ranks"]
    assert len(ranks[0]["steps"]) == len(alone["steps"]) == 18
    assert differences(ranks[0]["learner"]["_extra_state"], ranks[1]["learner"]["_extra_state"]) == []
    assert differences(weights(ranks[0]), weights(ranks[1])) == []
    for first, second, joint in zip(ranks[0]["steps"], ranks[1]["steps"], alone["steps"], strict=True):
        assert first[0] == second[0] == joint[0], "all train the same path"
        assert first[1] != second[1]
        assert first[1] + second[1] == pytest.approx(joint[1], abs=1e-4)
    for name, tensor in weights(alone).items():
        assert torch.allclose(tensor, weights(ranks[0])[name], rtol=1e-4, atol=1e-5), name
    assert two["top"] == one["top"]


def test_controllers_agree(tmp_path: Path) -> None:
    strategy = ENAS(controller_steps=3, samples_per_step=2, draws=5, **SHORT)
    found = search_of_two(tmp_path / "two", strategy, "ddp_fork")
    ranks = found["ranks"]
    assert differences(weights(ranks[0]), weights(ranks[1])) == []
    assert differences(ranks[0]["learner"]["_extra_state"], ranks[1]["learner"]["_extra_state"]) == []
    assert [step[0] for step in ranks[0]["steps"]] == [step[0] for step in ranks[1]["steps"]]
    assert found["metrics"]["accuracy"] > 0


def test_models_are_not_split() -> None:
    with pytest.raises(NasValueError, match='strategy="ddp"'):
        choose_strategy("fsdp")
