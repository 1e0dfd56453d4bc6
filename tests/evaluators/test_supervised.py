"""Classification and regression: what they measure, what they search, and what they refuse."""

import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from sklearn.datasets import load_diabetes, load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, RandomSampler, Subset, TensorDataset, random_split
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import MulticlassAccuracy

from nas import Categorical, Experiment, Integer, Job, NasError, Real, TrialState, ValueChoice
from nas.evaluators import Classification, Regression, SupervisedModule
from nas.strategies import GridSearch, Random

IMAGES, LABELS = load_digits(return_X_y=True)
X, Y = torch.tensor(IMAGES, dtype=torch.float32) / 16, torch.tensor(LABELS)
TRAIN, VALIDATION = TensorDataset(X[:600], Y[:600]), TensorDataset(X[600:901], Y[600:901])


def network() -> nn.Module:
    width = ValueChoice([16, 32, 64], label="width")
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def job(model: Callable[[], nn.Module] = plain, seed: int = 0, **hyperparameters: Any) -> Job:
    return Job(
        number=0,
        sample=dict(hyperparameters),
        seed=seed,
        build=lambda sample, seed: (model(), sample),
        hyperparameters=frozenset(hyperparameters),
    )


@pytest.fixture
def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(64, 10)


def test_metrics_are_means_over_samples_not_over_batches(linear: nn.Module) -> None:
    """301 samples in batches of 100: the last sample weighs as much as any other."""
    still = Classification(TRAIN, VALIDATION, batch_size=100, learning_rate=0.0, weight_decay=0.0, max_epochs=1)
    found = still.evaluate(job(lambda: linear))
    with torch.no_grad():
        scores = linear(X[600:901])
    assert found["accuracy"] == pytest.approx(float((scores.argmax(1) == Y[600:901]).float().mean()), abs=1e-6)
    assert found["loss"] == pytest.approx(float(nn.functional.cross_entropy(scores, Y[600:901])), abs=1e-5)
    assert list(found) == ["accuracy", "loss", "train_loss"]


def test_it_learns_digits_and_searches_its_arguments(tmp_path: Path) -> None:
    evaluator = Classification(
        TRAIN,
        VALIDATION,
        batch_size=Categorical([32, 64]),
        optimizer=Categorical(["Adam", "AdamW"]),
        criterion={"plain": nn.CrossEntropyLoss, "smooth": nn.CrossEntropyLoss(label_smoothing=0.1)},
        learning_rate=Real(3e-3, 1e-2, log=True),
        max_epochs=Integer(3, 5),
    )
    experiment = Experiment(lambda: network(), evaluator, Random(), name="digits", directory=tmp_path)
    experiment.run(3, progress="silent")
    assert [trial.state for trial in experiment.trials] == [TrialState.COMPLETE] * 3
    assert experiment.objectives.directions == ("maximize",)
    best = experiment.best_trial
    assert best.value == best.metrics["accuracy"] > 0.8
    assert set(best.sample) == {"width", "batch_size", "optimizer", "criterion", "learning_rate", "max_epochs"}
    assert len(best.intermediate) == best.sample["max_epochs"]
    assert best.intermediate[best.sample["max_epochs"] - 1] == best.value


def test_the_trials_folder_holds_logs_checkpoints_and_the_hparams_record(tmp_path: Path) -> None:
    evaluator = Classification(TRAIN, VALIDATION, learning_rate=Real(1e-3, 1e-2), max_epochs=1)
    experiment = Experiment(lambda: network(), evaluator, Random(), name="logs", directory=tmp_path)
    experiment.run(2, progress="silent")
    for trial in experiment.trials:
        folder = tmp_path / "logs" / "trials" / str(trial.number)
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1
        assert f"learning_rate: {trial.sample['learning_rate']}" in (folder / "hparams.yaml").read_text()
        (checkpoint,) = (folder / "checkpoints").glob("*.ckpt")
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert state["model.0.weight"].shape == (trial.sample["width"], 64)
    quiet = Experiment(
        lambda: network(),
        Classification(TRAIN, VALIDATION, max_epochs=1, logger=False, enable_checkpointing=False),
        Random(),
        name="none",
        directory=tmp_path,
    )
    quiet.run(1, progress="silent")
    assert list((tmp_path / "none").rglob("*.ckpt")) + list((tmp_path / "none").rglob("events*")) == []


