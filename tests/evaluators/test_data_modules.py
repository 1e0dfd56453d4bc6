"""What a Trainer, its callbacks and hooks see of a user's data module: all of it, prepared and set up once."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from nas import Job
from nas.evaluators import Classification, LightningEvaluator

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says of torch, and of small data

X = torch.arange(24.0)[:, None] / 24
DATA = TensorDataset(X, 2 * X)


class Fit(LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return mse_loss(self.model(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


class Told(LightningDataModule):
    """Writes down each hook that is called, and whether it has a Trainer then."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.scale = scale
        self.calls: list[str] = []

    def note(self, hook: str) -> None:
        self.calls.append(hook if self.trainer is not None else f"{hook} without a trainer")

    def prepare_data(self) -> None:
        self.note("prepare_data")

    def setup(self, stage: str) -> None:
        self.note("setup fit" if stage == "fit" else "setup another")
        self.classes = ["a", "b"]

    def teardown(self, stage: str) -> None:
        self.note("teardown fit" if stage == "fit" else "teardown another")

    def train_dataloader(self) -> Any:
        self.note("train_dataloader")
        return DataLoader(DATA, 8, shuffle=True, generator=torch.Generator())

    def val_dataloader(self) -> Any:
        self.note("val_dataloader")
        return DataLoader(DATA, 8)

    def test_dataloader(self) -> Any:
        self.note("test_dataloader")
        return DataLoader(DATA, 8)

    def state_dict(self) -> dict[str, Any]:
        self.note("state_dict")
        return {"scale": self.scale}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.note("load_state_dict")
        self.scale = state_dict["scale"]

    def on_exception(self, exception: BaseException) -> None:
        self.note(f"on_exception {exception}")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.note("on_before_batch_transfer")
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.note("on_after_batch_transfer")
        return [batch[0] * self.scale, batch[1]]


class Looks(Callback):
    """Keeps what the callbacks of a user find."""

    seen: dict[str, Any]

    def __init__(self, raises: bool = False) -> None:
        self.raises = raises

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        Looks.seen = {"told": isinstance(module, Told), "classes": module.classes, "hparams": dict(module.hparams)}
        Looks.seen["own"] = pl_module.trainer.datamodule is module  # type: ignore[attr-defined]
        if self.raises:
            raise RuntimeError("enough")


def job() -> Job:
    return Job(number=0, sample={}, build=lambda sample, seed: (nn.Linear(1, 1), sample))


def test_what_the_trainer_has_is_of_the_users_class_with_its_attributes() -> None:
    evaluator = LightningEvaluator(Fit, Told(scale=2.0), metric="val_loss", max_epochs=1, callbacks=[Looks()])
    evaluator.evaluate(job())
    assert Looks.seen == {"told": True, "classes": ["a", "b"], "hparams": {"scale": 2.0}, "own": True}


def test_hooks_are_called_as_by_lightning_save_that_data_is_set_up_once() -> None:
    plain, ours = Told(), Told()
    arguments: dict[str, Any] = {"max_epochs": 2, "enable_checkpointing": False, "num_sanity_val_steps": 1}
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(**arguments, **quiet).fit(Fit(nn.Linear(1, 1)), datamodule=plain)
    assert "teardown fit" in plain.calls

    evaluator = LightningEvaluator(Fit, ours, metric="val_loss", **arguments)
    evaluator.evaluate(job())
    assert ours.calls == [call for call in plain.calls if call != "teardown fit"]
    ours.calls.clear()
    evaluator.evaluate(job())
    assert ours.calls == [call for call in plain.calls if call.split()[0] not in ("prepare_data", "setup", "teardown")]


def test_states_are_saved_loaded_and_tested_with(tmp_path: Path) -> None:
    file = tmp_path / "whole.ckpt"
    told = Told(scale=3.0)
    evaluator = LightningEvaluator(Fit, told, metric="val_loss", max_epochs=1, logger=False)
    data, trainer, module = evaluator.data(), evaluator.trainer(), evaluator.module(nn.Linear(1, 1))
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(file)
    found = torch.load(file, weights_only=True)
    assert found["Told"] == {"scale": 3.0}
    assert found["datamodule_hyper_parameters"] == {"scale": 3.0}
    other = Told()
    other_evaluator = LightningEvaluator(Fit, other, metric="val_loss", max_epochs=2, logger=False)
    other_evaluator.trainer().fit(module, datamodule=other_evaluator.data(), ckpt_path=file)
    assert other.scale == 3.0
    assert "test_dataloader" in _tested(other_evaluator)


def _tested(evaluator: LightningEvaluator) -> list[str]:
    class Tested(Fit):
        def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("test_loss", self.training_step(batch, batch_idx))

    data: Any = evaluator.data()
    evaluator.trainer().test(Tested(nn.Linear(1, 1)), datamodule=data, verbose=False)
    calls: list[str] = data.calls
    return calls


