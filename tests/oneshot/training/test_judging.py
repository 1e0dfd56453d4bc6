"""Judging by Lightning's validation: data is loaded once, steps get what they get in a fit, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from nas.evaluators import LightningEvaluator
from nas.oneshot.training.judging import Judging
from tests.oneshot.conftest import OtherDevice, Reruns, TapeLane, TapeRecorder, Unwatched


class Counted(Dataset[Any]):
    """Numbers, which knows how often it is asked."""

    def __init__(self, length: int) -> None:
        self.length, self.asked = length, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return {"x": torch.full((2,), float(index)), "y": torch.tensor(float(index))}


class Data(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.train, self.validation = Counted(12), Counted(10)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, 4)

    def val_dataloader(self) -> Any:
        return DataLoader(self.validation, 4)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {name: tensor + 100 for name, tensor in batch.items()}


class Module(LightningModule):
    """Changes its batches in place, as careless code does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return mse_loss(self.model(input=batch["x"])[:, 0], batch["y"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(float(batch["y"].sum()))
        self.log("val_loss", mse_loss(self.model(batch.pop("x"))[:, 0], batch["y"]))
        batch["y"] -= 1e3

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))


class Named(nn.Module):
    """Is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = network()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inside(input)
        return out


def judging(**given: Any) -> tuple[Judging, LightningEvaluator, Data]:
    data = Data()
    evaluator = LightningEvaluator(Module, data, metric="val_loss", accelerator="cpu", logger=False, **given)
    return Judging(evaluator, seed=0), evaluator, data


def test_data_is_loaded_once_and_handed_on_as_it_was() -> None:
    judge, evaluator, data = judging()
    modules: list[Any] = [evaluator.module(network()) for _ in range(3)]
    found = [judge.measure(module) for module in modules]
    assert data.validation.asked == 10
    assert found[0] == found[1] == found[2]
    assert modules[0].seen == modules[1].seen == modules[2].seen == [sum(range(100, 104)), sum(range(104, 108)), 217]


def test_fewer_batches_are_the_first_ones() -> None:
    judge, evaluator, data = judging()
    few: Any = evaluator.module(network())
    judge.measure(few, batches=1)
    assert few.seen == [sum(range(100, 104))]
    judge.measure(few, batches=2)
    judge.measure(few, batches=1)
    assert few.seen[1:] == [*few.seen[:1], sum(range(104, 108)), *few.seen[:1]]
    assert data.validation.asked == 4 + 8


@pytest.mark.parametrize(("limit", "batches"), [(1, 1), (1.0, 3), (0.7, 2)])
def test_limits_of_the_trainer_hold(limit: float, batches: int) -> None:
    judge, evaluator, _ = judging(limit_val_batches=limit)
    for asked, expected in ((None, batches), (9, batches), (1, 1), (None, batches)):
        module: Any = evaluator.module(network())
        judge.measure(module, batches=asked)
        assert len(module.seen) == expected


def test_batch_statistics_are_those_of_what_the_training_step_calls_the_network_with() -> None:
    judge, evaluator, data = judging()
    for _ in range(3):
        model = Named()
        norm: Any = model.inside[0]
        judge.inside(evaluator.module(model), judge.recalibration(model, 20))
        assert norm.running_mean.tolist() == pytest.approx([105.5, 105.5], abs=1e-4)
        assert norm.num_batches_tracked == 3
    assert data.train.asked == 4 + 12, "loaded once, though an epoch has fewer than 20 batches"


def test_nothing_stays_in_the_module() -> None:
    judge, evaluator, _ = judging()
    module = evaluator.module(network())
    before = set(vars(module))
    for _ in range(2):
        judge.measure(module)
    assert not {"setup", "log", "_on_before_batch_transfer", "backward"} & set(vars(module))
    assert set(vars(module)) - before <= {"_trainer", "_hparams"}, "as after any validation"


@pytest.mark.parametrize("limit", [None, 9])
def test_recorded_passes_judge_alike(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's own steps run as ever; the network's passes are replayed, batch statistics too."""
    found = []
    made: list[TapeRecorder] = []

    def recorder_of(device: torch.device) -> TapeRecorder:
        made.append(TapeRecorder())
        return made[-1]

    for recorded in (False, True):
        if recorded:
            monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", recorder_of)
        judge, evaluator, data = judging()
        data.train.length, data.validation.length = 48, 38
        values = []
        for number in range(3):
            model = network().requires_grad_(number == 0)
            module: Any = evaluator.module(model)
            before = judge.recalibration(model, 9)
            values.append((judge.measure(module, model=model, before=before, batches=limit), module.seen))
            assert "forward" not in vars(model)
            assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm1d))
        found.append(values)
        assert judge.unrecorded is None
    assert len(made) == 1
    assert made[0].replays == 3 * (8 + 8)
    for (metrics, seen), (expected, steps) in zip(found[1], found[0], strict=True):
        assert metrics == pytest.approx(expected, rel=1e-5)
        assert seen == steps


