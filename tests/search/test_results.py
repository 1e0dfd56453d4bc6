"""ONNX files of the best trials: with inputs as the evaluator gave them, or an example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nas import (
    Experiment,
    ExperimentError,
    ModelSpace,
    ValueChoice,
    keep_weights,
    load_sample,
    model_space,
    save_sample,
)
from nas.evaluators import FunctionalEvaluator
from nas.export import read_metadata
from nas.strategies import GridSearch

pytestmark = pytest.mark.long


@model_space
class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 8], label="width")
        self.body = nn.Sequential(nn.LazyConv2d(width, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


@model_space
class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, ValueChoice([4, 8], label="width"))

    def forward(self, ids: Tensor, mask: Tensor, *, scale: float = 1.0) -> Tensor:
        y: Tensor = self.embed(ids).sum(-1) * mask * scale
        return y


@model_space
class OnAGraph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, ValueChoice([4, 8], label="width"))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.layer(x).index_select(0, edges[0]) + x.index_select(0, edges[1]).sum(-1, keepdim=True)


def searched(space: ModelSpace, folder: Path, call: Callable[[nn.Module], Any]) -> Experiment:
    def train(model: nn.Module) -> float:
        call(model)
        return float(sum(weight.numel() for weight in model.parameters() if not nn.parameter.is_lazy(weight)))

    experiment = Experiment(space, FunctionalEvaluator(train), GridSearch(), name="search", directory=folder)
    experiment.run(progress="silent")
    return experiment


@pytest.mark.slow
def test_lazy_layers_take_the_shape_that_the_evaluator_knows(tmp_path: Path) -> None:
    experiment = searched(ModelSpace(Lazy()), tmp_path, lambda model: model(torch.randn(4, 3, 6, 6)))
    files = experiment.export_top_models(2, "onnx")
    assert [read_metadata(file)["sample"] for file in files] == [{"width": 8}, {"width": 4}]
    again = experiment.export_top_models(2, "onnx", directory=tmp_path / "again")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again], "the seed decides"


def test_lazy_layers_with_the_weights_of_the_trial(tmp_path: Path) -> None:
    x = torch.randn(4, 3, 6, 6)
    said: list[Tensor] = []

    def call(model: nn.Module) -> None:
        said.append(model.eval()(x).detach())
        keep_weights(model)

    experiment = searched(ModelSpace(Lazy()), tmp_path, call)
    (file,) = experiment.export_top_models(1, "onnx", weights="trained")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    torch.testing.assert_close(torch.as_tensor(session.run(None, {"input": x.numpy()})[0]), said[-1])


def test_lazy_layers_take_the_shape_of_an_example(tmp_path: Path) -> None:
    experiment = searched(ModelSpace(Lazy()), tmp_path, lambda model: None)
    with pytest.raises(ExperimentError, match="needs an example input"):
        experiment.export_top_models(1, "onnx")
    (file,) = experiment.export_top_models(1, "onnx", example_input=torch.randn(2, 1, 6, 6))
    assert file.is_file()


def test_models_that_are_called_by_keyword(tmp_path: Path) -> None:
    ids, mask = torch.randint(20, (6, 5)), torch.ones(6, 5)
    experiment = searched(ModelSpace(Masked()), tmp_path, lambda model: model(ids, mask=mask, scale=2.0))
    assert experiment.export_top_models(1, "onnx")[0].is_file()


def test_inputs_without_a_common_batch_keep_their_sizes(tmp_path: Path) -> None:
    nodes, edges = torch.randn(5, 4), torch.randint(5, (2, 7))
    experiment = searched(ModelSpace(OnAGraph()), tmp_path, lambda model: model(nodes, edges))
    assert experiment.export_top_models(1, "onnx")[0].is_file()


def _kept(folder: Path) -> Experiment:
    def train(model: nn.Module) -> float:
        keep_weights(model)
        return float(sum(weight.numel() for weight in model.parameters()))

    experiment = Experiment(
        lambda: nn.Linear(2, ValueChoice([1, 2], label="width")),
        FunctionalEvaluator(train),
        GridSearch(),
        name="search",
        directory=folder,
    )
    experiment.run(progress="silent")
    return experiment


def test_exports_into_the_experiments_folder_go_through_no_link(tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")
    results = _kept(tmp_path).results
    (top := results.path / "top").mkdir()
    for name in ("1.json", "1.pt"):
        (top / name).symlink_to(victim)
    with pytest.warns(UserWarning, match="removed from it"):
        (sample,) = results.export_top_models(1, weights="trained")
    assert load_sample(top / "1.json") == sample
    assert victim.read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    (top / "1.json").unlink()
    (top / "1.pt").unlink()
    top.rmdir()
    top.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExperimentError, match="a link"):
        results.export_top_models(1, weights="trained")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_path_of_the_users_own_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "sample.json").symlink_to(tmp_path / "there" / "sample.json")
    save_sample({"width": 3}, tmp_path / "sample.json")
    assert (tmp_path / "sample.json").is_symlink()
    assert load_sample(tmp_path / "there" / "sample.json") == {"width": 3}
    (tmp_path / "null.json").symlink_to("/dev/null")
    with pytest.raises(ExperimentError, match="a device"):
        save_sample({"width": 3}, tmp_path / "null.json")
    assert not Path("/dev/null").is_file()
