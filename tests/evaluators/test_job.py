"""What a job offers an evaluator besides the model: a folder, and the same architecture once more."""

from pathlib import Path

import torch
from torch import nn

from nas import Evaluator, Experiment, Job, ValueChoice
from nas.strategies import GridSearch


class Files(Evaluator):
    """Uses its folder for wide models only."""

    def evaluate(self, job: Job) -> float:
        width = job.sample["width"]
        if width > 4:
            assert job.directory is not None
            (job.directory / "note.txt").write_text(str(width))
        return float(width)


def test_files_of_an_evaluator_are_in_the_folder_of_its_trial(tmp_path: Path) -> None:
    space = lambda: nn.Linear(2, ValueChoice([4, 8], label="width"))  # noqa: E731
    experiment = Experiment(space, Files(), GridSearch(), name="files", directory=tmp_path)
    experiment.run(progress="silent")
    folders = tmp_path / "files" / "trials"
    assert sorted(path.name for path in folders.iterdir()) == ["0", "1"]
    assert not (folders / "0" / "note.txt").exists()
    assert (folders / "1" / "note.txt").read_text() == "8"


def test_outside_an_experiment_there_is_no_folder() -> None:
    assert Job(number=0, sample={}, build=lambda sample, seed: (nn.Linear(1, 1), sample)).directory is None


def test_again_is_the_same_architecture_with_other_weights_and_no_reports() -> None:
    reported = []
    job = Job(
        number=3,
        sample={"width": 4},
        seed=5,
        build=lambda sample, seed: (nn.Linear(2, sample["width"]), sample),
        on_report=lambda step, value: reported.append(value) is None,
        objective="loss",
    )
    weights = []
    for number in (1, 2, 1):
        other = job.again(number)
        with torch.random.fork_rng():
            torch.manual_seed(other.seed)
            weights.append(other.model.weight.detach().clone())
        other.report(1.0)
        assert (other.number, other.sample, other.objective) == (3, {"width": 4}, "loss")
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert reported == []
    assert job.reports == {}
