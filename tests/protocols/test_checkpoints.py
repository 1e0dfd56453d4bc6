"""Checkpoints that functions keep themselves; `tests/search/test_pauses.py` goes on from them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from nas import Experiment, Hyperband, NasTypeError, TrialState, ValueChoice, load_checkpoint, save_checkpoint
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch


def test_outside_a_trial_there_are_none() -> None:
    save_checkpoint({"epoch": 1})
    assert load_checkpoint() is None
    with pytest.raises(NasTypeError, match="save_checkpoint: a checkpoint is a dict; received 3"):
        save_checkpoint(3)  # type: ignore[arg-type]


def test_what_could_only_be_read_by_executing_code_is_refused(tmp_path: Path) -> None:
    def judge(model: nn.Linear) -> float:
        save_checkpoint({"model": model if model.out_features == 1 else model.state_dict()})
        return 1.0

    experiment = Experiment(
        lambda: nn.Linear(1, ValueChoice([1, 2], label="width")),
        FunctionalEvaluator(judge),
        GridSearch(),
        name="search",
        directory=tmp_path,
    )
    experiment.run(progress="silent")
    first, second = experiment.trials
    assert (first.state, second.state) == (TrialState.FAILED, TrialState.COMPLETE)
    assert "NasValueError: save_checkpoint: a checkpoint holds dicts, lists, tensors" in first.error_line
    assert not [*tmp_path.rglob("checkpoint-*")]


DAMAGE = {
    "torn": lambda file: file.write_bytes(file.read_bytes()[:50]),
    "a flipped bit": lambda file: file.write_bytes(file.read_bytes().replace(b"\x80\x3f", b"\x81\x3f", 1)),
    "no state": lambda file: torch.save({"other": 1}, file),
    "no dict": lambda file: torch.save([1], file),
    "another state": lambda file: torch.save({"state": 5}, file),
    "a link": lambda file: file.rename(file.with_name("moved.pt")) and file.symlink_to(file.with_name("moved.pt")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_is_damaged_is_as_good_as_none_and_is_told(tmp_path: Path, damage: str) -> None:
    def judge(model: nn.Linear) -> float:
        save_checkpoint({"epoch": 1, "weight": torch.ones(3)})
        state = load_checkpoint()
        assert state is not None
        assert state["epoch"] == 1
        assert torch.equal(state["weight"], torch.ones(3))
        (file,) = tmp_path.rglob("checkpoint-*")
        DAMAGE[damage](file)
        with pytest.warns(UserWarning, match=r"checkpoint-.*cannot be read, so the trial begins anew"):
            return float(load_checkpoint() is None)

    experiment = Experiment(
        lambda: nn.Linear(1, ValueChoice([1], label="width")),
        FunctionalEvaluator(judge),
        GridSearch(),
        name="search",
        directory=tmp_path,
    )
    experiment.run(progress="silent")
    assert experiment.best_trial.value == 1.0


def test_pauses_is_said_by_a_bool() -> None:
    with pytest.raises(NasTypeError, match="pauses"):
        Hyperband(max_resource=9, pauses="yes")  # type: ignore[arg-type]