def test_why_passes_are_not_recorded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", lambda device: TapeRecorder())

    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.rand(())

    judge, evaluator, data = judging()
    data.validation.length = 38
    model = Noisy(2, 1)
    judge.measure(evaluator.module(model))  # the loader of this one draws random numbers too
    expected = judge.measure(evaluator.module(model))
    assert judge.unrecorded is None
    assert judge.measure(evaluator.module(model), model=model) == expected
    assert "random numbers" in str(judge.unrecorded)


class Quiet(Module):
    """Leaves its numbers on the device."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch_idx)
        self.log("val_loss", (self.model(batch["x"])[:, 0] - batch["y"]).square().mean())


class Lanes:
    """What is judged on some lanes that stand for streams of a device."""

    def __init__(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.lanes = [TapeLane(str(lane), self.events) for lane in range(number)]
        self.alone = TapeRecorder()
        monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", lambda device: self.alone)
        monkeypatch.setattr("nas.oneshot.training.judging.lanes_of", lambda device: self.lanes)


def judged(
    candidates: int,
    *,
    kind: Callable[..., LightningModule] = Quiet,
    model: Callable[[], nn.Module] = network,
    length: int = 38,
    **given: Any,
) -> tuple[Judging, list[dict[str, float]], list[Any]]:
    """Judges some candidates, as many at once as are to be."""
    data = Data()
    data.train.length, data.validation.length = length, length
    evaluator = LightningEvaluator(
        kind, data, metric="val_loss", **{"accelerator": "cpu", "logger": False, "devices": 1, **given}
    )
    judge = Judging(evaluator, seed=0)
    modules, begun, found = [], list[Callable[[], dict[str, float]]](), list[dict[str, float]]()
    for number in range(candidates):
        net = model()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1 + number)
        modules.append(evaluator.module(net))
        begun.append(judge.begin(modules[-1], model=net, before=judge.recalibration(net, 9)))
        if len(begun) >= judge.at_once:
            found.append(begun.pop(0)())
    return judge, [*found, *(each() for each in begun)], modules


def test_models_are_judged_side_by_side_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("nas.oneshot.training.judging.recorder_of", lambda device: TapeRecorder())
        _, expected, plain = judged(8)
    lanes = Lanes(3, monkeypatch)
    judge, found, modules = judged(8)
    assert found == expected
    assert [module.seen for module in modules] == [module.seen for module in plain]
    # The first loads the data, the second is watched; the other six take the lanes in turns.
    assert judge.at_once == 3
    first = [f"{lane} {what}" for lane in "012" for what in ("begins", "is asked")]
    assert lanes.events[:6] == first
    asked = [event for event in lanes.events if "waited" not in event]
    assert asked == first * 2
    for lane in "012":
        mine = [event.removeprefix(f"{lane} ") for event in lanes.events if event.startswith(lane)]
        assert mine == ["begins", "is asked", "is waited for"] * 2
    assert [lane.recorder.replays for lane in lanes.lanes] == [2 * (8 + 8)] * 3
    assert lanes.alone.replays == 8 + 8, "of the first"
    assert [model.running_mean.tolist() for model in (module.model[0] for module in modules)] == [
        model.running_mean.tolist() for model in (module.model[0] for module in plain)
    ]


def test_nobody_waits_for_the_device_between_two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(2, monkeypatch)
    reads: list[str] = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        own = getattr(Tensor, name)

        def read(self: Tensor, *args: Any, own: Any = own, name: str = name) -> Any:
            if lanes.events and lanes.events[-1].endswith("begins"):
                reads.append(name)
            return own(self, *args)

        monkeypatch.setattr(Tensor, name, read)
    _, found, _ = judged(4)
    assert len(found) == 4
    # Lightning asks for the length of the data before anything is computed; after the first pass alone it is asked how
    # often each batch norm was called.
    assert [name for name in reads if name != "__bool__"] == ["tolist"] * 2
    assert reads[len(reads) // 2 - 1] == reads[-1] == "tolist"


TOTAL = torch.zeros(())


class Counts(Quiet):
    """Keeps what all candidates together have seen."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        TOTAL.add_(1)


class Remembers(Quiet):
    """Keeps something from candidate to candidate."""

    last = torch.zeros(())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        Remembers.last = Remembers.last * 0.5 + batch["y"].mean()


class TearsDown(Quiet):
    def teardown(self, stage: str) -> None:
        assert all(parameter.device.type == "cpu" for parameter in self.parameters())


class Told(Callback):
    """Is told of validations."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Could count them."""


