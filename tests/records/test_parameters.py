"""What strategies and evaluators are made with: every public argument of every public class, on resume and in text."""

import functools
import inspect
import json
import os
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest
import torch
import torchmetrics
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset, TensorDataset

import nas.evaluators
import nas.oneshot
import nas.profile
import nas.strategies
from nas import Categorical, Evaluator, Experiment, ExperimentError, ModelSpace, Strategy, ValueChoice
from nas.evaluators import Classification, FunctionalEvaluator, LightningEvaluator, Surrogate, Tabular
from nas.oneshot import DARTS, ENAS, CostPenalty, CurvatureStop, RandomOneShot, Speed
from nas.records.ledger import Ledger
from nas.records.parameters import changed_parameters, parameters
from nas.records.storage import Store
from nas.strategies import TPE, Chain, GridSearch, OptunaStrategy, Random, RegularizedEvolution

optuna.logging.set_verbosity(optuna.logging.ERROR)

X = torch.arange(16.0).reshape(8, 2)
DATA, MORE = TensorDataset(X, torch.arange(8) % 2), TensorDataset(X[:6], torch.arange(6) % 2)


def one(model: object, rate: float = 0.1) -> float:
    return 1.0


def two(model: object, rate: float = 0.1) -> float:
    return 2.0


class Fit(LightningModule):
    def __init__(self, model: nn.Module, rate: float = 0.1) -> None:
        super().__init__()
        self.model = model


class Other(Fit):
    pass


def loss(architecture: object) -> Any:
    return 0.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, ValueChoice([2, 3], label="width"))
        self.head = nn.Linear(self.layer.out_features, 2)

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.head(self.layer(inputs))


COST = nas.profile.profile(ModelSpace(Net), torch.zeros(1, 2)).parameters

OMIT: Any = object()
"""In place of a default: the argument must be given."""

