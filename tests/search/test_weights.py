"""Exports with the weights that a trial was judged with: evaluated, they give the ledger's value again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import nas
from nas import Experiment, ExperimentError, ModelSpace, NasError, NasValueError, ValueChoice
from nas.evaluators import Classification, FunctionalEvaluator, Regression
from nas.oneshot import RandomOneShot
from nas.strategies import GridSearch

IMAGES, LABELS = load_digits(return_X_y=True)
X, Y = torch.tensor(IMAGES, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(LABELS)
TRAIN, VALIDATION = TensorDataset(X[:300], Y[:300]), TensorDataset(X[300:500], Y[300:500])


class Net(nn.Sequential):
    """Batch statistics, dropout and a buffer that a state dict leaves out: all decide what it says."""

    def __init__(self) -> None:
        width = ValueChoice([4, 6], label="width")
        super().__init__(
            nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(10)
        )
        self.register_buffer("shift", torch.randn(10), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.shift


def accuracy(model: Callable[[torch.Tensor], Any]) -> float:
    with torch.no_grad():
        return float((torch.as_tensor(model(X[300:500])).argmax(1) == Y[300:500]).float().mean())


def train(model: nn.Module, epochs: int = 4) -> float:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    best = 0.0
    for epoch in range(epochs):
        nn.functional.cross_entropy(model.train()(X[:300]), Y[:300]).backward()
        optimizer.step()
        reached = accuracy(model.eval())
        if reached > best:
            best = reached
            nas.keep_weights(model)
        if epoch == epochs - 2:
            optimizer.param_groups[0]["lr"] = 10.0  # the last epoch spoils it
    return best


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Experiment]:
    def made(evaluator: Any = None, strategy: Any = None, *, space: Any = Net, trials: int = 2, **options: Any) -> Any:
        if evaluator is None:
            evaluator = Classification(TRAIN, VALIDATION, max_epochs=2, learning_rate=0.01, logger=False)
        options = {"name": "kept", "directory": tmp_path, **options}
        experiment = Experiment(space, evaluator, strategy or GridSearch(), **options)
        experiment.run(trials, progress="silent")
        return experiment

    return made


@pytest.mark.parametrize("evaluator", [None, FunctionalEvaluator(train)], ids=["Classification", "a function"])
def test_the_trained_model_is_worth_what_the_ledger_says(make: Callable[..., Experiment], evaluator: Any) -> None:
    experiment = make(evaluator)
    models = experiment.export_top_models(2, "model", weights="trained")
    values = [trial.value for trial in sorted(experiment.trials, key=lambda trial: -(trial.value or 0))]
    assert [accuracy(model) for model in models] == pytest.approx(values, abs=1e-6)
    assert not models[0].training
    fresh = experiment.export_top_models(1, "model", weights="fresh")[0]
    assert not torch.equal(fresh[0].weight, models[0][0].weight)
    loaded = Experiment.load(experiment.path, Net).export_top_models(1, "model", weights="trained")[0]
    assert accuracy(loaded) == pytest.approx(values[0], abs=1e-6)
    best = experiment.best_trial
    assert best.checkpoint == experiment.path / "trials" / str(best.number) / "weights.pt"
    state = torch.load(best.checkpoint, weights_only=True)
    assert state.keys() == fresh.state_dict().keys()


def test_a_trained_onnx_file_is_worth_what_the_ledger_says(make: Callable[..., Experiment], tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    experiment = make()
    (path,) = experiment.export_top_models(
        1, "onnx", weights="trained", example_input=X[:2], directory=tmp_path / "out"
    )
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    reached = accuracy(lambda x: session.run(None, {name: x.numpy()})[0])
    assert reached == pytest.approx(experiment.best_trial.value, abs=1e-6)


def test_samples_with_weights_are_files_too(make: Callable[..., Experiment], tmp_path: Path) -> None:
    experiment = make()
    assert experiment.export_top_models(1, "dict", directory=tmp_path / "fresh") == [experiment.best_trial.sample]
    assert not (tmp_path / "fresh").exists()
    found = experiment.export_top_models(2, weights="trained", directory=tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["1.json", "1.pt", "2.json", "2.pt"]
    assert json.loads((tmp_path / "out" / "1.json").read_text()) == found[0] == experiment.best_trial.sample
    model = ModelSpace(Net).build(found[0])
    model.load_state_dict(torch.load(tmp_path / "out" / "1.pt", weights_only=True))


def test_a_result_that_was_taken_over_has_the_weights_of_the_first(make: Callable[..., Experiment]) -> None:
    experiment = make(strategy=_Again())
    first, second = experiment.trials
    assert second.same_as == 0
    assert second.checkpoint == first.checkpoint is not None
    assert accuracy(experiment.results.build(second, "trained")) == pytest.approx(first.value, abs=1e-6)


class _Again(nas.Strategy):
    def start(self, task: nas.Task) -> None: ...

    def ask(self, number: int) -> nas.Sample:
        return {"width": 4}

    def tell(self, trial: nas.Trial) -> None: ...


def test_the_best_checkpoint_of_the_users_is_not_taken_for_the_judged_one(make: Callable[..., Experiment]) -> None:
    evaluator = Classification(
        TRAIN,
        VALIDATION,
        max_epochs=4,
        learning_rate=0.3,
        callbacks=ModelCheckpoint(monitor="accuracy", mode="max"),
        check_val_every_n_epoch=3,
        logger=False,
    )
    experiment = make(evaluator)
    for trial in experiment.trials:
        assert accuracy(experiment.results.build(trial, "trained")) == pytest.approx(trial.value, abs=1e-6)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a function that keeps none": (FunctionalEvaluator(accuracy), {}, "kept none.*nas.keep_weights"),
    "checkpoints turned off": (
        Classification(TRAIN, VALIDATION, max_epochs=1, enable_checkpointing=False, logger=False),
        {},
        "kept none.*enable_checkpointing",
    ),
    "folds": (Classification(TRAIN, folds=2, max_epochs=1, logger=False), {}, r"mean over several.*run-1/weights\.pt"),
    "executions": (
        Classification(TRAIN, VALIDATION, executions=2, max_epochs=1, logger=False),
        {},
        r"mean over several.*run-0/weights\.pt",
    ),
    "repeats": (FunctionalEvaluator(train), {"repeats": 2}, r"mean over several.*repeat-1/weights\.pt"),
    "repeats that keep none": (FunctionalEvaluator(accuracy), {"repeats": 2}, "mean over several.*retrain"),
}


@pytest.mark.parametrize(("evaluator", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_without_one_set_of_weights_it_is_refused_in_words(
    make: Callable[..., Experiment], evaluator: Any, options: dict[str, Any], words: str
) -> None:
    experiment = make(evaluator, trials=1, **options)
    assert experiment.trials[0].state is nas.TrialState.COMPLETE, experiment.trials[0].error
    assert experiment.trials[0].checkpoint is None
    for formatter in ("dict", "model", "onnx", "code"):
        with pytest.raises(ExperimentError, match=f"(?s){words}"):
            experiment.export_top_models(1, formatter, weights="trained")
    assert not (experiment.path / "top").exists()


def test_wrong_words_and_weights_that_are_not_there_are_refused(make: Callable[..., Experiment]) -> None:
    experiment = make(trials=1)
    with pytest.raises(NasValueError, match='weights must be "fresh", "inherit" or "trained".*weights="trained"'):
        experiment.export_top_models(1, "model", weights="trainde")
    with pytest.raises(NasValueError, match="another way to write"):
        experiment.export_top_models(1, "model", weights="trained", inherit_weights=True)
    for formatter in ("dict", "model", "onnx", "code"):
        with pytest.raises(NasError, match="only one-shot search has a supernet"):
            experiment.export_top_models(1, formatter, weights="inherit")
    checkpoint = experiment.best_trial.checkpoint
    assert checkpoint is not None
    other = Experiment.load(experiment.path, lambda: nn.Sequential(nn.Linear(ValueChoice([4, 6], label="width"), 1)))
    with pytest.raises(ExperimentError, match="not of the architecture.*is (missing|too much)"):
        other.export_top_models(1, "model", weights="trained")
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(ExperimentError, match="cannot be read"):
        experiment.export_top_models(1, "model", weights="trained")
    shutil.rmtree(checkpoint.parent)
    with pytest.raises(ExperimentError, match="not in its folder"):
        experiment.export_top_models(1, "model", weights="trained")


@pytest.mark.slow
def test_a_regression_in_several_processes(make: Callable[..., Experiment]) -> None:
    data = TensorDataset(torch.arange(8.0).reshape(8, 1), torch.arange(8.0))
    evaluator = Regression(data, data, max_epochs=1, logger=False)
    experiment = make(
        evaluator,
        space=lambda: nn.Linear(1, 1, bias=bool(ValueChoice([1, 0], label="bias"))),
        executor=nas.ProcessExecutor(workers=1),
        objective="minimize",
    )
    for trial in experiment.trials:
        model = experiment.results.build(trial, "trained")
        with torch.no_grad():
            error = (model(data.tensors[0])[:, 0] - data.tensors[1]).square().mean()
        assert float(error) == pytest.approx(trial.value, rel=1e-5)


def test_trials_of_a_supernet_keep_what_they_were_judged_with(make: Callable[..., Experiment]) -> None:
    def small() -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(64, ValueChoice([4, 8], label="width")), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(layers[1].out_features, 10))

    evaluator = Classification(TRAIN, VALIDATION, max_epochs=2, learning_rate=0.01, logger=False)
    experiment = make(evaluator, RandomOneShot(), space=small)
    for weights in ("trained", "inherit"):
        models = experiment.export_top_models(2, "model", weights=weights)
        assert [accuracy(m) for m in models] == pytest.approx([t.value for t in experiment.trials], abs=1e-6)
    (loaded,) = Experiment.load(experiment.path, small).export_top_models(1, "model", weights="trained")
    assert accuracy(loaded) == pytest.approx(experiment.trials[0].value, abs=1e-6)
    with pytest.raises(ExperimentError, match="results without their strategy"):
        Experiment.load(experiment.path, small).export_top_models(1, "model", weights="inherit")
