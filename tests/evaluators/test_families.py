"""Lightning under both of its names: modules, data modules, callbacks and loggers of either, and never of both."""

import importlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from nas import Experiment, Job, NasError, Patience, TrialState, ValueChoice
from nas.evaluators import Classification, LightningEvaluator
from nas.strategies import GridSearch

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says of torch, and of small data

X = torch.arange(24.0)[:, None] / 24
DATA = TensorDataset(X, 2 * X)
CLASSES = TensorDataset(X, (X[:, 0] > 0.5).long())
NAMES = ("pytorch_lightning", "lightning.pytorch")


@pytest.fixture(params=NAMES)
def pl(request: pytest.FixtureRequest) -> Any:
    return imported(request.param)


def imported(name: str) -> Any:
    return pytest.importorskip(name)


def fits(pl: Any) -> Any:
    class Fit(pl.LightningModule):  # type: ignore[misc]  # its base is chosen by the test
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return mse_loss(self.model(batch[0]), batch[1])

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.model.parameters(), lr=0.1)

    return Fit


def told(pl: Any, data: Any = DATA) -> Any:
    class Told(pl.LightningDataModule):  # type: ignore[misc]  # its base is chosen by the test
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def setup(self, stage: str) -> None:
            assert self.trainer is not None
            self.calls.append("setup")

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.calls.append("transfer")
            return batch

        def train_dataloader(self) -> Any:
            return DataLoader(data, 8)

        def val_dataloader(self) -> Any:
            return DataLoader(data, 8)

    return Told()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(1, width := ValueChoice([2, 4], label="width")), nn.Linear(width, 1))


def scores() -> nn.Module:
    return nn.Sequential(nn.Linear(1, width := ValueChoice([2, 4], label="width")), nn.Linear(width, 2))


def test_a_search_with_all_that_a_trainer_takes(pl: Any, tmp_path: Path) -> None:
    callbacks = importlib.import_module(f"{pl.__name__}.callbacks")
    loggers = importlib.import_module(f"{pl.__name__}.loggers")
    seen = []

    class Looks(pl.Callback):  # type: ignore[misc]  # its base is chosen by the test
        def on_fit_end(self, trainer: Any, module: Any) -> None:
            seen.append(isinstance(trainer, pl.Trainer) and trainer.early_stopping_callback is not None)

        def __deepcopy__(self, memo: object) -> "Looks":
            return self

    evaluator = LightningEvaluator(
        fits(pl),
        data := told(pl),
        metric="val_loss",
        max_epochs=3,
        callbacks=[
            callbacks.ModelCheckpoint(monitor="val_loss", dirpath=tmp_path / "best"),
            callbacks.EarlyStopping("val_loss", patience=1, min_delta=1000.0),
            Looks(),
        ],
        logger=loggers.CSVLogger(tmp_path / "logs"),
    )
    experiment = Experiment(
        lambda: network(), evaluator, GridSearch(), name="either", directory=tmp_path, early_stopping=Patience(9)
    )
    experiment.run(2, progress="silent")
    assert [trial.error for trial in experiment.trials] == [None, None]
    assert [len(trial.intermediate) for trial in experiment.trials] == [2, 2]
    assert seen == [True, True]
    assert list((tmp_path / "best").glob("*.ckpt"))
    assert data.calls.count("setup") == 1
    assert "transfer" in data.calls
    (best,) = experiment.export_top_models(1, formatter="model", weights="trained")
    assert float(mse_loss(best(X), 2 * X)) == pytest.approx(experiment.best_trial.value, rel=1e-4)


def test_classification_takes_data_modules_and_callbacks_of_either(pl: Any, tmp_path: Path) -> None:
    callbacks = importlib.import_module(f"{pl.__name__}.callbacks")
    for evaluator in (
        Classification(told(pl, CLASSES), max_epochs=1),
        Classification(CLASSES, CLASSES, max_epochs=1, callbacks=callbacks.EarlyStopping("loss")),
        Classification(lambda: told(pl, CLASSES), max_epochs=1, optimizer="SGD"),
    ):
        trial = Job(number=0, sample={}, build=lambda sample, seed: (scores(), sample))
        assert evaluator.evaluate(trial)["accuracy"] >= 0
        assert len(trial.reports) == 1
        module = evaluator.module(nn.Linear(1, 2))
        assert isinstance(module, pl.LightningModule)
        again = pickle.loads(pickle.dumps(module))
        assert type(again) is type(module)
        assert torch.equal(again.model.weight, module.model.weight)


def test_a_stopped_trial_is_stopped_in_either(pl: Any, tmp_path: Path) -> None:
    evaluator = LightningEvaluator(fits(pl), DATA, DATA, metric="val_loss", max_epochs=4)
    experiment = Experiment(
        lambda: network(),
        evaluator,
        GridSearch(),
        name="s",
        directory=tmp_path,
        early_stopping=Patience(1, min_delta=1000.0),
    )
    experiment.run(1, progress="silent")
    assert experiment.trials[0].state is TrialState.STOPPED, experiment.trials[0].error


def test_the_two_are_not_mixed() -> None:
    one, other = map(imported, NAMES)
    stopping = importlib.import_module("lightning.pytorch.callbacks").EarlyStopping("val_loss")
    both = "pytorch_lightning.*lightning.pytorch"
    with pytest.raises(NasError, match=f"Fit of {both}"):
        LightningEvaluator(fits(one), DATA, DATA, metric="val_loss", callbacks=[stopping])
    with pytest.raises(NasError, match="EarlyStopping of lightning.pytorch, and Told of pytorch_lightning|Told of"):
        Classification(told(one), callbacks=stopping)
    job = Job(number=0, sample={}, build=lambda sample, seed: (nn.Linear(1, 1), sample))
    made = fits(one)
    with pytest.raises(NasError, match=f"Fit of {both}"):
        LightningEvaluator(lambda model: made(model), told(other), metric="val_loss").evaluate(job)
