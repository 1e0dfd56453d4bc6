"""What this package takes for granted of Lightning's two names."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

import pytest
import pytorch_lightning

from nas._compat.lightning_families import Family, families, family_named, family_of

PATHS = [
    *("Trainer", "LightningModule", "LightningDataModule", "Callback", "callbacks.Checkpoint"),
    *("loggers.Logger", "loggers.CSVLogger", "loggers.TensorBoardLogger", "strategies.Strategy"),
    *("strategies.DDPStrategy", "strategies.SingleDeviceStrategy", "utilities.CombinedLoader"),
    *("utilities.warnings.PossibleUserWarning", "utilities.model_helpers.is_overridden"),
    "strategies.launchers._SubprocessScriptLauncher",
]


class Noted(pytorch_lightning.Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.calls.append("fit")


@pytest.fixture(params=["pytorch_lightning", "lightning.pytorch"])
def family(request: pytest.FixtureRequest) -> Family:
    pytest.importorskip(request.param)
    return family_named(request.param)


@pytest.mark.parametrize("path", PATHS)
def test_each_family_has_what_is_asked_of_it(family: Family, path: str) -> None:
    assert family.get(path).__name__ == path.rpartition(".")[2]


def test_an_object_belongs_to_the_family_of_its_base(family: Family) -> None:
    assert family_of(family.LightningModule()) is family
    assert family_of(3, "text", None, family.get("callbacks.EarlyStopping")("loss")) is family
    assert family_of(type("Own", (family.LightningModule,), {})) is family
    assert family in families()
    assert pickle.loads(pickle.dumps(family)) is family


def test_a_callback_of_ours_shares_its_attributes_with_the_member(family: Family) -> None:
    ours = Noted()
    member = family.as_callback(ours)
    assert isinstance(member, family.Callback)
    assert isinstance(member, Noted)
    member.on_fit_start(None, None)  # type: ignore[arg-type]  # it does not look at them
    assert ours.calls == ["fit"]
    again = pickle.loads(pickle.dumps(member))
    assert type(again) is type(member)
    assert again.calls == ["fit"]
    assert family.is_overridden("on_fit_start", member)
    assert not family.is_overridden("state_dict", member)


def test_where_nothing_is_lightnings_the_default_counts() -> None:
    assert family_of(1).name == "pytorch_lightning"
    other = Family("lightning.pytorch")
    assert family_of(1, default=other) is other


def test_what_both_names_mean_is_the_same_code() -> None:
    pytest.importorskip("lightning.pytorch")
    trainers = [importlib.import_module(name).Trainer for name in ("pytorch_lightning", "lightning.pytorch")]
    ours, theirs = ({name for name in dir(trainer) if not name.startswith("_")} for trainer in trainers)
    assert ours == theirs
