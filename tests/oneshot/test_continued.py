"""A finished search that is trained on is ranked and judged anew; what was judged before stays as history."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from nas import Experiment, ExperimentError, LayerChoice, TrialState, ValueChoice
from nas.evaluators import Classification
from nas.oneshot import DARTS, RandomOneShot
from nas.testing import differences, wait_until


def network() -> nn.Module:
    width = ValueChoice([8, 16, 32], label="width")
    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh}
    return nn.Sequential(nn.Linear(64, width), LayerChoice(kinds, label="kind"), nn.Linear(width, 10))


def search(folder: Path, epochs: int, make: Any = RandomOneShot, *, resume: bool = True, **settings: Any) -> Experiment:
    images, labels = load_digits(return_X_y=True)
    pairs = torch.tensor(images[:600], dtype=torch.float32) / 16, torch.tensor(labels[:600])
    train, validation = (TensorDataset(*(part[half] for part in pairs)) for half in (slice(300), slice(300, 600)))
    evaluator = Classification(
        train, validation, batch_size=50, optimizer="SGD", learning_rate=0.1, accelerator="cpu", logger=False
    )
    given: dict[str, Any] = {"candidates": 3} | settings
    if make is RandomOneShot:
        given = {"evaluations": 5, "population": 4} | given
    strategy = make(epochs=epochs, **given)
    return Experiment(network, evaluator, strategy, name="search", directory=folder, resume=resume)


@pytest.mark.slow
@pytest.mark.parametrize("make", [RandomOneShot, pytest.param(DARTS, marks=pytest.mark.slow)])
def test_it_is_ranked_and_judged_anew(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = search(tmp_path / "both", 1, make)
    short.run(progress="silent")
    before = short.trials
    assert [trial.supernet_steps for trial in before] == [6, 6, 6]
    longer = search(tmp_path / "both", 12, make)
    assert longer.best_trial.number in (0, 1, 2), "until it is run"
    longer.run(3, progress="plain")
    assert longer.trials[:3] == before, "history"
    assert [trial.number for trial in longer.trials] == list(range(6))
    assert [trial.supernet_steps for trial in longer.trials] == [6, 6, 6, 72, 72, 72]
    assert all(trial.state is TrialState.COMPLETE for trial in longer.trials)
    assert all(trial.same_as is None for trial in longer.trials), "no value is taken over"
    assert "3/3 trials, best" in capsys.readouterr().out
    once = search(tmp_path / "once", 12, make, resume=False)
    once.run(progress="silent")
    assert [trial.sample for trial in longer.trials[3:]] == [trial.sample for trial in once.trials]
    assert [trial.metrics for trial in longer.trials[3:]] == [trial.metrics for trial in once.trials]
    assert longer.best_trial.sample == once.best_trial.sample
    assert longer.best_trial.number == 3
    assert longer.export_top_models(9) == once.export_top_models(9)
    assert [trial.number for trial in longer.pareto_front] == [trial.number + 3 for trial in once.pareto_front], (
        "a front too"
    )
    assert longer.to_dataframe()["supernet_steps"].tolist() == [6, 6, 6, 72, 72, 72]
    inherited = longer.export_top_models(1, "model", weights="inherit")[0].state_dict()
    assert differences(inherited, longer.export_top_models(1, "model", weights="trained")[0].state_dict()) == []
    assert {str(row.sample) for row in longer.one_shot_report(k=2, choose="best").compared} == {
        str(trial.sample) for trial in once.trials[:2]
    }


def test_without_more_epochs_nothing_changes(tmp_path: Path) -> None:
    first = search(tmp_path, 2)
    first.run(progress="silent")
    files = {path: path.stat().st_mtime_ns for path in first.path.rglob("*.json*")}
    for epochs in (2, 1):
        again = search(tmp_path, epochs)
        again.run(progress="silent")
        assert again.trials == first.trials
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*.json*")} == files


@pytest.mark.slow
def test_more_candidates_go_on_where_the_others_ended(tmp_path: Path) -> None:
    search(tmp_path / "both", 2, candidates=2).run(progress="silent")
    more = search(tmp_path / "both", 2, candidates=4)
    more.run(progress="silent")
    whole = search(tmp_path / "once", 2, candidates=4, resume=False)
    whole.run(progress="silent")
    assert [trial.sample for trial in more.trials] == [trial.sample for trial in whole.trials]
    assert [trial.metrics for trial in more.trials] == [trial.metrics for trial in whole.trials]


def test_what_is_enqueued_takes_nobodys_place(tmp_path: Path) -> None:
    plain = search(tmp_path / "plain", 1)
    plain.run(progress="silent")
    queued = search(tmp_path / "queued", 1)
    queued.enqueue(plain.trials[-1].sample)
    queued.run(progress="silent")
    assert [trial.sample for trial in queued.trials[1:]] == [trial.sample for trial in plain.trials[:2]]


def _killed(folder: Path, where: str) -> None:
    """Goes on with a search, and is killed when such a file is written to for the second time."""
    searched, seen = search(folder, 8), list[str]()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and where in str(arguments[0]) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            seen.append(where)
            if len(seen) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    searched.run(progress="silent")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["judged.jsonl", "trials/4/.sample.json"])
def test_a_kill_in_the_second_ranking_changes_nothing(where: str, tmp_path: Path) -> None:
    search(tmp_path / "killed", 1).run(progress="silent")
    command = [sys.executable, __file__, str(tmp_path / "killed"), where]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    _assert_as_uninterrupted(tmp_path)


@pytest.mark.parametrize(
    "judged", [pytest.param(5 + 2, marks=pytest.mark.slow), pytest.param(5 + 5, marks=pytest.mark.slow)]
)
def test_an_interrupt_in_the_second_ranking_changes_nothing(
    judged: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two of five are judged; and when all are ranked, in the first trial."""
    search(tmp_path / "killed", 1).run(progress="silent")
    broken = search(tmp_path / "killed", 8)
    kind = type(broken.evaluator.module(nn.Linear(1, 1)))  # type: ignore[attr-defined]  # it is a Classification
    step, lines = kind.validation_step, broken.path / "supernet/judged.jsonl"

    def interrupt(*arguments: Any) -> Any:
        if len(lines.read_text().splitlines()) == judged:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "validation_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            broken.run(progress="silent")
    assert broken.ending.startswith("interrupted")
    assert len(broken.trials) == (3 if judged == 7 else 4)
    _assert_as_uninterrupted(tmp_path)