# For each argument two different values, and what it is where it is left out.
ARGUMENTS: dict[str, tuple[Any, Any, Any]] = {
    # of several strategies
    "initial": (3, 4, 10),
    "candidates": (7, 8, 24),
    "learning_rate": (0.1, 0.2, 1e-3),
    "entropy_weight": (0.1, 0.2, 0.005),
    "distinct": (True, False, True),
    "population_size": (50, 60, 100),
    "sample_size": (5, 6, 25),
    "mutation_probability": (0.1, 0.2, None),
    "crossover": (False, True, False),
    "remove": ("oldest", "worst", "oldest"),
    "restart": ("perturb", "random", "perturb"),
    "strength": (2, 4, 3),
    "temperature": (0.1, 0.3, 0.2),
    "cooling": (0.9, 0.8, 0.97),
    "ensemble_size": (2, 3, 5),
    "retrain_every": (3, 5, 10),
    "trials_per_update": (5, 10, 20),
    "updates": (3, 4, 8),
    "clip": (0.1, 0.2, 0.4),
    "failed_reward": (-1.0, -3.0, -2.0),
    "parts": ([(Random(), 3), (TPE(), None)], [(Random(), 3), (TPE(4), None)], OMIT),
    "sampler": (optuna.samplers.TPESampler(seed=1), optuna.samplers.TPESampler(seed=1, n_startup_trials=3), OMIT),
    "strategy": (Random(), GridSearch(), OMIT),
    "evaluator": (Surrogate(lambda sample: 1.0), Surrogate(lambda sample: 2.0), OMIT),
    "seconds": (1.0, 2.0, 0.0),
    # of one-shot strategies
    "epochs": (1, 2, OMIT),
    "checkpoint_every": (10, 20, 100),
    "recalibration": (5, 6, 20),
    "judge_batches": (3, 4, OMIT),
    "judging": ("whole", "halving", "whole"),
    "unrolled": (False, True, False),
    "weight_decay": (0.0, 0.1, 1e-3),
    "betas": ((0.5, 0.9), (0.6, 0.9), (0.5, 0.999)),
    "warmup_epochs": (1, 2, 0),
    "penalty": (
        CostPenalty(cost=COST, weight=1.0, target=1.0),
        CostPenalty(cost=COST, weight=2.0, target=1.0),
        None,
    ),
    "optimizer": (torch.optim.SGD, functools.partial(torch.optim.SGD, momentum=0.9), None),
    "extra_loss": (loss, lambda architecture: 1.0, None),
    "stop": (CurvatureStop(), CurvatureStop(patience=2), None),
    "speed": (Speed(), Speed(fold=False), Speed()),
    "hard": (False, True, False),
    "partial_channels": (2, 8, 4),
    "controller_steps": (3, 4, 30),
    "samples_per_step": (2, 3, 5),
    "baseline_decay": (0.5, 0.6, 0.95),
    "draws": (5, 6, 50),
    "sampling": ("uniform", "sandwich", "uniform"),
    "middle": (1, 3, 2),
    "distillation": (loss, None, OMIT),
    "evaluations": (20, 30, 200),
    "population": (5, 6, 50),
    "search": (Random(), RegularizedEvolution(20), None),
    # of evaluators
    "train": (DATA, MORE, OMIT),
    "validation": (DataLoader(DATA, 2), DataLoader(DATA, 4), OMIT),
    "batch_size": (4, 8, 32),
    "criterion": (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), OMIT),
    "scheduler": (functools.partial(StepLR, step_size=1), functools.partial(StepLR, step_size=2), None),
    "auxiliary_weight": (0.1, 0.2, 0.4),
    "metrics": (
        {"f": torchmetrics.F1Score("multiclass", num_classes=2)},
        {"f": torchmetrics.F1Score("multiclass", num_classes=2, average="macro")},
        None,
    ),
    "executions": (2, 3, 1),
    "folds": (2, 3, OMIT),
    "function": (one, two, OMIT),
    "hyperparameters": ({"rate": 0.2}, {"rate": 0.3}, {"rate": 0.1}),
    "factory": (Fit, Other, OMIT),
    "metric": ("val_loss", "val_acc", OMIT),
    "direction": ("minimize", "maximize", None),
    "arguments": ({"rate": 0.2}, {"rate": 0.3}, {"rate": 0.1}),
    "predict": (lambda sample: 1.0, lambda sample: 2.0, OMIT),
    "encode": (len, str, None),
    "curves": (True, False, True),
    "table": ({"a": [1.0]}, {"a": [2.0]}, OMIT),
    "key": (str, repr, None),
    "runs": ("draw", "mean", "draw"),
    # of the Trainer
    "accelerator": ("cpu", "gpu", "auto"),
    "strategy of the Trainer": ("auto", "ddp_spawn", "auto"),
    "devices": (2, 3, 1),
    "num_nodes": (1, 2, 1),
    "precision": ("32-true", "bf16-mixed", None),
    "logger": (True, False, None),
    "callbacks": ([EarlyStopping("loss")], [EarlyStopping("loss", patience=7)], None),
    "fast_dev_run": (False, True, False),
    "max_epochs": (2, 20, 10),
    "min_epochs": (1, 2, None),
    "max_steps": (10, 20, -1),
    "min_steps": (1, 2, None),
    "max_time": ("00:00:01:00", "00:00:02:00", None),
    "limit_train_batches": (1, 2, None),
    "limit_val_batches": (1, 2, None),
    "limit_test_batches": (1, 2, None),
    "limit_predict_batches": (1, 2, None),
    "overfit_batches": (1, 2, 0.0),
    "val_check_interval": (1, 2, None),
    "check_val_every_n_epoch": (2, 3, 1),
    "num_sanity_val_steps": (0, 2, 1),
    "log_every_n_steps": (1, 2, None),
    "enable_checkpointing": (True, False, None),
    "enable_progress_bar": (True, False, False),
    "enable_model_summary": (True, False, False),
    "accumulate_grad_batches": (2, 3, 1),
    "gradient_clip_val": (1.0, 2.0, None),
    "gradient_clip_algorithm": ("norm", "value", None),
    "deterministic": (True, "warn", None),
    "benchmark": (True, False, None),
    "inference_mode": (True, False, True),
    "use_distributed_sampler": (True, False, True),
    "profiler": ("simple", "advanced", None),
    "detect_anomaly": (True, False, False),
    "barebones": (False, True, False),
    "plugins": ([], ["other"], None),
    "sync_batchnorm": (True, False, False),
    "reload_dataloaders_every_n_epochs": (1, 2, 0),
    "default_root_dir": ("here", "there", None),
    "enable_autolog_hparams": (True, False, True),
    "model_registry": ("a", "b", None),
}

