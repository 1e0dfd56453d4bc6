"""A user's own LightningModule and data module; time limits, early stopping, and data that is loaded once."""

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from nas import Experiment, Integer, Job, NasError, Patience, Real, TrialState, ValueChoice
from nas.evaluators import Classification, LightningEvaluator
from nas.strategies import GridSearch, Random

X = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, X.sum(1, keepdim=True))


def network() -> nn.Module:
    width = ValueChoice([4, 8], label="width")
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1))


class Fit(LightningModule):
    def __init__(self, model: nn.Module, rate: float = 0.01, max_epochs: int = 1) -> None:
        super().__init__()
        self.model, self.rate, self.max_epochs = model, rate, max_epochs

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = mse_loss(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", mse_loss(self.model(batch[0]), batch[1]))
        self.log("planned", float(self.max_epochs))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.rate)


class Loads(LightningDataModule):
    """Counts, in a file, how often it loads."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def prepare_data(self) -> None:
        with self.log.open("a") as file:
            file.write("prepare\n")

    def setup(self, stage: str) -> None:
        with self.log.open("a") as file:
            file.write("setup fit\n" if stage == "fit" else "setup another\n")
        self.data = DATA

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.data, 32, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        assert self.trainer is not None
        return DataLoader(self.data, 32)

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        return [batch[0], batch[1] + 100.0]


def job(**hyperparameters: Any) -> Job:
    return Job(
        number=0,
        sample=dict(hyperparameters),
        build=lambda sample, seed: (nn.Linear(4, 1), sample),
        hyperparameters=frozenset(hyperparameters),
    )


def test_keywords_go_to_whoever_names_them(tmp_path: Path) -> None:
    evaluator = LightningEvaluator(
        Fit, DATA, DATA, metric="val_loss", rate=Real(0.01, 0.02), max_epochs=Integer(2, 3), gradient_clip_val=1.0
    )
    assert evaluator.direction == "minimize"
    experiment = Experiment(lambda: network(), evaluator, Random(), name="own", directory=tmp_path)
    experiment.run(2, progress="silent")
    for trial in experiment.trials:
        assert trial.state is TrialState.COMPLETE, trial.error
        assert next(iter(trial.metrics)) == "val_loss"
        assert len(trial.intermediate) == trial.metrics["planned"] == trial.sample["max_epochs"]
    assert experiment.objectives.directions == ("minimize",)
    module = evaluator.module(nn.Linear(4, 1), rate=0.02)
    assert isinstance(module, Fit)
    assert (module.rate, module.max_epochs) == (0.02, 2)


def test_a_data_module_is_set_up_once_in_a_process_and_its_hooks_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    evaluator = LightningEvaluator(Fit, Loads(log), metric="val_loss", max_epochs=1)
    experiment = Experiment(lambda: network(), evaluator, GridSearch(), name="held", directory=tmp_path)
    experiment.run(2, progress="silent")
    assert log.read_text() == "prepare\nsetup fit\n"
    assert min(trial.metrics["val_loss"] for trial in experiment.trials) > 5000  # the hook adds 100 to the targets


def test_data_is_loaded_once_however_often_the_evaluator_is_pickled(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def load() -> tuple[TensorDataset, TensorDataset]:
        with log.open("a") as file:
            file.write("loaded\n")
        return DATA, DATA

    evaluator = LightningEvaluator(Fit, load, metric="val_loss", max_epochs=1)
    for _ in range(3):
        cloudpickle.loads(cloudpickle.dumps(evaluator)).evaluate(job())
    assert log.read_text() == "loaded\n"


def test_a_stopped_trial_is_stopped(tmp_path: Path) -> None:
    evaluator = LightningEvaluator(Fit, DATA, DATA, metric="val_loss", max_epochs=50)
    rule = Patience(2, min_delta=1000.0)
    experiment = Experiment(
        lambda: network(), evaluator, Random(), name="stop", directory=tmp_path, early_stopping=rule
    )
    experiment.run(2, progress="silent")
    for trial in experiment.trials:
        assert trial.state is TrialState.STOPPED
        assert list(trial.intermediate) == [0, 1, 2]
        assert trial.value == trial.intermediate[2]
        assert (tmp_path / "stop" / "trials" / str(trial.number) / "hparams.yaml").exists()


def test_callbacks_of_the_user_begin_anew_in_each_trial(tmp_path: Path) -> None:
    stopper = EarlyStopping("val_loss", patience=1, min_delta=1000.0)
    evaluator = LightningEvaluator(Fit, DATA, DATA, metric="val_loss", max_epochs=9, callbacks=stopper)
    experiment = Experiment(lambda: network(), evaluator, GridSearch(), name="callbacks", directory=tmp_path)
    experiment.run(2, progress="silent")
    assert [len(trial.intermediate) for trial in experiment.trials] == [2, 2]
    assert stopper.stopped_epoch == 0


class Slow(Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.02)


@pytest.mark.parametrize("alarms", [True, False])
def test_a_trial_that_takes_too_long_fails(alarms: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a signal, or where there are none by looking at the clock."""
    if not alarms:
        monkeypatch.delattr(signal, "SIGALRM")
    evaluator = LightningEvaluator(Fit, DATA, DATA, metric="val_loss", max_epochs=500, callbacks=[Slow()])
    experiment = Experiment(lambda: network(), evaluator, Random(), name="slow", directory=tmp_path)
    begin = time.monotonic()
    experiment.run(1, progress="silent", max_trial_time=0.4)
    assert time.monotonic() - begin < 10
    assert experiment.trials[0].state is TrialState.FAILED
    assert "TrialTimeout: the trial ran longer than max_trial_time" in experiment.trials[0].error_line