def test_an_exception_reaches_the_data_module() -> None:
    told = Told()
    evaluator = LightningEvaluator(Fit, told, metric="val_loss", max_epochs=1, callbacks=[Looks(raises=True)])
    with pytest.raises(RuntimeError, match="enough"):
        evaluator.evaluate(job())
    assert "on_exception enough" in told.calls


def test_loaders_can_be_asked_for_without_a_trainer() -> None:
    told = Told()
    data = LightningEvaluator(Fit, told, metric="val_loss").data(seed=3)
    assert len(list(data.train_dataloader())) == len(list(data.val_dataloader())) == 3
    assert [call.split()[0] for call in told.calls] == ["prepare_data", "setup", "train_dataloader", "val_dataloader"]


def _order(loader: Any) -> list[float]:
    return [float(x) for batch in loader for x in batch[0]]


def test_training_data_can_be_wrapped_and_the_users_loaders_are_asked_for_once() -> None:
    told, orders = Told(), []

    def wrap(load: Any) -> Any:
        orders.append([_order(load(seed)) for seed in (1, 2, 1)])
        return load(7)

    evaluator = LightningEvaluator(Fit, told, metric="val_loss", max_epochs=1)
    data = evaluator.data(train=wrap)
    first = data.train_dataloader()
    assert told.calls.count("train_dataloader without a trainer") == 1
    (one, two, again) = orders[0]
    assert one == again != two
    assert sorted(one) == sorted(two) == _order(DataLoader(DATA, 8))
    assert _order(first) == _order(data.train_dataloader())

    for given in (DATA, DataLoader(DATA, 8, shuffle=True, generator=torch.Generator())):
        size = {} if isinstance(given, DataLoader) else {"batch_size": 8}
        plain = LightningEvaluator(Fit, given, DataLoader(DATA, 8), metric="val_loss", **size)  # type: ignore[arg-type]
        plain.data(train=wrap).train_dataloader()
        (one, two, again) = orders[-1]
        assert one == again != two


def test_methods_that_stand_in_the_object_itself_are_the_users_too() -> None:
    given = LightningDataModule.from_datasets(DATA, DATA, batch_size=8)
    calls = []
    made = given.train_dataloader

    def own() -> Any:
        calls.append("own")
        return made()

    given.train_dataloader = own  # type: ignore[method-assign]
    evaluator = LightningEvaluator(Fit, given, metric="val_loss", max_epochs=1)
    assert evaluator.evaluate(job())["val_loss"] < 5
    assert calls == ["own"]


def test_a_view_can_be_pickled_and_copied() -> None:
    told = Told(scale=5.0)
    data: Any = LightningEvaluator(Fit, told, metric="val_loss").data(seed=1)
    data.train_dataloader()
    for other in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert isinstance(other, Told)
        assert type(other) is not Told
        other.calls.clear()
        other.train_dataloader()
        assert [call.split()[0] for call in other.calls] == ["prepare_data", "setup", "train_dataloader"]
        assert other.scale == 5.0