# Where a class means another thing by a name, or has another default.
OF_CLASS: dict[str, dict[str, tuple[Any, Any, Any]]] = {
    "BANANAS": {"candidates": (7, 8, 100)},
    "GaussianProcess": {"candidates": (7, 8, 60)},
    "PPO": {"learning_rate": (0.1, 0.2, 0.01)},
    "RegularizedEvolution": {"initial": (3, 4, None)},
    "DARTS": {"candidates": (3, 4, 10), "learning_rate": (0.1, 0.2, 3e-4)},
    "GumbelDARTS": {
        "candidates": (3, 4, 10),
        "learning_rate": (0.1, 0.2, 3e-4),
        "temperature": ((2.0, 0.1), (3.0, 0.1), (5.0, 0.1)),
    },
    "PCDARTS": {"candidates": (3, 4, 10), "learning_rate": (0.1, 0.2, 6e-4), "warmup_epochs": (1, 2, 15)},
    "ProxylessNAS": {
        "candidates": (3, 4, 10),
        "learning_rate": (0.1, 0.2, 6e-3),
        "weight_decay": (0.1, 0.2, 0.0),
        "betas": ((0.5, 0.9), (0.6, 0.9), (0.0, 0.999)),
    },
    "ENAS": {"candidates": (3, 4, 10), "learning_rate": (0.1, 0.2, 0.0035), "entropy_weight": (0.1, 0.2, 0.001)},
    "RandomOneShot": {"candidates": (3, 4, 10)},
    "Classification": {"optimizer": ("SGD", "Adam", torch.optim.AdamW), "weight_decay": (0.1, 0.2, None)},
    "Regression": {"optimizer": ("SGD", "Adam", torch.optim.AdamW), "weight_decay": (0.1, 0.2, None)},
    "SimulatedBudget": {"seconds": (1.0, 2.0, OMIT)},
}