def test_lightning_speaks_again_after_a_trial() -> None:
    levels = [logging.getLogger(name).level for name in ("pytorch_lightning", "lightning_fabric")]
    LightningEvaluator(Fit, DATA, DATA, metric="val_loss", max_epochs=1).evaluate(job())
    assert [logging.getLogger(name).level for name in ("pytorch_lightning", "lightning_fabric")] == levels


def test_progress_of_lightning_can_be_turned_on(capfd: pytest.CaptureFixture[str]) -> None:
    LightningEvaluator(Fit, DATA, DATA, metric="val_loss", max_epochs=1, enable_progress_bar=True).evaluate(job())
    assert "Epoch 0" in "".join(capfd.readouterr())


def test_one_trainer_after_the_other_shares_nothing() -> None:
    evaluator = LightningEvaluator(Fit, DATA, DATA, metric="val_loss", max_epochs=Integer(1, 5))
    first, second = evaluator.trainer(max_epochs=3), evaluator.trainer()
    assert isinstance(first, Trainer)
    assert (first.max_epochs, second.max_epochs) == (3, 1)
    assert first is not second


class NoValidation(LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return mse_loss(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LightningEvaluator(Fit, DATA, DATA, metric="val_loss", rat=1.0),
            "'rat' is no argument.*'rate'",
        ),
        (lambda: LightningEvaluator(Fit, DATA, DATA, metric=""), "metric must be the name"),
        (
            lambda: LightningEvaluator(Fit, DATA, DATA, metric="a", direction="up"),
            'direction must be "maximize" or "minimize"',
        ),  # type: ignore[arg-type]
        (lambda: LightningEvaluator(nn.Linear(1, 1), DATA, DATA, metric="a"), "factory must be a class"),  # type: ignore[arg-type]
        (lambda: LightningEvaluator(lambda model, x: Fit(model), DATA, DATA, metric="a"), "and needs x"),
        (lambda: LightningEvaluator(Fit, LightningDataModule(), DATA, metric="a"), "its own validation"),
        (lambda: Classification(LightningDataModule(), batch_size=3), "a data module has its own batch size"),
    ],
)
def test_bad_arguments_are_answered_before_anything_runs(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        make()
    assert isinstance(caught.value, NasError)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (LightningEvaluator(Fit, DATA, DATA, metric="val_los"), "'val_los' was not logged.*did you mean 'val_loss'"),
        (LightningEvaluator(NoValidation, DATA, DATA, metric="val_loss"), "give it a validation_step"),
        (LightningEvaluator(lambda model: model, DATA, DATA, metric="a"), "LightningModule of the package"),  # type: ignore[arg-type]
    ],
)
def test_modules_that_cannot_serve_are_answered_before_the_first_epoch(
    evaluator: LightningEvaluator, message: str
) -> None:
    trial = job()
    with pytest.raises(NasError, match=message):
        evaluator.evaluate(trial)
    assert trial.reports == {}