@pytest.mark.parametrize(
    ("kind", "given"),
    [(Counts, {}), (Remembers, {}), (TearsDown, {}), (Quiet, {"callbacks": [Told()]}), (Quiet, {"length": 20})],
    ids=["writes elsewhere", "reads what it left", "is told of the end", "callbacks", "few batches"],
)
def test_what_could_disturb_others_is_judged_alone(
    kind: Any, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = Lanes(2, monkeypatch)
    _, found, _ = judged(5, kind=kind, **given)
    assert len(found) == 5
    assert lanes.events == []


def test_callbacks_that_are_told_of_training_alone_disturb_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stamps(Callback):
        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            raise AssertionError

    lanes = Lanes(2, monkeypatch)
    judged(3, callbacks=[Stamps()])
    assert "0 begins" in lanes.events


def test_where_memory_is_short_one_is_judged_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, number, made = Lanes(2, monkeypatch), iter(range(99)), iter(range(9))

    class Large(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            if next(number) == 2:  # in validation, before that is recorded
                raise torch.OutOfMemoryError("out of memory")
            out: Tensor = super().forward(input)
            return out

    _, expected, _ = judged(6)
    lanes.events.clear()
    judge, found, _ = judged(6, model=lambda: network() if next(made) != 3 else Large(*network()))
    assert found == expected
    assert judge.at_once == 1
    assert [event for event in lanes.events if "begins" in event] == ["0 begins", "1 begins"]


def test_models_that_are_not_recorded_are_judged_alone_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, made = Lanes(2, monkeypatch), iter(range(9))

    class Noisy(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            out: Tensor = super().forward(input)
            return out + torch.rand(())

    def model() -> nn.Module:
        return network() if next(made) < 3 else Noisy(*network())

    judge, found, _ = judged(6, model=model)
    assert len(found) == 6
    assert "random numbers" in str(judge.unrecorded)
    assert [event for event in lanes.events if "begins" in event] == ["0 begins", "1 begins"]


class Sometimes(nn.Module):
    """Leaves its batch norm out of small batches, if it is to."""

    def __init__(self, leaves: bool) -> None:
        super().__init__()
        self.inside, self.leaves = network(), leaves

    def forward(self, input: Tensor) -> Tensor:
        layers: Any = self.inside
        out: Tensor = layers[1](input) if self.leaves and len(input) < 4 else layers(input)
        return out


def test_batch_statistics_that_cannot_be_averaged_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch of 9 is smaller: its pass does not call the batch norm."""
    found = []
    for side_by_side in (False, True):
        made = iter(range(9))
        with monkeypatch.context() as patch:
            lanes = Lanes(2, patch)
            if not side_by_side:
                patch.setattr("nas.oneshot.training.judging.lanes_of", lambda device: [])
            found.append(judged(6, model=lambda made=made: Sometimes(next(made) == 3), length=34)[1])  # type: ignore[misc]
    assert [event for event in lanes.events if "begins" in event] == ["0 begins", "1 begins"] * 2
    assert [each["val_loss"] for each in found[1]] == pytest.approx([each["val_loss"] for each in found[0]], rel=1e-6)


def test_models_on_another_device_are_judged_side_by_side(
    other_device: OtherDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models stay there until their numbers are read; on a device that is one, nothing is taken for somebody else's."""
    lanes, found = Lanes(2, monkeypatch), []
    if other_device.device.type != "cuda":
        monkeypatch.setattr("nas.oneshot.training.judging.Aside", Unwatched)
    for number in (0, 2):
        lanes.lanes = [TapeLane(str(lane), lanes.events, Reruns()) for lane in range(number)]
        monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", lambda device: Reruns())
        judge, metrics, modules = judged(6, accelerator=other_device.accelerator)
        assert judge.at_once == max(number, 1)
        assert judge.unrecorded is None
        found.append(metrics)
    assert found[1] == found[0]
    assert [event for event in lanes.events if "begins" in event] == ["0 begins", "1 begins"] * 2
    assert {parameter.device.type for parameter in modules[-1].parameters()} == {other_device.device.type}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_device_judges_side_by_side_with_the_same_numbers(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide enough for kernels of several models to be at work at a time; more models than lanes."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        layers = [layer for _ in range(6) for layer in (nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU())]
        return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 512), *layers, nn.Linear(512, 1))

    found = []
    for side_by_side in (False, True):
        with monkeypatch.context() as patch:
            if not side_by_side:
                patch.setattr("nas.oneshot.training.judging.lanes_of", lambda device: [])
            judge, metrics, _ = judged(12, model=model, length=64, accelerator="gpu", precision=precision)
            assert (judge.at_once > 1) == side_by_side
            assert judge.unrecorded is None
            found.append(metrics)
    assert found[1] == found[0]