class Unjudged(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(DATA, 8)


def test_a_data_module_without_validation_is_answered_in_words() -> None:
    evaluator = LightningEvaluator(Fit, Unjudged(), metric="val_loss", max_epochs=1)
    with pytest.raises(ValueError, match="judged by validation data.*give it a val_dataloader"):
        evaluator.evaluate(job())


class Several(LightningDataModule):
    def __init__(self, train: Any) -> None:
        super().__init__()
        self.train = train

    def train_dataloader(self) -> Any:
        return self.train

    def val_dataloader(self) -> Any:
        return DataLoader(DATA, 8)


def test_several_training_loaders_keep_their_form_and_have_orders_of_their_own() -> None:
    from pytorch_lightning.utilities import CombinedLoader

    def loader() -> DataLoader[Any]:
        return DataLoader(DATA, 8, shuffle=True, generator=torch.Generator())

    dicts: Any = {"a": loader(), "b": [loader()]}
    for given in (dicts, CombinedLoader(dicts, "max_size")):
        made = LightningEvaluator(Fit, Several(given), metric="val_loss").data(seed=1).train_dataloader()
        assert type(made) is type(given)
        inner = made.iterables if isinstance(made, CombinedLoader) else made
        assert inner["a"] is not dicts["a"]
        assert _order(inner["a"]) != _order(inner["b"][0])


class Validates(Fit):
    """Logs the mean of the inputs, which differs from loader to loader."""

    add_index = True

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:  # type: ignore[override]
        name = "val_acc" if self.add_index else f"val_acc_{dataloader_idx}"
        self.log(name, batch[0].mean(), add_dataloader_idx=self.add_index)


class Apart(Validates):
    add_index = False


HALVES = [TensorDataset(torch.zeros(8, 1), torch.zeros(8, 1)), TensorDataset(torch.ones(4, 1), torch.ones(4, 1))]


class TwoValidations(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(DATA, 8)

    def val_dataloader(self) -> Any:
        return [DataLoader(half, 4) for half in HALVES]


@pytest.mark.parametrize(
    ("metric", "module", "value"),
    [
        ("val_acc", Validates, 0.5),
        ("val_acc/dataloader_idx_0", Validates, 0.0),
        ("val_acc/dataloader_idx_1", Validates, 1.0),
        ("val_acc_1", Apart, 1.0),
    ],
)
def test_several_validation_loaders_have_a_metric_each_and_a_mean(
    metric: str, module: type[LightningModule], value: float
) -> None:
    for data in (
        [TwoValidations()],
        [DataLoader(DATA, 8), [DataLoader(half, 4) for half in HALVES]],
        [DATA, {"a": HALVES[0], "b": HALVES[1]}],
    ):
        evaluator = LightningEvaluator(module, *data, metric=metric, max_epochs=2)
        assert evaluator.direction == "maximize"
        trial = job()
        found = evaluator.evaluate(trial)
        assert (next(iter(found)), found[metric], trial.reports) == (metric, value, {0: value, 1: value})
        if module is Validates:
            assert {f"val_acc{end}" for end in ("", "/dataloader_idx_0", "/dataloader_idx_1")} <= found.keys()


def test_classification_pools_several_validation_loaders() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2), torch.tensor([0, 1])
    parts = [TensorDataset(torch.zeros(len(some), 1), some) for some in labels]

    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([5.0, 0.0]))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.bias.expand(len(inputs), 2)

    for validation in (parts, {"a": parts[0], "b": parts[1]}, [DataLoader(part, 4) for part in parts]):
        evaluator = Classification(parts[0], validation, learning_rate=0.0, max_epochs=1)
        found = evaluator.evaluate(Job(number=0, sample={}, build=lambda sample, seed: (Zero(), sample)))
        assert found["accuracy"] == pytest.approx(7 / 10)


class Combines(Fit):
    seen: list[str]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        Combines.seen.append("+".join(str(None if part is None else len(part[0])) for part in batch.values()))
        return sum(Fit.training_step(self, part, batch_idx) for part in batch.values())  # type: ignore[return-value]

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", Fit.training_step(self, batch, batch_idx))


def test_training_loaders_are_combined_as_lightning_does() -> None:
    def both() -> Any:
        return {"a": DataLoader(DATA, 8), "b": DataLoader(DATA, 12)}

    ways: list[Any] = [(Several(both()),), (both(), DATA), (lambda: (both(), DATA),)]
    for way in ways:
        Combines.seen = []
        LightningEvaluator(Combines, *way, metric="val_loss", max_epochs=1).evaluate(job())
        assert Combines.seen == ["8+12", "8+12", "8+12"]


def test_several_training_loaders_for_classification_are_answered_in_words() -> None:
    parts = [TensorDataset(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))] * 2
    with pytest.raises(TypeError, match="one of several loaders together"):
        Classification(parts, parts[0], max_epochs=1).evaluate(job())
    with pytest.raises(ValueError, match="folds need a dataset"):
        Classification(parts, folds=2)
    with pytest.raises(ValueError, match="must not be empty"):
        Classification(parts, [parts[0], TensorDataset(torch.zeros(0, 1), torch.zeros(0))])


def test_a_list_of_samples_is_one_dataset() -> None:
    pairs = [(torch.zeros(1), torch.zeros(1))] * 4
    evaluator = LightningEvaluator(Fit, pairs, pairs, metric="val_loss", max_epochs=1, batch_size=2)
    assert len(evaluator.data().train_dataloader()) == 2


def test_closing_an_evaluator_tears_its_data_down_once() -> None:
    told = Told()
    evaluator = LightningEvaluator(Fit, told, metric="val_loss", max_epochs=1)
    evaluator.close()
    evaluator.evaluate(job())
    evaluator.close()
    evaluator.close()
    assert [call for call in told.calls if "teardown" in call] == ["teardown fit without a trainer"]
    told.calls.clear()
    evaluator.evaluate(job())
    assert "setup fit" in told.calls


SCRIPT = """
import sys
from tests.evaluators.test_data_modules import DATA, Fit, Told, job
from nas.evaluators import LightningEvaluator

class Last(Told):
    def teardown(self, stage):
        print("teardown", stage == "fit")

evaluator = LightningEvaluator(Fit, Last(), metric="val_loss", max_epochs=1, accelerator="cpu")
evaluator.evaluate(job())
evaluator.evaluate(job())
print("the end")
"""


@pytest.mark.slow
def test_the_data_is_torn_down_when_the_process_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, env=_path(), cwd=tmp_path
    )
    assert found.stdout.split("\n")[-3:] == ["the end", "teardown True", ""]


def _path() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