def test_executions_differ_and_are_averaged() -> None:
    options: dict[str, Any] = {"max_epochs": 1, "learning_rate": 0.01}
    one = Classification(TRAIN, VALIDATION, **options).evaluate(job())
    three = Classification(TRAIN, VALIDATION, executions=3, **options).evaluate(job())
    assert three["accuracy"] != one["accuracy"]
    assert three["accuracy_std"] > 0


def test_folds_are_disjoint_cover_everything_and_give_mean_and_deviation() -> None:
    evaluator = Classification(TRAIN, folds=5, max_epochs=1, batch_size=32)
    seen: list[list[int]] = []
    for fold in range(5):
        data = evaluator.data(fold=fold)
        rows = [row for batch in data.val_dataloader() for row in batch[0]]
        train = [row for batch in data.train_dataloader() for row in batch[0]]
        assert (len(rows), len(train)) == (120, 480)
        seen += [[hash(row.numpy().tobytes())] for row in rows]
    assert sorted(h for (h,) in seen) == sorted(hash(row.numpy().tobytes()) for row in X[:600])
    found = evaluator.evaluate(job())
    assert 0 < found["accuracy_std"] < found["accuracy"] < 1
    assert set(found) == {f"{name}{end}" for name in ("accuracy", "loss", "train_loss") for end in ("", "_std")}


def test_the_deviation_is_that_of_the_folds() -> None:
    """Models that learn nothing and know the share of ones: the accuracy of a fold is its share of ones."""
    targets = (torch.arange(10) < 7).long()
    data = TensorDataset(torch.zeros(10, 1), targets)
    evaluator = Classification(data, folds=2, max_epochs=1, learning_rate=0.0, weight_decay=0.0)

    def always_one() -> nn.Module:
        model = nn.Linear(1, 2)
        with torch.no_grad():
            model.bias.copy_(torch.tensor([0.0, 1.0]))
        return model

    shares = [
        statistics.fmean(int(y) for _, ys in evaluator.data(fold=fold).val_dataloader() for y in ys) for fold in (0, 1)
    ]
    found = evaluator.evaluate(job(always_one))
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["accuracy_std"] == pytest.approx(statistics.stdev(shares))