MAY_CHANGE = {
    "SupernetStrategy": {"epochs", "candidates", "checkpoint_every"},
    "TrainingEvaluator": {
        *("accelerator", "devices", "num_nodes", "strategy of the Trainer", "logger", "log_every_n_steps"),
        *("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "num_sanity_val_steps"),
        *("profiler", "benchmark", "detect_anomaly", "default_root_dir", "enable_autolog_hparams", "model_registry"),
    },
}

# What must be there for the class to be made at all.
NEEDED: dict[str, dict[str, Any]] = {
    "Chain": {"parts": ARGUMENTS["parts"][0]},
    "OptunaStrategy": {"sampler": ARGUMENTS["sampler"][0]},
    "SimulatedBudget": {"strategy": Random(), "evaluator": ARGUMENTS["evaluator"][0], "seconds": 3.0},
    "Classification": {"train": DATA, "validation": DATA},
    "Regression": {"train": DATA, "validation": DATA},
    "LightningEvaluator": {"factory": Fit, "train": DATA, "validation": DATA, "metric": "m"},
    "FunctionalEvaluator": {"function": two},
    "Surrogate": {"predict": ARGUMENTS["predict"][0]},
    "Tabular": {"table": ARGUMENTS["table"][0]},
}


def classes() -> Iterator[type]:
    for door in (nas.strategies, nas.oneshot, nas.evaluators):
        for name in door.__all__:
            found = getattr(door, name)
            if inspect.isclass(found) and issubclass(found, Strategy | Evaluator) and not inspect.isabstract(found):
                yield found


def arguments(cls: Any) -> Iterator[str]:
    """The names of all arguments of a class, those of its `**keywords` by what they are documented as."""
    signature = inspect.signature(cls)
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            yield parameter.name
            continue
        init = inspect.unwrap(cls.__init__)
        inside = typing.get_args(eval(init.__annotations__[parameter.name], init.__globals__))
        if inside:
            yield from typing.get_type_hints(inside[0])
            continue
        if parameter.name in ("hyperparameters", "arguments"):
            yield parameter.name
        if parameter.name in ("trainer", "arguments"):
            yield from (f"{n} of the Trainer" if n == "strategy" else n for n in inspect.signature(Trainer).parameters)


def made(cls: Any, name: str | None = None, value: Any = None) -> Any:
    given = dict(NEEDED.get(cls.__name__, {}))
    if name in ("hyperparameters", "arguments"):
        given |= value
    elif name is not None:
        given[name.removesuffix(" of the Trainer")] = value
    if name == "folds":
        del given["validation"]
    positional = [given.pop(p) for p in ("function", "predict", "table") if p in given]
    return cls(*positional, **given)


WALK = [(cls, name) for cls in classes() for name in dict.fromkeys(arguments(cls))]


@pytest.mark.parametrize(("cls", "name"), WALK, ids=[f"{cls.__name__}.{name}" for cls, name in WALK])
def test_every_argument_of_every_public_class_is_compared(cls: type, name: str) -> None:
    rows = ARGUMENTS | OF_CLASS.get(cls.__name__, {})
    assert name in rows, f"{cls.__name__} has a new argument {name}: give it a row, and say whether it may change"
    first, second, default = rows[name]
    free = any(name in MAY_CHANGE.get(base.__name__, ()) for base in cls.__mro__)
    one, again, other = (parameters(made(cls, name, value)) for value in (first, first, second))
    assert one == again
    lines = changed_parameters(one, other)
    assert bool(lines) is not free, lines
    named = "rate" if name in ("hyperparameters", "arguments") else name.removesuffix(" of the Trainer")
    assert all(line.startswith(f"{cls.__name__}.{named}") for line in lines)
    if default is not OMIT:
        assert parameters(made(cls, name, default)) == parameters(made(cls))


def test_no_row_is_left_over() -> None:
    assert set(ARGUMENTS) == {name for _, name in WALK}


@pytest.mark.slow
def test_the_text_is_the_same_in_every_process() -> None:
    here = Path(__file__)
    script = (
        "import json, warnings; warnings.simplefilter('ignore')\n"
        f"import sys; sys.path.insert(0, {str(here.parent)!r})\n"
        "import test_parameters as t\n"
        "rows = lambda cls: t.ARGUMENTS | t.OF_CLASS.get(cls.__name__, {})\n"
        "print(json.dumps([t.parameters(t.made(cls, name, rows(cls)[name][1])) for cls, name in t.WALK]))\n"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(here.parents[2])}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    ours = [parameters(made(cls, name, (ARGUMENTS | OF_CLASS.get(cls.__name__, {}))[name][1])) for cls, name in WALK]
    assert json.loads(run.stdout.splitlines()[-1]) == ours


class Third(Strategy):
    """A strategy of somebody else's."""

    def __init__(self, rate: float = 0.5, *, part: Strategy | None = None, **others: Any) -> None:
        self._kept = rate

    def start(self, task: Any) -> None: ...

    def ask(self, number: int) -> Any: ...

    def tell(self, trial: Any) -> None: ...


class Narrow(Third):
    def __init__(self, size: int) -> None:
        super().__init__(size / 10)


def test_strategies_of_others_are_compared_without_ceremony() -> None:
    assert changed_parameters(parameters(Third()), parameters(Third(0.6))) == ["Third.rate: 0.5 -> 0.6"]
    assert parameters(Third()) == parameters(Third(0.5)) == parameters(Third(rate=0.5, part=None))
    assert changed_parameters(parameters(Third(part=Random())), parameters(Third(part=Random(distinct=False)))) == [
        "Third.part.distinct: True -> False"
    ]
    assert changed_parameters(parameters(Third(a=1)), parameters(Third(b=1))) == [
        "Third.a: 1 -> left out",
        "Third.b: left out -> 1",
    ]
    assert parameters(Narrow(3)) == {"": "Narrow", "size": "3"}
    assert inspect.signature(Narrow).parameters.keys() == {"size"}
    assert changed_parameters(parameters(Third()), parameters(Narrow(3))) == ["Third -> Narrow"]


class Samples(Dataset[Any]):
    def __init__(self, folder: str, size: int, values: Any) -> None:
        self.folder, self.size, self.values = folder, size, values

    def __len__(self) -> int:
        return self.size


class Odd:
    """An object that cannot be looked at."""

    def __init__(self, size: int) -> None: ...

    @property
    def __dict__(self) -> Any:
        raise RuntimeError("no")


def lines(first: Any, second: Any) -> list[str]:
    return changed_parameters(*(parameters(Third(part=thing)) for thing in (first, second)))


def test_objects_count_by_their_class_and_settings() -> None:
    assert lines(Samples("here", 3, numpy.zeros(3)), Samples("there", 3, numpy.zeros(3))) == []
    assert lines(Samples("here", 3, None), Samples("here", 4, None))[-1] == "Third.part.size: 3 -> 4"
    (line,) = lines(Samples("here", 3, numpy.zeros(3)), Samples("here", 3, numpy.ones(3)))
    assert line.endswith(" ~")
    assert lines(ModelCheckpoint("here"), ModelCheckpoint("there")) == []
    assert lines(ModelCheckpoint(monitor="a/b"), ModelCheckpoint(monitor="a/c")) != []
    assert lines(DataLoader(DATA, 2, shuffle=True), DataLoader(DATA, 2)) != []
    assert lines(DataLoader(DATA, 3), DataLoader(DATA, 3, drop_last=True)) != []
    assert lines(DataLoader(DATA, 2, num_workers=2), DataLoader(DATA, 2)) == []
    assert lines(nn.Sequential(nn.Linear(1, 2)), nn.Sequential(nn.Linear(1, 3))) != []
    assert lines(nn.Sequential(nn.Linear(1, 2)), nn.Sequential(nn.Linear(1, 2))) == []
    weights = [nn.CrossEntropyLoss(weight=torch.tensor([1.0, weight])) for weight in (1.0, 2.0)]
    assert len(lines(*weights)) == 1
    assert lines({1, 2, 3}, {3, 2, 1}) == []
    assert lines(timedelta(minutes=1), timedelta(minutes=2)) == [
        "Third.part: datetime.timedelta(seconds=60) -> datetime.timedelta(seconds=120)"
    ]
    wide = torch.zeros(3, 4).t().expand(2, 4, 3)
    assert lines(wide, wide.clone()) == []
    assert len(lines(torch.tensor(1.0), torch.tensor(2.0))) == len(lines(numpy.zeros(2), numpy.ones(2))) == 1
    assert lines(torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)) == [
        "Third.part: (2,) of torch.bfloat16 -> (2,) of torch.float32"
    ]
    assert lines(Odd(1), Odd(2)) == []
    assert lines(torch.float32, torch.float16) != []
    assert lines(optuna.samplers.NSGAIISampler(mutation_prob=0.1), optuna.samplers.NSGAIISampler()) != []
    assert lines(optuna.samplers.TPESampler(seed=1), optuna.samplers.TPESampler(seed=2)) == []


