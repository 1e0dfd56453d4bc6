"""The training of supernets: the user's own modules, schedulers, precision, clipping, and what is logged."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from nas import Experiment, LayerChoice, ModelSpace, NasValueError, ValueChoice
from nas.evaluators import Classification, LightningEvaluator
from nas.oneshot import DARTS, ENAS, CostPenalty, CurvatureStop, GumbelDARTS, RandomOneShot, RelaxedLearner
from nas.oneshot.training import Search
from nas.profile import profile
from nas.testing import differences

SHORT: Any = {"epochs": 2, "checkpoint_every": 3, "candidates": 2, "recalibration": 2}


def data() -> tuple[TensorDataset, TensorDataset]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=generator)
    labels = inputs[:, :3].argmax(1)
    return TensorDataset(inputs[:40], labels[:40]), TensorDataset(inputs[40:], labels[40:])


def network() -> nn.Module:
    width = ValueChoice([4, 8], label="width")
    kinds = {"linear": lambda: nn.Linear(8, 8, bias=False), "tanh": nn.Tanh, "skip": nn.Identity}
    return nn.Sequential(
        nn.Linear(6, width),
        nn.BatchNorm1d(width),
        nn.Linear(width, 8),
        LayerChoice(kinds, label="kind"),
        nn.Linear(8, 3),
    )


class Logging(LightningModule):
    """A module as people write them: it logs in all its steps, by all means."""

    def __init__(self, model: nn.Module, plan: str = "plain") -> None:
        super().__init__()
        self.model, self.plan = model, plan
        self.accuracy = MulticlassAccuracy(3)
        self.train_batches: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        scores = self.model(inputs)
        loss = cross_entropy(scores, labels)
        self.train_batches.append(inputs)
        self.log("train_loss", loss, prog_bar=True)
        self.log_dict({"train_accuracy": (scores.argmax(1) == labels).float().mean()}, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        inputs, labels = batch
        scores = self.model(inputs)
        self.accuracy(scores, labels)
        self.log("val_loss", cross_entropy(scores, labels), on_epoch=True, batch_size=len(labels))
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        if self.plan == "steps":
            return [optimizer], [{"scheduler": StepLR(optimizer, 2, 0.5), "interval": "step"}]
        if self.plan == "plateaus of steps":
            scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=0.9, mode="max")
            plan = {"scheduler": scheduler, "monitor": "train_loss", "interval": "step", "strict": False}
            return {"optimizer": optimizer, "lr_scheduler": plan}
        if self.plan == "epochs":
            return {"optimizer": optimizer, "lr_scheduler": CosineAnnealingLR(optimizer, 2)}
        if self.plan in ("val_loss", "train_accuracy_epoch"):
            # Nothing is ever good enough, so that each epoch is a plateau.
            scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.1, threshold=0.9, mode="max")
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.plan}}
        return optimizer


def experiment(folder: Path, strategy: Any, evaluator: Any = None, *, space: Any = network, **given: Any) -> Experiment:
    if evaluator is None:
        arguments = {"batch_size": 8, "optimizer": "SGD", "learning_rate": 0.1, "accelerator": "cpu", "logger": False}
        evaluator = Classification(*data(), **(arguments | given))
    return Experiment(space, evaluator, strategy, name="search", directory=folder, seed=3, resume=True)


def checkpoint(searched: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(searched.path / "supernet" / "last.ckpt", weights_only=True)
    return found


class Curves(Callback):
    """Keeps what was logged at the end of each epoch."""

    seen: list[dict[str, float]] = []  # noqa: RUF012 - Lightning copies callbacks

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def lightning(plan: str = "plain", factory: Any = Logging, **given: Any) -> LightningEvaluator:
    arguments: dict[str, Any] = {"accelerator": "cpu", "logger": False, "batch_size": 8, "metric": "val_acc"}
    return LightningEvaluator(factory, *data(), plan=plan, **(arguments | given))


@pytest.mark.parametrize("make", [DARTS, RandomOneShot, ENAS], ids=lambda make: make.__name__)
def test_modules_may_log_what_they_like(make: Any, tmp_path: Path) -> None:
    Curves.seen.clear()
    searched = experiment(tmp_path, make(**SHORT), lightning(callbacks=[Curves()]))
    searched.run(progress="silent")
    assert searched.best_trial.metrics.keys() == {"val_acc", "val_loss"}
    assert all({"train_loss", "train_accuracy", "val_acc", "val_loss"} <= seen.keys() for seen in Curves.seen)
    assert len(Curves.seen) == 2


RATES = {
    "plateaus of steps": [0.1 * 0.5**9],
    "steps": [0.1 * 0.5 ** (10 // 2)],
    "epochs": [0.0],
    "val_loss": [0.01],
    "train_accuracy_epoch": [0.01],
    "plain": [0.1],
}


@pytest.mark.parametrize("plan", RATES)
def test_schedulers_are_stepped_as_they_ask(plan: str, tmp_path: Path) -> None:
    searched = experiment(tmp_path / "whole", DARTS(**SHORT), lightning(plan))
    searched.run(progress="silent")
    rates = [group["lr"] for group in checkpoint(searched)["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx(RATES[plan])
    broken = experiment(tmp_path / "broken", DARTS(**SHORT), lightning(plan))
    for _ in range(2):
        broken.run(timeout=1e-3, progress="silent")
    broken.run(progress="silent")
    assert differences(checkpoint(broken), checkpoint(searched)) == []


@pytest.mark.parametrize("make", [DARTS, lambda **s: DARTS(unrolled=True, **s), RandomOneShot], ids=["1", "2", "paths"])
def test_mixed_precision(make: Any, tmp_path: Path) -> None:
    plain = experiment(tmp_path / "plain", make(**SHORT))
    mixed = experiment(tmp_path / "mixed", make(**SHORT), precision="bf16-mixed")
    for searched in (plain, mixed):
        searched.run(progress="silent")
    one, other = (
        {n: t for n, t in checkpoint(s)["state_dict"].items() if n.endswith("weight")} for s in (plain, mixed)
    )
    assert one.keys() == other.keys()
    assert all(t.dtype == torch.float32 for t in other.values())
    assert differences(one, other) != []
    assert all(torch.allclose(one[name], other[name], atol=0.1) for name in one)


@pytest.mark.parametrize("make", [DARTS, lambda **s: DARTS(unrolled=True, **s), RandomOneShot], ids=["1", "2", "paths"])
def test_losses_may_be_scaled(make: Any, tmp_path: Path) -> None:
    """As 16-mixed does on a GPU; here with a type that needs no scale, so that the result must be the same."""
    states = []
    for name, scaler in (("plain", None), ("scaled", torch.amp.GradScaler("cpu", init_scale=1024.0))):
        plugin = MixedPrecision("bf16-mixed", "cpu")
        plugin.scaler = scaler
        searched = experiment(tmp_path / name, make(**SHORT), plugins=[plugin], gradient_clip_val=0.05)
        searched.run(progress="silent")
        states.append({n: t for n, t in checkpoint(searched)["state_dict"].items() if isinstance(t, Tensor)})
    for name, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][name], rtol=1e-2, atol=1e-4), name


class Clipped(Logging):
    """Keeps what it is told between the gradients of a step and its end."""

    steps: list[tuple[list[Tensor], list[Tensor]]] = []  # noqa: RUF012 - of all objects

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.parameters_before = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        expected = copy.deepcopy(self.parameters_before)
        for copied, parameter in zip(expected, self.parameters_before, strict=True):
            assert parameter.grad is not None
            copied.grad = parameter.grad.clone()
        if self.trainer.gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(expected, 0.05)
        else:
            torch.nn.utils.clip_grad_norm_(expected, 0.05)
        torch.optim.SGD(expected, lr=0.1).step()
        self.expected = expected

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps.append(([p.detach().clone() for p in self.parameters_before], self.expected))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_as_by_hand(algorithm: str, tmp_path: Path) -> None:
    Clipped.steps.clear()
    evaluator = lightning(factory=Clipped, gradient_clip_val=0.05, gradient_clip_algorithm=algorithm)
    experiment(tmp_path, RandomOneShot(**SHORT), evaluator).run(progress="silent")
    assert len(Clipped.steps) == 10
    for found, expected in Clipped.steps:
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_limits_of_an_epoch(tmp_path: Path) -> None:
    for limit, steps in ((2, 4), (0.5, 4), (1.0, 10)):
        searched = experiment(tmp_path / str(limit), DARTS(**SHORT), limit_train_batches=limit)
        searched.run(progress="silent")
        assert checkpoint(searched)["nas"]["done"] == steps, limit


def test_curves_are_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    searched = experiment(tmp_path, DARTS(**SHORT), logger=True)
    searched.run(progress="silent")
    curves = EventAccumulator(str(searched.path / "supernet")).Reload()
    names = set(curves.Tags()["scalars"])
    assert {"train_loss", "architecture_loss", "loss", "accuracy", "entropy/kind", "entropy/width"} <= names
    assert {f"architecture/kind/{answer}" for answer in ("linear", "tanh", "skip")} <= names
    assert {"architecture/width/4", "architecture/width/8"} <= names
    assert len(curves.Scalars("train_loss")) == 2
    shares = [curves.Scalars(f"architecture/kind/{answer}")[-1].value for answer in ("linear", "tanh", "skip")]
    assert sum(shares) == pytest.approx(1)
    assert curves.Scalars("entropy/kind")[-1].value == pytest.approx(-sum(p * torch.tensor(p).log() for p in shares))


def test_a_strong_penalty_leads_to_the_cheap_candidate(tmp_path: Path) -> None:
    def space() -> nn.Module:
        narrow = lambda: nn.Sequential(nn.Linear(6, 1), nn.Linear(1, 3))  # noqa: E731
        return LayerChoice({"wide": lambda: nn.Linear(6, 3), "narrow": narrow}, label="kind")

    found = []
    for weight in (1e-6, 10.0):
        cost = profile(ModelSpace(space), (1, 6)).parameters
        penalty = CostPenalty(cost=cost, weight=weight, target=10)
        strategy = DARTS(learning_rate=0.1, penalty=penalty, **(SHORT | {"epochs": 4}))
        searched = experiment(tmp_path / str(weight), strategy, space=space)
        searched.run(progress="silent")
        found.append(searched.trials[0].sample)
    assert found == [{"kind": "wide"}, {"kind": "narrow"}]


def test_growing_curvature_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curvatures = iter([1.0, 1.0, 5.0])
    kept: list[dict[str, Tensor]] = []

    def curvature(self: RelaxedLearner, search: Search, batch: Any) -> float:
        kept.append(copy.deepcopy(self.architecture.state_dict()))
        return next(curvatures)

    monkeypatch.setattr(RelaxedLearner, "curvature", curvature)
    stop = CurvatureStop(patience=1, window=1)
    searched = experiment(tmp_path, DARTS(stop=stop, **(SHORT | {"epochs": 9})))
    searched.run(progress="silent")
    state = checkpoint(searched)
    assert state["epoch"] == 3
    learned = state["nas"]["learner"]
    architecture = {n.removeprefix("architecture."): t for n, t in learned.items() if "logits" in n}
    assert differences(architecture, dict(kept[1])) == []
    assert len(searched.trials) == 2
    searched.run(progress="silent")
    assert checkpoint(searched)["epoch"] == 3


def test_the_curvature_is_measured_and_shown(tmp_path: Path) -> None:
    Curves.seen.clear()
    stop = CurvatureStop(patience=1, window=1, ratio=1e-9)
    for make in (DARTS, GumbelDARTS):
        experiment(tmp_path / make.__name__, make(stop=stop, **SHORT), callbacks=[Curves()]).run(progress="silent")
    assert all("curvature" in seen for seen in Curves.seen[1:2])


@pytest.mark.parametrize("scaled", [False, True])
def test_paths_without_weights_are_trained_too(scaled: bool, tmp_path: Path) -> None:
    """Nothing has a gradient in a step of such a path, which a scaler of losses must bear."""

    def space() -> nn.Module:
        return LayerChoice({"none": nn.Identity, "linear": lambda: nn.Linear(3, 3)}, label="kind")

    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    pairs = TensorDataset(inputs, inputs.argmax(1))
    plugin = MixedPrecision("bf16-mixed", "cpu")
    plugin.scaler = torch.amp.GradScaler("cpu")
    for make in (RandomOneShot, lambda **s: GumbelDARTS(hard=True, **s), ENAS):
        given = {"plugins": [plugin]} if scaled else {}
        evaluator = Classification(pairs, pairs, batch_size=8, accelerator="cpu", logger=False, **given)
        searched = experiment(tmp_path / str(make), make(**SHORT), evaluator, space=space)
        searched.run(progress="silent")
        assert searched.best_trial.sample == {"kind": "none"}


@pytest.mark.parametrize(
    "given", [{"overfit_batches": 2}, {"barebones": True}, {"sync_batchnorm": True}, {"limit_val_batches": 0}]
)
def test_arguments_that_make_no_sense_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match=next(iter(given))):
        experiment(tmp_path, DARTS(**SHORT), **given).run(progress="silent")


def test_a_metric_that_is_not_logged_is_refused_before_training(tmp_path: Path) -> None:
    train, validation = data()
    for strategy in (DARTS(**SHORT), RandomOneShot(**SHORT)):
        evaluator = Classification(train, validation, max_epochs=1, logger=False)
        name = type(strategy).__name__
        experiment = Experiment(
            network, evaluator, strategy, name=name, directory=tmp_path, objective={"f1": "maximize"}
        )
        with pytest.raises(
            NasValueError, match="metric that validation logs; received 'f1'.*one of 'accuracy', 'loss'"
        ):
            experiment.run(progress="silent")
        assert not (experiment.path / "supernet" / "last.ckpt").exists()


def test_a_supernet_trained_whole_is_judged_with_candidates_switched_off(tmp_path: Path) -> None:
    """The weights are those of the plain sum, trained by hand; and each subnet is judged by its own part of them."""

    def space() -> nn.Module:
        kinds = {"useful": lambda: nn.Linear(6, 3), "blind": Blind, "wild": lambda: nn.Linear(6, 3, bias=False)}
        return LayerChoice(kinds, label="kind")

    strategy = RandomOneShot(sampling="sum", evaluations=3, **SHORT)
    searched = experiment(tmp_path, strategy, space=space)
    searched.run(progress="silent")
    assert searched.best_trial.sample["kind"] != "blind"
    (model,) = searched.export_top_models(1, "model", inherit_weights=True)
    state = checkpoint(searched)["state_dict"]
    assert any(torch.equal(tensor, model.weight) for tensor in state.values())
    again = experiment(tmp_path / "again", RandomOneShot(sampling="sum", evaluations=3, **SHORT), space=space)
    for _ in range(3):
        again.run(timeout=1e-3, progress="silent")
    again.run(progress="silent")
    assert differences(checkpoint(again)["state_dict"], state) == []
    assert searched.one_shot_report(k=2).curvature is None


class Blind(nn.Module):
    """Says the same, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores.expand(len(inputs), 3)


def test_a_short_training_says_one_line_of_its_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, validation = data()
    evaluator = Classification(train, validation, batch_size=20, accelerator="cpu")
    strategy = DARTS(**{**SHORT, "epochs": 4})
    Experiment(network, evaluator, strategy, name="search", directory=tmp_path).run(progress="plain")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("supernet, epoch")]
    assert line.startswith("supernet, epoch 4 of 4: ")