def test_regression_minimises_and_matches_shapes(tmp_path: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    data = TensorDataset(torch.tensor(x, dtype=torch.float32) * 20, torch.tensor(y, dtype=torch.float32) / 100)
    evaluator = Regression(data, data, max_epochs=4, learning_rate=0.02, metrics=None)
    space = lambda: nn.Sequential(nn.Linear(10, ValueChoice([4, 8], label="width")), nn.LazyLinear(1))  # noqa: E731
    experiment = Experiment(space, evaluator, Random(), name="diabetes", directory=tmp_path)
    experiment.run(2, progress="silent")
    assert experiment.objectives.directions == ("minimize",)
    assert all(trial.state is TrialState.COMPLETE for trial in experiment.trials)
    assert experiment.best_trial.value == min(trial.value for trial in experiment.trials if trial.value is not None)
    assert experiment.best_trial.value < float(data.tensors[1].var())
    assert experiment.best_trial.metrics["mse"] == pytest.approx(experiment.best_trial.metrics["loss"])


def test_an_error_is_maximised_only_on_demand_and_with_a_warning(tmp_path: Path) -> None:
    def make(name: str, objective: Any) -> Experiment:
        evaluator = Regression(TensorDataset(X, X[:, :10]), TensorDataset(X, X[:, :10]))
        return Experiment(lambda: network(), evaluator, Random(), name=name, directory=tmp_path, objective=objective)

    assert make("none", None).objectives.directions == ("minimize",)
    with pytest.warns(UserWarning, match="maximize the evaluator's metric, which is better the other way"):
        assert make("all", "maximize").objectives.directions == ("maximize",)
    with pytest.warns(UserWarning, match="the metric 'loss'.*write objective={'loss': 'minimize'}"):
        make("named", {"loss": "maximize"})
    assert Classification(TRAIN, VALIDATION, metrics={"error": MeanAbsoluteError()}).direction == "minimize"
    assert Classification(TRAIN, VALIDATION, metrics={"kappa": lambda p, t: p.mean()}).direction is None


def test_reports_are_of_the_metric_that_the_experiment_names(tmp_path: Path) -> None:
    experiment = Experiment(
        lambda: network(),
        Classification(TRAIN, VALIDATION, max_epochs=1),
        Random(),
        name="loss",
        directory=tmp_path,
        objective={"loss": "minimize"},
    )
    experiment.run(1, progress="silent")
    trial = experiment.trials[0]
    assert trial.intermediate == {0: trial.metrics["loss"]}
    wrong = Experiment(
        lambda: network(),
        Classification(TRAIN, VALIDATION, max_epochs=1),
        Random(),
        name="typo",
        directory=tmp_path,
        objective={"acuracy": "maximize"},
    )
    wrong.run(1, progress="silent")
    assert "'acuracy' was not logged in validation; did you mean 'accuracy'?" in wrong.trials[0].error_line
    assert wrong.trials[0].intermediate == {}


def test_metrics_of_torchmetrics_and_functions() -> None:
    def top2(scores: Tensor, target: Tensor) -> Tensor:
        return (scores.topk(2).indices == target[:, None]).any(1).float()  # one number for each sample

    def macro_error(scores: Tensor, target: Tensor) -> Tensor:
        return (scores.argmax(1) != target).float().mean()

    official = MulticlassAccuracy(10, average="micro")
    metrics = {"top2": top2, "macro_error": macro_error, "official": official}
    found = Classification(TRAIN, VALIDATION, batch_size=100, max_epochs=1, metrics=metrics).evaluate(job())
    assert next(iter(found)) == "top2"
    assert found["top2"] > 1 - found["macro_error"]
    assert found["official"] == pytest.approx(1 - found["macro_error"])
    assert official.update_count == 0  # a copy was used


def test_the_order_of_the_data_comes_from_the_seed() -> None:
    loader = DataLoader(TRAIN, 50, shuffle=True, generator=torch.Generator().manual_seed(3))
    for evaluator in (Classification(TRAIN, VALIDATION), Classification(loader, VALIDATION)):

        def order(seed: int, evaluator: Classification = evaluator) -> list[int]:
            return [int(y) for _, ys in evaluator.data(seed=seed).train_dataloader() for y in ys]

        assert order(1) == order(1)
        assert order(1) != order(2)
        data = evaluator.data(seed=1)
        first, second = ([int(y) for _, ys in data.train_dataloader() for y in ys] for _ in range(2))
        assert first != second
    assert loader.generator is not None
    assert loader.generator.initial_seed() == 3


def test_persistent_workers_do_not_carry_anything_over() -> None:
    loader = DataLoader(
        TRAIN, 300, shuffle=True, num_workers=1, persistent_workers=True, multiprocessing_context="fork"
    )
    evaluator = Classification(loader, VALIDATION, max_epochs=2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = evaluator.evaluate(job(lambda: nn.Linear(64, 10)))
        torch.manual_seed(1)
        assert evaluator.evaluate(job(lambda: nn.Linear(64, 10))) == first


def test_schedulers_are_stepped_each_epoch_or_each_batch() -> None:
    rates: list[float] = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

        def __deepcopy__(self, memo: object) -> "Rates":
            return self

    options: dict[str, Any] = {"batch_size": 300, "max_epochs": 2, "learning_rate": 1.0, "callbacks": Rates()}
    each_epoch = functools.partial(StepLR, step_size=1, gamma=0.5)
    Classification(TRAIN, VALIDATION, scheduler=each_epoch, optimizer="SGD", **options).evaluate(job())
    assert rates == [1.0, 1.0, 0.5, 0.5]
    rates.clear()
    each_batch = functools.partial(OneCycleLR, max_lr=1.0)
    Classification(TRAIN, VALIDATION, scheduler=each_batch, optimizer="SGD", **options).evaluate(job())
    assert len(set(rates)) == 4
    Classification(TRAIN, VALIDATION, scheduler=ReduceLROnPlateau, max_epochs=1).evaluate(job())


def test_the_module_serves_a_loop_of_ones_own() -> None:
    """One-shot search calls the same steps, without a Trainer."""
    evaluator = Classification(TRAIN, VALIDATION, learning_rate=Real(0.01, 0.1), batch_size=100)
    model = nn.Linear(64, 10)
    module = evaluator.module(model, learning_rate=0.05)
    assert isinstance(module, SupervisedModule)
    assert module.model is model
    optimizer = module.configure_optimizers()
    assert optimizer.param_groups[0]["lr"] == 0.05
    data = evaluator.data(seed=1)
    losses = []
    for _ in range(3):
        for batch in data.train_dataloader():
            loss = module.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    for batch in data.val_dataloader():
        module.validation_step(batch)
    assert 0.3 < float(module.scores()["accuracy"]) <= 1
    with pytest.raises(NasError, match="did you mean 'learning_rate'"):
        evaluator.module(model, learning_rat=0.1)


def test_accuracy_of_two_classes_with_one_score_and_of_soft_targets() -> None:
    binary = TensorDataset(X[:40], (Y[:40] % 2).float())
    evaluator = Classification(
        binary,
        binary,
        max_epochs=30,
        learning_rate=0.05,
        criterion=lambda p, t: nn.functional.binary_cross_entropy_with_logits(p[:, 0], t),
    )
    assert evaluator.evaluate(job(lambda: nn.Linear(64, 1)))["accuracy"] > 0.9
    soft = TensorDataset(X[:40], nn.functional.one_hot(Y[:40], 10).float())
    assert Classification(soft, soft, max_epochs=20, learning_rate=0.05).evaluate(job())["accuracy"] > 0.9


def test_mixed_precision_and_gradient_clipping() -> None:
    norms: list[float] = []

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
            norms.append(float(nn.utils.get_total_norm([p.grad for p in pl_module.parameters() if p.grad is not None])))

        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            assert trainer.precision == "bf16-mixed"

        def __deepcopy__(self, memo: object) -> "Watch":
            return self

    seen: list[torch.dtype] = []

    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    found = Classification(
        TRAIN,
        VALIDATION,
        max_epochs=1,
        precision="bf16-mixed",
        gradient_clip_val=0.01,
        learning_rate=0.01,
        callbacks=[Watch()],
    ).evaluate(job(lambda: Spy(64, 10)))
    assert set(seen) == {torch.bfloat16}
    assert norms
    assert max(norms) > 0.01  # before clipping
    assert found["accuracy"] > 0.2


def lost(scores: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores, target) + (scores - scores.detach() - 1).sum().log()


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: Classification(TRAIN), "there must be validation data"),
    (lambda: Classification(TRAIN, TensorDataset(X[:0], Y[:0])), "validation data must not be empty"),
    (lambda: Classification(3, VALIDATION), "train must be a Dataset, a DataLoader"),  # type: ignore[arg-type]
    (lambda: Classification(X, Y), "train must be a Dataset.*Tensor of shape.*TensorDataset"),  # type: ignore[arg-type]
    (lambda: Classification(TRAIN, VALIDATION, max_epoch=3), "'max_epoch' is no argument.*'max_epochs'"),
    (lambda: Classification(TRAIN, VALIDATION, learning_rat=3), "did you mean 'learning_rate'"),
    (lambda: Classification(TRAIN, VALIDATION, batch_size=0), "batch_size must be an int from 1 on, or a domain"),
    (lambda: Classification(TRAIN, VALIDATION, batch_size=Categorical([8, "x"])), "batch_size must be.*or a domain"),
    (lambda: Classification(DataLoader(TRAIN), DataLoader(VALIDATION), batch_size=8), "its own batch size"),
    (lambda: Classification(DataLoader(TRAIN), folds=3), "its own folds"),
    (lambda: Classification(TRAIN, VALIDATION, folds=3), "takes its validation data from train"),
    (lambda: Classification(TRAIN, folds=1), "folds must be an int from 2 on"),
    (lambda: Classification(TRAIN, folds=601), "601 folds need a dataset of at least that length"),
    (lambda: Classification(TRAIN, VALIDATION, executions=0), "executions must be an int from 1 on"),
    (lambda: Classification(TRAIN, VALIDATION, optimizer="Adm"), "no such optimizer; did you mean 'Adam'"),
    (lambda: Classification(TRAIN, VALIDATION, optimizer=Categorical(["Adam", "Adm"])), "no such optimizer"),
    (lambda: Classification(TRAIN, VALIDATION, optimizer=nn.ReLU), "the optimizer refuses its arguments"),
    (lambda: Classification(TRAIN, VALIDATION, optimizer="Rprop", weight_decay=0.1), "refuses its.*weight_decay"),
    (lambda: Classification(TRAIN, VALIDATION, learning_rate="fast"), "learning_rate must be a number"),  # type: ignore[arg-type]
    (lambda: Classification(TRAIN, VALIDATION, scheduler=StepLR), "the scheduler refuses.*functools.partial"),
    (lambda: Classification(TRAIN, VALIDATION, criterion="nll"), "criterion must be a loss module"),  # type: ignore[arg-type]
    (lambda: Classification(TRAIN, VALIDATION, metrics={}), "metrics must be a dict"),
    (lambda: Classification(TRAIN, VALIDATION, metrics={"loss": abs}), "other than loss"),  # type: ignore[dict-item]
    (lambda: Classification(TRAIN, VALIDATION, metrics={"mae": MeanAbsoluteError}), "an instance, not the class"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_arguments_are_answered_before_anything_runs(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        make()
    assert isinstance(caught.value, NasError)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (
            Classification(TRAIN, VALIDATION, criterion=lost),
            "training loss must be finite.*lower the",
        ),
        (Classification(TRAIN, VALIDATION, precision="half-baked"), "Trainer refuses its arguments"),
        (Classification(TRAIN, VALIDATION, limit_val_batches=0), "was not logged in validation"),
        (Classification(lambda: (TRAIN, VALIDATION, 3)), "train must be a Dataset"),
        (Classification(lambda: TRAIN), "there must be validation data"),
        (
            Classification(TRAIN, VALIDATION, metrics={"m": lambda p, t: p.mean()}, devices=2, accelerator="cpu"),
            "must be picklable.*ddp_fork",
        ),
        (
            Classification(TRAIN, VALIDATION, strategy=DDPStrategy(), devices=2, accelerator="cpu"),
            "starts the script anew for each device",
        ),
        (Regression(TRAIN, VALIDATION), "one prediction for each target; received 'predictions .32, 10. for"),
    ],
    ids=["loss", "precision", "no validation", "triple", "half", "pickle", "script", "shape"],
)
def test_what_goes_wrong_later_is_explained_too(evaluator: Classification, message: str) -> None:
    with pytest.raises(NasError, match=message):
        evaluator.evaluate(job(lambda: nn.Linear(64, 10)))


def test_samples_are_json_even_where_objects_are_searched() -> None:
    evaluator = Classification(
        TRAIN,
        VALIDATION,
        optimizer={"plain": torch.optim.SGD, "own": lambda p, lr: torch.optim.Adam(p, lr=lr)},
        scheduler={"none": None, "steps": functools.partial(StepLR, step_size=1)},
    )
    sample = {name: domain.first for name, domain in evaluator.hyperparameters.items()}
    assert json.loads(json.dumps(sample)) == {"optimizer": "plain", "scheduler": "none"}
    module = evaluator.module(nn.Linear(2, 2), optimizer="own", scheduler="steps")
    assert isinstance(module.configure_optimizers()["optimizer"], torch.optim.Adam)


def test_the_training_loss_is_that_of_a_batch_however_gradients_are_gathered() -> None:
    options: dict[str, Any] = {"learning_rate": 0.0, "weight_decay": 0.0, "max_epochs": 1, "batch_size": 100}
    model = plain()
    for gathered in (1, 3):
        evaluator = Classification(TRAIN, TRAIN, accumulate_grad_batches=gathered, **options)
        found = evaluator.evaluate(job(lambda: model))
        assert found["train_loss"] == pytest.approx(found["loss"], abs=1e-4)


def test_a_copy_of_a_loader_shares_the_data() -> None:
    inner = Subset(TRAIN, range(100))
    loader = DataLoader(inner, 10, sampler=RandomSampler(TRAIN, num_samples=100, replacement=True))
    copied = Classification(loader, VALIDATION).data().train_dataloader()
    assert copied is not loader
    assert copied.dataset is inner
    assert copied.sampler.data_source is TRAIN


def test_without_tensorboard_the_log_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.evaluators.training.find_spec", lambda name: None)
    evaluator = Classification(TRAIN, VALIDATION, max_epochs=1)
    experiment = Experiment(lambda: network(), evaluator, Random(), name="table", directory=tmp_path)
    experiment.run(1, progress="silent")
    folder = tmp_path / "table" / "trials" / "0"
    assert "accuracy" in (folder / "metrics.csv").read_text()
    assert f"width: {experiment.trials[0].sample['width']}" in (folder / "hparams.yaml").read_text()


def test_several_objectives(tmp_path: Path) -> None:
    experiment = Experiment(
        lambda: network(),
        Classification(TRAIN, VALIDATION, max_epochs=1, enable_checkpointing=False, logger=False),
        Random(),
        name="two",
        directory=tmp_path,
        objective={"train_loss": "minimize", "accuracy": "maximize"},
    )
    experiment.run(2, progress="silent")
    assert experiment.pareto_front[0].values is not None
    assert experiment.trials[0].values == tuple(experiment.trials[0].metrics[n] for n in ("train_loss", "accuracy"))


def test_runs_of_one_trial_have_folders_of_their_own(tmp_path: Path) -> None:
    evaluator = Classification(TRAIN, executions=2, folds=2, max_epochs=1)
    experiment = Experiment(lambda: network(), evaluator, Random(), name="runs", directory=tmp_path, repeats=2)
    experiment.run(1, progress="silent")
    assert experiment.trials[0].state is TrialState.COMPLETE, experiment.trials[0].error
    folder = tmp_path / "runs" / "trials" / "0"
    assert len(list(folder.glob("repeat-[01]/run-[0123]/checkpoints/*.ckpt"))) == 8
    first, second = experiment.trials[0].repeats
    assert first["accuracy"] != second["accuracy"]


def test_checkpoints_as_the_user_wants_them(tmp_path: Path) -> None:
    best = ModelCheckpoint(filename="best", monitor="accuracy", mode="max")
    evaluator = Classification(TRAIN, VALIDATION, max_epochs=3, learning_rate=0.01, callbacks=best)
    experiment = Experiment(lambda: network(), evaluator, GridSearch(), name="best", directory=tmp_path)
    experiment.run(2, progress="silent")
    for trial in experiment.trials:
        (checkpoint,) = (tmp_path / "best" / "trials" / str(trial.number) / "checkpoints").iterdir()
        assert checkpoint.name == "best.ckpt"
        state = torch.load(checkpoint, weights_only=True)
        assert float(state["callbacks"][best.state_key]["best_model_score"]) == max(trial.intermediate.values())


def test_the_hparams_record_holds_what_was_reached(tmp_path: Path) -> None:
    experiment = Experiment(
        lambda: network(), Classification(TRAIN, VALIDATION, max_epochs=2), Random(), name="hparams", directory=tmp_path
    )
    experiment.run(1, progress="silent")
    events = EventAccumulator(str(tmp_path / "hparams" / "trials" / "0")).Reload()
    reached = experiment.trials[0].metrics["accuracy"]
    assert [event.value for event in events.Scalars("accuracy")][-1] == pytest.approx(reached)
    assert [event.value for event in events.Scalars("hp/accuracy")] == [pytest.approx(reached)]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_what_is_random_in_the_data_does_not_depend_on_the_trial_that_loads() -> None:
    def load() -> tuple[Subset[Any], Subset[Any]]:
        train, validation = random_split(TRAIN, [500, 100])
        return train, validation

    def splits(seed: int) -> tuple[list[int], float]:
        torch.manual_seed(seed)
        data = Classification(load).data()
        return [int(y) for _, ys in data.val_dataloader() for y in ys], float(torch.rand(()))

    with torch.random.fork_rng():
        first, drawn = splits(1)
        second, other = splits(2)
        assert first == second
        torch.manual_seed(1)
        assert float(torch.rand(())) == drawn != other


class TwoHeads(nn.Module):
    """Returns a tuple in training, as published cell networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.auxiliary = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Any:
        return (self.head(x), self.auxiliary(x), None) if self.training else self.head(x)


@pytest.mark.parametrize("weight", [0.4, 0.1])
def test_auxiliary_heads_are_trained_with_a_weight(weight: float) -> None:
    model = TwoHeads()
    evaluator = Classification(TRAIN, VALIDATION, auxiliary_weight=weight, max_epochs=2, learning_rate=0.01)
    batch = (X[:8], Y[:8])
    main, other, _ = model(X[:8])
    loss = nn.functional.cross_entropy
    torch.testing.assert_close(
        evaluator.module(model).training_step(batch), loss(main, Y[:8]) + weight * loss(other, Y[:8])
    )
    before = model.auxiliary.weight.detach().clone()
    found = evaluator.evaluate(job(lambda: model))
    assert not torch.equal(model.auxiliary.weight, before)
    with torch.no_grad():
        right = model.eval()(X[600:901]).argmax(1) == Y[600:901]
    assert found["accuracy"] == pytest.approx(float(right.float().mean()), abs=1e-6)


def test_auxiliary_weights_can_be_searched_and_are_checked() -> None:
    assert list(Classification(TRAIN, auxiliary_weight=Real(0.1, 0.5), folds=2).hyperparameters) == ["auxiliary_weight"]
    with pytest.raises(NasError, match="auxiliary_weight must be a number from 0 on"):
        Classification(TRAIN, VALIDATION, auxiliary_weight=-1.0)