def test_what_has_been_used_is_described_as_before(tmp_path: Path) -> None:
    sampler = optuna.samplers.TPESampler(n_startup_trials=1)
    before = parameters(OptunaStrategy(sampler))
    Experiment(Net, SCORE, OptunaStrategy(sampler), name="used", directory=tmp_path).run(3, progress="silent")
    assert parameters(OptunaStrategy(sampler)) == before
    metric = torchmetrics.F1Score("multiclass", num_classes=2)
    before = parameters(Classification(DATA, DATA, metrics={"f": metric}))
    metric.update(torch.tensor([0, 1]), torch.tensor([1, 1]))
    assert parameters(Classification(DATA, DATA, metrics={"f": metric})) == before


def score(model: nn.Module) -> float:
    return float(sum(p.numel() for p in model.parameters()))


SCORE = FunctionalEvaluator(score)


@pytest.fixture
def resumed(tmp_path: Path) -> Callable[..., Experiment]:
    """Goes on with a search that has not begun to train, under other arguments."""

    def go_on(first: tuple[Any, Any], second: tuple[Any, Any], **options: Any) -> Experiment:
        name = type(first[1]).__name__
        Experiment(Net, *first, name=name, directory=tmp_path).run(1, progress="silent")
        return Experiment(Net, *second, name=name, directory=tmp_path, resume=True, **options)

    return go_on


def quick(**arguments: Any) -> Classification:
    return Classification(DATA, DATA, **({"max_epochs": 1, "enable_checkpointing": False} | arguments))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((quick(), Random()), (quick(max_epochs=20), Random()), "Classification.max_epochs: 1 -> 20"),
        ((quick(), Random()), (quick(optimizer="SGD"), Random()), r"optimizer: torch.AdamW -> 'SGD'"),
        ((quick(), Random()), (quick(learning_rate=0.1), Random()), "learning_rate: 0.001 -> 0.1"),
        ((quick(), Random()), (quick(batch_size=4), Random()), "batch_size: 32 -> 4"),
        ((quick(), Random()), (SCORE, Random()), "Classification -> FunctionalEvaluator"),
        (
            (SCORE, OptunaStrategy(optuna.samplers.RandomSampler(1))),
            (SCORE, OptunaStrategy(optuna.samplers.TPESampler())),
            "OptunaStrategy.sampler: optuna.RandomSampler -> optuna.TPESampler",
        ),
        (
            (SCORE, Chain([(Random(), 2), (TPE(), None)])),
            (SCORE, Chain([(Random(), 3), (TPE(), None)])),
            "Chain.parts.0.1: 2 -> 3",
        ),
    ],
)
def test_what_decides_results_is_refused_on_resume(
    resumed: Callable[..., Experiment], first: Any, second: Any, message: str
) -> None:
    with pytest.raises(ExperimentError, match=f"{message}.*\n?.*restore what differs"):
        resumed(first, second)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (DARTS(epochs=1), DARTS(epochs=1, learning_rate=0.1), "DARTS.learning_rate: 0.0003 -> 0.1"),
        (DARTS(epochs=1), DARTS(epochs=1, unrolled=True), "DARTS.unrolled: False -> True"),
        (ENAS(epochs=1, controller_steps=1), ENAS(epochs=1, controller_steps=2), "ENAS.controller_steps: 1 -> 2"),
    ],
)
def test_one_shot_searches_are_compared_too(
    resumed: Callable[..., Experiment], first: Any, second: Any, message: str
) -> None:
    with pytest.raises(ExperimentError, match=message):
        resumed((quick(), first), (quick(), second))


