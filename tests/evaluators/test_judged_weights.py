"""The weights that a trial is judged with, whatever callbacks and LightningModules do to them meanwhile."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, callbacks
from pytorch_lightning.callbacks import EarlyStopping, StochasticWeightAveraging
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, TrialState, ValueChoice
from nas.evaluators import Classification, LightningEvaluator
from nas.strategies import GridSearch

torch.manual_seed(0)
X = torch.randn(120, 8)
Y = (X @ torch.randn(8, 4)).argmax(1)
TRAIN, VALIDATION = TensorDataset(X[:60], Y[:60]), TensorDataset(X[60:], Y[60:])


def space() -> nn.Module:
    width = ValueChoice([6, 12], label="width")
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 4))


def loss_of(model: nn.Module) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(X[60:]), Y[60:]))


class Own(LightningModule):
    """Trains the model; how it is held and validated, others say."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def predict(self, x: Tensor) -> Any:
        return self.model(x)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self.predict(batch[0]), batch[1])
        self.log("loss", loss, batch_size=len(batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


class Inside(Own):
    """Holds it deep inside, and calls only its parts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(nn.Sequential(nn.Identity(), model))

    def predict(self, x: Tensor) -> Any:
        for layer in self.model[1]:
            x = layer(x)
        return x


class Swapped(Own):
    """Validates with other weights than it trains, by a functional call."""

    def predict(self, x: Tensor) -> Any:
        halves = {name: parameter / 2 for name, parameter in self.model.named_parameters()}
        return torch.func.functional_call(self.model, halves, (x,))


class Aside(Own):
    """Validates a copy."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.twin = copy.deepcopy(model)

    def predict(self, x: Tensor) -> Any:
        return self.twin(x)


class Copied(Own):
    """Holds a copy only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(copy.deepcopy(model))


class SpoiledAfterwards(Callback):
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        nn.init.zeros_(pl_module.model[3].weight)  # type: ignore[index,union-attr]  # a Sequential


def search(evaluator: Any, folder: Path) -> Experiment:
    experiment = Experiment(
        space, evaluator, GridSearch(), name="kept", directory=folder, objective={"loss": "minimize"}
    )
    experiment.run(1, progress="silent")
    assert experiment.trials[0].state is TrialState.COMPLETE, experiment.trials[0].error
    return experiment


CALLBACKS: dict[str, Any] = {
    "no callback": [],
    **(
        {"a moving average": callbacks.EMAWeightAveraging(decay=0.9)}
        if hasattr(callbacks, "EMAWeightAveraging")
        else {}
    ),
    "a stochastic average": StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1),
    "an end before the last epoch": EarlyStopping("loss", min_delta=100.0, patience=1),
    "what comes after the last validation": SpoiledAfterwards(),
}


@pytest.mark.parametrize("callbacks", CALLBACKS.values(), ids=CALLBACKS)
def test_callbacks_that_exchange_weights(tmp_path: Path, callbacks: Any) -> None:
    evaluator = Classification(
        TRAIN, VALIDATION, max_epochs=3, learning_rate=0.02, batch_size=20, callbacks=callbacks, logger=False
    )
    experiment = search(evaluator, tmp_path)
    (model,) = experiment.export_top_models(1, "model", weights="trained")
    assert loss_of(model) == pytest.approx(experiment.best_trial.value, rel=1e-5)


@pytest.mark.parametrize("kind", [Own, Inside, Swapped])
def test_modules_of_the_users(tmp_path: Path, kind: type[Own]) -> None:
    evaluator = LightningEvaluator(kind, TRAIN, VALIDATION, metric="loss", max_epochs=2, logger=False)
    experiment = search(evaluator, tmp_path)
    (model,) = experiment.export_top_models(1, "model", weights="trained")
    assert loss_of(model) == pytest.approx(experiment.best_trial.value, rel=1e-5)


@pytest.mark.parametrize("kind", [Aside, Copied])
def test_where_a_copy_is_judged_nothing_is_kept(tmp_path: Path, kind: type[Own]) -> None:
    evaluator = LightningEvaluator(kind, TRAIN, VALIDATION, metric="loss", max_epochs=1, logger=False)
    assert search(evaluator, tmp_path).best_trial.checkpoint is None


class Compiled(Own):
    """Compiled without a compiler, which would take its time: hooks inside are passed over all the same."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(torch.compile(model, backend="eager"))  # type: ignore[arg-type]  # it is a module


def test_a_compiled_model(tmp_path: Path) -> None:
    evaluator = LightningEvaluator(Compiled, TRAIN, VALIDATION, metric="loss", max_epochs=2, logger=False)
    experiment = search(evaluator, tmp_path)
    (model,) = experiment.export_top_models(1, "model", weights="trained")
    assert loss_of(model) == pytest.approx(experiment.best_trial.value, rel=1e-4)


def test_hooks_do_not_stay_and_earlier_files_do_not_either(tmp_path: Path) -> None:
    seen: list[nn.Module] = []

    class Spy(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append(pl_module)

        def __deepcopy__(self, memo: dict[int, Any]) -> Spy:
            return self

    folder = tmp_path / "kept" / "trials" / "0"

    class Killed(Callback):
        """Leaves what a run that was killed would have left."""

        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            (folder / "weights-buffers.pt").write_text("left by a run that was killed")

    evaluator = Classification(TRAIN, VALIDATION, max_epochs=1, logger=False, callbacks=[Spy(), Killed()])
    search(evaluator, tmp_path)
    assert sorted(path.name for path in folder.glob("weights*")) == ["weights.pt"]
    hooks = [module._forward_pre_hooks for part in seen for module in part.modules() if module is not part.model]
    assert not any(hooks)
