"""Files of weights: what they hold, and what they are refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas import ExperimentError, Job, NasError
from nas.protocols.trained_weights import copy_weights, load_weights, read_state, save_state, write_weights
from nas.protocols.weight_files import weights_file, weights_of_runs
from tests.conftest import files_up_to


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 8)
        self.head = nn.Linear(8, 300, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", torch.rand(4), persistent=False)


def kept(folder: Path, model: nn.Module) -> Path:
    assert write_weights(folder, copy_weights(model))
    file = weights_file(folder)
    assert file is not None
    return file


def test_ties_stay_tied_are_written_once_and_hidden_buffers_come_along(tmp_path: Path) -> None:
    model = Tied()
    file = kept(tmp_path / "new", model)
    assert file.stat().st_size < 300 * 8 * 4 + 3000
    other = load_weights(Tied(), file)
    assert other.head.weight is other.embedding.weight
    assert torch.equal(other.head.weight, model.head.weight)
    assert torch.equal(other.positions, model.positions)
    assert not other.training


def test_the_copy_shares_nothing() -> None:
    model = Tied()
    state, others = copy_weights(model)
    before = state["head.weight"].clone()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.positions)
    assert torch.equal(state["head.weight"], before)
    assert others["positions"].abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_no_number_loses_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(dtype)
    other = load_weights(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), kept(tmp_path, model))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name].double(), value.double())


def test_lazy_layers_take_their_shapes_from_the_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyConv2d(3, 2), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(4, 2, 3, 3)
    model(x)
    fresh = nn.Sequential(nn.LazyConv2d(3, 2), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    assert torch.equal(load_weights(fresh, kept(tmp_path, model))(x), model.eval()(x))


class Counting(nn.Linear):
    extra: Any = 3

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


class Odd:
    pass


def test_extra_state_is_kept_where_no_code_is_needed_to_read_it(tmp_path: Path) -> None:
    model = Counting(2, 2)
    model.extra = {"steps": 7}
    assert load_weights(Counting(2, 2), kept(tmp_path, model)).extra == {"steps": 7}
    model.extra = Odd()
    assert not write_weights(tmp_path, copy_weights(model))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: nn.Linear(3, 4), r"'weight' is \(2, 3\) in place of \(4, 3\)"),
        (lambda: nn.Linear(3, 2, bias=False), "'bias' is too much"),
        (lambda: nn.Sequential(nn.Linear(3, 2)), "'0.bias' is missing"),
    ],
)
def test_another_architecture_is_refused_and_left_as_it_was(tmp_path: Path, other: Any, words: str) -> None:
    model = other()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ExperimentError, match=words):
        load_weights(model, kept(tmp_path, nn.Linear(3, 2)))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_job_keeps_weights_of_its_own_architecture_only(tmp_path: Path) -> None:
    job = Job(number=0, sample={}, build=lambda sample, seed: (nn.Linear(2, 2), sample), directory=tmp_path)
    with pytest.raises(NasError, match="those of the trial's architecture"):
        job.keep_weights(nn.Linear(2, 2, bias=False))
    with pytest.raises(NasError, match=r"only a torch\.nn\.Module has weights"):
        job.keep_weights("model")  # type: ignore[arg-type]  # that is the test
    assert list(tmp_path.iterdir()) == []
    job.keep_weights(torch.compile(job.model))  # type: ignore[arg-type]  # it is a module
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]
    nowhere = Job(number=0, sample={}, build=lambda sample, seed: (nn.Linear(2, 2), sample))
    nowhere.keep_weights()


def test_weights_behind_a_link_are_none_of_the_trials(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere" / "0").mkdir(parents=True)
    assert write_weights(elsewhere, copy_weights(nn.Linear(2, 2)))
    (folder := tmp_path / "trials" / "0").mkdir(parents=True)
    (folder / "weights.pt").symlink_to(elsewhere / "weights.pt")
    assert weights_file(folder) is None
    with pytest.raises(ExperimentError, match="a link"):
        read_state(folder / "weights.pt")
    (tmp_path / "trials" / "1").symlink_to(elsewhere)
    assert weights_file(tmp_path / "trials" / "1") is None
    assert weights_file(elsewhere) is not None
    (folder / "run-0").symlink_to(elsewhere)
    assert weights_of_runs(folder) == []
    before = (elsewhere / "weights.pt").read_bytes()
    assert write_weights(folder, copy_weights(nn.Linear(3, 3)))
    assert weights_file(folder) == folder / "weights.pt"
    assert (elsewhere / "weights.pt").read_bytes() == before


def test_where_the_disk_is_full_the_weights_before_stay(tmp_path: Path) -> None:
    model = nn.Linear(300, 300)
    assert save_state(tmp_path / "state.pt", nn.Linear(2, 2).state_dict())
    before = (tmp_path / "state.pt").read_bytes()
    with files_up_to(100_000), pytest.raises(ExperimentError, match=r"no space left.*state\.pt"):
        save_state(tmp_path / "state.pt", model.state_dict())
    assert (tmp_path / "state.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