@pytest.mark.filterwarnings("ignore")
def test_what_decides_nothing_may_change(resumed: Callable[..., Experiment]) -> None:
    many = quick(enable_progress_bar=False, callbacks=TQDMProgressBar(), accelerator="cpu", logger=False)
    assert len(resumed((quick(), Random()), (many, Random()), executor="process").trials) == 1
    longer = resumed(
        (quick(), DARTS(candidates=1)), (quick(max_epochs=2), DARTS(epochs=3, candidates=4, checkpoint_every=7))
    )
    assert longer.trials


class Wide(nn.Module):
    def __init__(self, inputs: int = 2, **options: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, ValueChoice([2, 3], label="width"), **options)


def test_what_a_space_is_called_with_is_compared_too(tmp_path: Path) -> None:
    Experiment(ModelSpace(Wide), SCORE, Random(), name="w", directory=tmp_path).run(1, progress="silent")
    same: dict[str, Any] = {"name": "w", "directory": tmp_path, "resume": True}
    assert Experiment(ModelSpace(Wide, inputs=2), SCORE, Random(), **same).trials
    with pytest.raises(ExperimentError, match="Wide.inputs: 2 -> 5"):
        Experiment(ModelSpace(Wide, 5), SCORE, Random(), **same)
    with pytest.raises(ExperimentError, match="Wide.bias: left out -> False"):
        Experiment(ModelSpace(Wide, bias=False), SCORE, Random(), **same)


def test_a_difference_can_be_accepted(resumed: Callable[..., Experiment]) -> None:
    experiment = resumed((quick(), Random()), (quick(max_epochs=2), Random()), accept_changes=True)
    experiment.run(2, progress="silent")
    assert len(experiment.trials[1].intermediate) == 2


def test_other_numbers_in_the_data_are_said(resumed: Callable[..., Experiment]) -> None:
    other = TensorDataset(X + 1, torch.arange(8) % 2)
    with pytest.warns(UserWarning, match="other data: Classification.train.0.numbers"):
        resumed(
            (quick(), Random()),
            (Classification(other, DATA, max_epochs=1, enable_checkpointing=False), Random()),
        )


def test_experiments_of_before_arguments_were_remembered_go_on(tmp_path: Path) -> None:
    Experiment(Net, SCORE, Random(), name="old", directory=tmp_path).run(1, progress="silent")
    ledger = Ledger.find(Store(None, tmp_path / "old").write(), "old")
    assert ledger is not None
    header = {key: value for key, value in ledger.header.items() if key != "parameters"}
    ledger.write_header(header | {"code": {"setting Random.distinct": "True", "score": ledger.header["code"]["score"]}})
    resumed = Experiment(Net, SCORE, Random(), name="old", directory=tmp_path, resume=True)
    assert len(resumed.trials) == 1
    resumed.run(2, progress="silent")
    with pytest.raises(ExperimentError, match="Random.distinct: True -> False"):
        Experiment(Net, SCORE, Random(distinct=False), name="old", directory=tmp_path, resume=True)


def test_searched_arguments_are_a_part_of_the_space() -> None:
    first, second = (quick(learning_rate=Categorical(rates)) for rates in ([0.1, 0.2], [0.1, 0.3]))
    assert changed_parameters(parameters(first), parameters(second)) == []
    assert changed_parameters(parameters(first), parameters(quick())) == [
        "Classification.learning_rate: searched -> 0.001"
    ]


def test_large_tables_are_only_looked_at() -> None:
    table = Tabular({str(number): [float(number)] for number in range(5000)})
    assert len(parameters(table)) < 80
    assert LightningEvaluator(Fit, DATA, DATA, metric="m").omitted()["rate"] == 0.1
    assert RandomOneShot().may_change == {"epochs", "candidates", "checkpoint_every"}