def _assert_as_uninterrupted(folder: Path) -> None:
    survivor = search(folder / "killed", 8)
    survivor.run(progress="silent")
    search(folder / "whole", 1).run(progress="silent")
    whole = search(folder / "whole", 8)
    whole.run(progress="silent")
    for one, other in zip(survivor.trials, whole.trials, strict=True):
        assert (one.sample, one.metrics, one.state) == (other.sample, other.metrics, other.state)
        assert one.supernet_steps == other.supernet_steps


def test_a_trial_that_was_killed_is_not_judged_by_another_supernet(tmp_path: Path) -> None:
    first = search(tmp_path, 1)
    first.run(1, progress="silent")
    # As a kill leaves it: begun, and not judged.
    journal = first.path / "journal.log"
    first.run(2, progress="silent")
    lines = journal.read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if json.loads(line).get("op_code") == 4)
    journal.write_text("".join(lines[: last + 1]))
    longer = search(tmp_path, 4)
    assert [trial.state for trial in longer.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    longer.run(progress="silent")
    assert [str(trial.state) for trial in longer.trials] == ["COMPLETE", "FAILED", *["COMPLETE"] * 3]
    assert "trained on before this trial was judged" in longer.trials[1].error_line
    assert longer.best_trial.number == 2


if __name__ == "__main__":
    _killed(Path(sys.argv[1]), sys.argv[2])


def test_its_training_is_stopped_within_a_second_and_gone_on_with(tmp_path: Path) -> None:
    experiment = search(tmp_path / "stopped", 10_000)
    for change in (experiment.stop, lambda: experiment.set(timeout=0.01)):
        run = experiment.run(background=True)
        wait_until(lambda: (experiment.path / "supernet" / "last.ckpt").exists())
        begin = time.monotonic()
        change()
        assert run.wait(60)
        assert time.monotonic() - begin < 4
        assert (run.state, experiment.trials) == ("stopped", [])
    assert experiment.ending == "the time is up, before the supernet is trained and ranked"
    done = search(tmp_path / "stopped", 1)
    done.run(progress="silent")
    assert len(done.trials) == 3


DAMAGE: dict[str, Any] = {
    "no part of ours": lambda found: found.pop("nas"),
    "no weights": lambda found: found.update(state_dict=5),
    "other weights": lambda found: found.update(state_dict={"a": torch.ones(1)}),
    "no optimizers": lambda found: found.pop("optimizer_states"),
    "other optimizers": lambda found: found.update(optimizer_states=[{}, 5]),
    "no loops": lambda found: found.update(loops={"fit_loop": 5}),
    "an epoch in words": lambda found: found.update(epoch="one"),
    "no steps": lambda found: found["nas"].pop("done"),
    "another learner": lambda found: found["nas"].update(learner={"a": 5}),
    "no random states": lambda found: found["nas"].update(random=[]),
    "other random states": lambda found: found["nas"].update(random=[5]),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose time was up."""
    folder = tmp_path_factory.mktemp("begun")
    for _ in range(2):
        search(folder, 1).run(timeout=1e-3, progress="silent")
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told(begun: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copied"
    shutil.copytree(begun, folder)
    last = folder / "search" / "supernet" / "last.ckpt"
    found = torch.load(last, weights_only=True)
    DAMAGE[damage](found)
    torch.save(found, last)
    with pytest.raises(ExperimentError, match="checkpoint.*supernet"):
        search(folder, 1).run(progress="silent")
