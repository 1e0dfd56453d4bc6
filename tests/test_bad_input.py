"""What is handed in wrongly is answered at once: the rule, what was received, whose it is, and the mend."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, is_typeddict

import numpy
import optuna
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nas
import nas.model_zoo
from nas import (
    Categorical,
    Cell,
    Experiment,
    InputChoice,
    Integer,
    LayerChoice,
    ModelSpace,
    Mutator,
    NasError,
    Real,
    Repeat,
    ValueChoice,
    model_space,
)
from nas.evaluators import Classification, FunctionalEvaluator, LightningEvaluator, Regression, Surrogate, Tabular
from nas.export import to_code, to_onnx
from nas.oneshot import DARTS, ENAS, GumbelDARTS, RandomOneShot
from nas.profile import latency, profile
from nas.strategies import (
    BANANAS,
    PPO,
    TPE,
    Anneal,
    Chain,
    GaussianProcess,
    GridSearch,
    LocalSearch,
    OptunaStrategy,
    Random,
    RegularizedEvolution,
)


def any_(thing: Any) -> Any:
    """What a type checker does not look at: it would say what is wrong before."""
    return thing


X, Y = torch.randn(40, 4), torch.randint(3, (40,))
DATA = TensorDataset(X, Y)


@model_space
class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, ValueChoice([2, 4], label="width")), nn.LazyLinear(classes))

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


class NoSuper(nn.Module):
    def __init__(self) -> None:
        self.layer = LayerChoice([nn.ReLU, nn.GELU], label="act")


class Bare(nn.Module):
    def __init__(self) -> None:
        self.width = ValueChoice([1, 2], label="width")


@model_space
class InForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = ValueChoice([1, 2], label="width")

    def forward(self, x: torch.Tensor) -> Any:
        return LayerChoice([nn.ReLU, nn.GELU], label="act")(x)


class Widen(Mutator):
    def mutate(self, model: nn.Module) -> None:
        ValueChoice([1, 2], label="more")


def size(model: nn.Module) -> float:
    return 1.0


EVALUATE = FunctionalEvaluator(size)


def experiment(tmp_path: Path, space: Any = Net, evaluator: Any = EVALUATE, strategy: Any = ..., **options: Any) -> Any:
    strategy = Random() if strategy is ... else strategy
    return Experiment(space, evaluator, strategy, **{"name": "test", "directory": tmp_path, **options})


def space(function: Callable[[], object]) -> ModelSpace:
    return ModelSpace(function)


class Fit(pytorch_lightning.LightningModule):
    def __init__(self, model: nn.Module, rate: float = 0.1) -> None:
        super().__init__()
        self.model, self.rate = model, rate

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=self.rate)


class NoValidation(pytorch_lightning.LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


Case = tuple[str, Callable[[], object], str]

CHOICES: list[Case] = [
    (
        "value: positional",
        lambda: ValueChoice([1, 2], "width"),
        "ValueChoice takes 1 argument by position.*candidates.*label",
    ),
    ("value: spread", lambda: ValueChoice(16, 32, 64), r"\(16, 32, 64\).*ValueChoice\(\[16, 32\]\)"),
    ("value: none", lambda: ValueChoice(), "ValueChoice needs 'candidates'"),
    ("value: unknown", lambda: ValueChoice([1, 2], name="w"), "no argument 'name'; did you mean 'label'"),
    ("value: defalt", lambda: ValueChoice([1, 2], defalt=1, label="w"), "ValueChoice 'w'.*did you mean 'default'"),
    ("value: empty", lambda: ValueChoice([], label="w"), "ValueChoice 'w': a choice needs at least one candidate"),
    ("value: set", lambda: ValueChoice({1, 2}, label="w"), "ValueChoice 'w'.*list or tuple"),
    ("value: dict", lambda: ValueChoice({"a": 1}, label="w"), "ValueChoice 'w'.*list or tuple"),
    ("value: generator", lambda: ValueChoice((i for i in (1, 2)), label="w"), "ValueChoice 'w'.*list or tuple"),
    ("value: str", lambda: ValueChoice("abc", label="w"), "ValueChoice 'w'.*list or tuple"),
    ("value: int", lambda: ValueChoice(3, label="w"), "ValueChoice 'w'.*list or tuple"),
    ("value: None", lambda: ValueChoice(None, label="w"), "ValueChoice 'w'.*list or tuple"),
    ("value: twice", lambda: ValueChoice([1, 1], label="w"), "ValueChoice 'w'.*must differ"),
    ("value: nan", lambda: ValueChoice([math.nan, 1.0], label="w"), "ValueChoice 'w'.*JSON"),
    ("value: modules", lambda: ValueChoice([nn.ReLU(), nn.GELU()], label="w"), "ValueChoice 'w'.*LayerChoice"),
    ("value: arrays", lambda: ValueChoice([numpy.zeros(1000)], label="w"), "ValueChoice 'w'.*JSON"),
    ("value: array", lambda: ValueChoice(numpy.arange(1000), label="w"), "ValueChoice 'w'.*list or tuple"),
    ("value: label int", lambda: ValueChoice([1, 2], label=3), "label must be a str.*3"),
    ("value: label empty", lambda: ValueChoice([1, 2], label=""), "label must not be empty"),
    ("value: default", lambda: ValueChoice([1, 2], label="w", default=3), "ValueChoice 'w': the default must be"),
    ("value: domain class", lambda: ValueChoice(Integer, label="w"), "ValueChoice 'w'.*list or tuple"),
    (
        "layer: needs arguments",
        lambda: space(lambda: LayerChoice({"conv": nn.Conv2d, "id": nn.Identity}, label="op")),
        "'conv' of LayerChoice 'op'.*without arguments.*Conv2d.*'in_channels'.*lambda: Conv2d",
    ),
    (
        "layer: lambda of one",
        lambda: space(lambda: LayerChoice([lambda c: nn.ReLU(), nn.ReLU], label="op")),
        "LayerChoice 'op'.*without arguments.*'c'",
    ),
    ("layer: lstm", lambda: space(lambda: LayerChoice({"lstm": nn.LSTM}, label="op")), "LayerChoice 'op'.*LSTM"),
    ("layer: int", lambda: LayerChoice([3, nn.ReLU], label="op"), "LayerChoice 'op': each candidate must be"),
    ("layer: str", lambda: LayerChoice(["relu", "gelu"], label="op"), "LayerChoice 'op': each candidate must be"),
    ("layer: empty", lambda: LayerChoice([], label="op"), "LayerChoice 'op': a choice needs at least one candidate"),
    (
        "layer: set",
        lambda: LayerChoice({nn.ReLU, nn.GELU}, label="op"),
        "LayerChoice 'op': candidates must be a list or a dict",
    ),
    (
        "layer: module",
        lambda: LayerChoice(nn.ReLU(), label="op"),
        "LayerChoice 'op': candidates must be a list or a dict",
    ),
    (
        "layer: spread",
        lambda: LayerChoice(nn.ReLU(), nn.GELU(), label="op"),
        r"LayerChoice 'op' takes 1 argument.*LayerChoice\(\[",
    ),
    (
        "layer: no module",
        lambda: space(lambda: LayerChoice([lambda: 3, nn.ReLU], label="op")),
        "LayerChoice 'op'.*must return an nn.Module.*3",
    ),
    (
        "layer: none",
        lambda: space(lambda: LayerChoice([lambda: None, nn.ReLU], label="op")),
        "LayerChoice 'op'.*must return an nn.Module.*None",
    ),
    (
        "layer: default",
        lambda: LayerChoice([nn.ReLU, nn.GELU], label="op", default="tanh"),
        "LayerChoice 'op': the default must be",
    ),
    (
        "layer: no super",
        lambda: space(lambda: nn.Sequential(NoSuper(), nn.Linear(1, ValueChoice([1, 2])))),
        r"NoSuper.*super\(\).__init__\(\)",
    ),
    ("input: str", lambda: InputChoice("3", label="in"), "InputChoice 'in': n_candidates must be an int.*'3'"),
    ("input: zero", lambda: InputChoice(0, label="in"), "InputChoice 'in': n_candidates must be an int from 1 on"),
    ("input: many", lambda: InputChoice(2, 3, replace=False, label="in"), "InputChoice 'in': 3 of 2"),
    ("input: float", lambda: InputChoice(2, 1.0, label="in"), "InputChoice 'in': n_chosen must be an int"),
    ("input: bool", lambda: InputChoice(True, label="in"), "InputChoice 'in': n_candidates must be an int"),
    ("input: reduction", lambda: InputChoice(2, reduction="avg", label="in"), "InputChoice 'in': reduction must be"),
    (
        "input: replace",
        lambda: InputChoice(2, replace="no", label="in"),
        "InputChoice 'in': replace must be True or False",
    ),
    (
        "input: each",
        lambda: space(lambda: InputChoice(2, each=lambda: nn.ReLU(), label="in")),
        "InputChoice 'in'.*by its index",
    ),
    ("input: names", lambda: InputChoice(["a", "b"], label="in"), "InputChoice 'in': n_candidates must be an int"),
    ("input: unknown", lambda: InputChoice(2, n_choosen=1, label="in"), "InputChoice 'in'.*did you mean 'n_chosen'"),
    (
        "repeat: no argument",
        lambda: Repeat(lambda: nn.ReLU(), 2, label="d"),
        "block 0 of Repeat 'd'.*by its index.*no argument.*lambda i",
    ),
    ("repeat: class", lambda: Repeat(nn.Conv2d, 2, label="d"), "Repeat 'd'.*Conv2d"),
    (
        "repeat: high below low",
        lambda: Repeat(lambda i: nn.ReLU(), (3, 1), label="d"),
        "Repeat 'd'.*low must not exceed high",
    ),
    (
        "repeat: negative",
        lambda: Repeat(lambda i: nn.ReLU(), -1, label="d"),
        "Repeat 'd': depth must be an int from 0 on",
    ),
    ("repeat: list depth", lambda: Repeat(lambda i: nn.ReLU(), [1, 2, 3], label="d"), "Repeat 'd': depth must be"),
    ("repeat: str depth", lambda: Repeat(lambda i: nn.ReLU(), "2", label="d"), "Repeat 'd': depth must be"),
    ("repeat: bool depth", lambda: Repeat(lambda i: nn.ReLU(), True, label="d"), "Repeat 'd': depth must be"),
    ("repeat: int block", lambda: Repeat(3, 2, label="d"), "Repeat 'd': block must be"),
    ("repeat: short list", lambda: Repeat([nn.ReLU], 2, label="d"), "Repeat 'd': the list of blocks"),
    ("repeat: none", lambda: Repeat(lambda i: None, 2, label="d"), "block 0 of Repeat 'd'.*must return an nn.Module"),
    ("repeat: missing", lambda: Repeat(lambda i: nn.ReLU(), label="d"), "Repeat 'd' needs 'depth'"),
    ("cell: list", lambda: Cell([nn.ReLU], nodes=2, label="c"), "Cell 'c': operations must be a dict"),
    (
        "cell: nodes",
        lambda: Cell({"a": lambda i: nn.ReLU()}, nodes=0, label="c"),
        "Cell 'c': nodes must be an int from 1 on",
    ),
    (
        "cell: output",
        lambda: Cell({"a": lambda i: nn.ReLU()}, nodes=1, label="c", output="some"),
        "Cell 'c': output must be",
    ),
    ("cell: unknown", lambda: Cell({"a": lambda i: nn.ReLU()}, n_nodes=1, label="c"), "Cell 'c'.*did you mean 'nodes'"),
    (
        "cell: no argument",
        lambda: space(lambda: Cell({"a": lambda: nn.ReLU()}, nodes=1, label="c")),
        "operation 'a'.*by its index.*no argument",
    ),
    (
        "cell: distinct",
        lambda: Cell({"a": lambda i: nn.ReLU()}, nodes=1, label="c", distinct="yes"),
        "Cell 'c': distinct must be True or False",
    ),
    ("integer: floats", lambda: Integer(1.5, 3), "low must be an int.*Real"),
    ("integer: swapped", lambda: Integer(3, 1), "low must not exceed high"),
    ("integer: positional", lambda: Integer(1, 8, 2), r"Integer takes 2 arguments by position.*step"),
    ("integer: step", lambda: Integer(1, 8, step=0), "step must be positive"),
    ("integer: min", lambda: Integer(min=1, max=8), "no argument 'min'.*did you mean 'low'"),
    ("real: nan", lambda: Real(math.nan, 1), "low must be a finite number"),
    ("real: str", lambda: Real("1e-4", 1), "low must be a number.*'1e-4'"),
    ("real: log", lambda: Real(0, 1, log=True), "log scale needs low above 0"),
    ("real: log str", lambda: Real(0.1, 1, log="yes"), "log must be True or False"),
    ("real: inf", lambda: Real(0, math.inf), "high must be a finite number"),
    ("categorical: spread", lambda: Categorical("SGD", "Adam"), r"Categorical\(\["),
    ("categorical: str", lambda: Categorical("SGD"), "list or tuple"),
    ("categorical: empty", lambda: Categorical([]), "at least one candidate"),
    ("label scope: int", lambda: ModelSpace(lambda: _scoped(None)), "label_scope"),
]


def _scoped(name: object) -> nn.Module:
    with nas.label_scope(name):  # type: ignore[arg-type]
        return nn.Linear(1, ValueChoice([1, 2]))


SPACES: list[Case] = [
    ("model_space: instance", lambda: model_space(any_(Plain())), "decorates an nn.Module class"),
    ("model_space: function", lambda: model_space(any_(size)), "decorates an nn.Module class"),
    ("model_space: nothing", lambda: model_space(), "model_space needs 'cls'"),
    ("space: no choices", lambda: ModelSpace(Plain), "needs at least one choice.*Plain"),
    ("space: int", lambda: ModelSpace(3), "source of a model space"),
    ("space: None", lambda: ModelSpace(None), "source of a model space"),
    ("space: list", lambda: ModelSpace([nn.ReLU()]), "source of a model space"),
    ("space: nothing", lambda: ModelSpace(), "ModelSpace needs 'source'"),
    (
        "space: unknown argument",
        lambda: ModelSpace(Net, clases=3),
        "Net has no argument 'clases'.*did you mean 'classes'",
    ),
    ("space: missing argument", lambda: ModelSpace(nn.Linear, 4), "Linear needs 'out_features'"),
    ("space: arguments of an instance", lambda: ModelSpace(Net(), 3), "arguments go to a class or function"),
    ("space: no module", lambda: ModelSpace(lambda: ValueChoice([1, 2])), "must build an nn.Module"),
    ("space: no super", lambda: ModelSpace(NoSuper), r"NoSuper.*super\(\).__init__\(\)"),
    (
        "space: no super, decorated",
        lambda: model_space(type("Half", (NoSuper,), {}))(),
        r"Half.*super\(\).__init__\(\)",
    ),
    ("space: bare", lambda: ModelSpace(Bare), r"Bare.*super\(\).__init__\(\)"),
    ("space: forward", lambda: InForward()(X), "LayerChoice 'act'.*forward of InForward.*__init__"),
    ("space: mutator", lambda: ModelSpace(Plain(), mutators=any_(Widen())), r"mutators is a list.*mutators=\[Widen"),
    ("space: mutator class", lambda: ModelSpace(Plain(), mutators=[any_(Widen)]), "Widen.*give an instance"),
    ("space: mutator function", lambda: ModelSpace(Plain(), mutators=[any_(size)]), "nas.Mutator"),
    ("space: mutators None", lambda: ModelSpace(Plain(), mutators=any_(None)), "mutators is a list"),
    (
        "space: other domain",
        lambda: space(lambda: nn.Linear(ValueChoice([1, 2], label="w"), ValueChoice([3, 4], label="w"))),
        "label 'w'.*another label",
    ),
    ("search_space: int", lambda: nas.search_space(any_(3)), "made of a function or a dict"),
    ("search_space: empty", lambda: nas.search_space({}), "at least one choice"),
    ("search_space: module", lambda: nas.search_space(any_(Plain())), "ModelSpace"),
    ("search_space: empty list", lambda: nas.search_space({"a": []}), "'a'.*at least one candidate"),
    ("search_space: int key", lambda: nas.search_space({1: [1, 2], 2: [3]}), "name"),
    ("build: None", lambda: ModelSpace(Net).build(any_(None)), "a sample must be a dict"),
    ("build: empty", lambda: ModelSpace(Net).build({}), "'width'"),
    ("build: outside", lambda: ModelSpace(Net).build({"width": 3}), "'width'.*3"),
    ("build: unknown", lambda: ModelSpace(Net).build({"widht": 2}), "'widht'.*did you mean 'width'"),
    ("build: unknown too", lambda: ModelSpace(Net).build({"width": 2, "depth": 1}), "'depth'"),
    ("build: unknown argument", lambda: ModelSpace(Net).build({"width": 2}, dev="cpu"), "dev.*device"),
    ("build: device", lambda: ModelSpace(Net).build({"width": 2}, device="gpu0"), "device.*gpu0"),
    ("sample: str", lambda: ModelSpace(Net).sample(any_("0")), "seed must be an int"),
    ("sample: nothing", lambda: any_(ModelSpace(Net)).sample(), "sample needs 'seed'"),
    ("where: str", lambda: ModelSpace(Net).where(any_("width > 2")), "constraint"),
    (
        "mutate: probability",
        lambda: ModelSpace(Net).mutate({"width": 2}, 0, 2),
        "probability must be a number from 0 to 1",
    ),
    ("validate: list", lambda: ModelSpace(Net).validate(any_([("width", 2)])), "a sample must be a dict"),
    ("complete: unknown", lambda: ModelSpace(Net).complete({"Width": 2}), "'Width'.*did you mean 'width'"),
    ("replace: name", lambda: nas.replace_module(Plain(), "layr", nn.ReLU()), "'layr'.*did you mean 'layer'"),
    ("replace: class", lambda: nas.replace_module(Plain(), "layer", any_(nn.ReLU)), "only a module can replace"),
    ("replace: model", lambda: nas.replace_module(any_(Plain), "layer", nn.ReLU()), "submodules of a module"),
    ("save_sample: list", lambda: nas.save_sample(any_([1]), "/nowhere/x.json"), "sample"),
    ("load_sample: int", lambda: nas.load_sample(any_(3)), "load_sample: path must name a file"),
    ("save_sample: None", lambda: nas.save_sample({"width": 2}, any_(None)), "save_sample: path must name a file"),
    ("load_sample: none", lambda: nas.load_sample("/nowhere/x.json"), "nowhere"),
    ("report: text", lambda: nas.report(any_("0.5")), "nas.report.*number.*'0.5'"),
    ("report: nan", lambda: nas.report(math.nan), "nas.report.*finite"),
    ("report: dict", lambda: nas.report(any_({"acc": 1.0})), "nas.report.*number"),
    ("report: step", lambda: nas.report(1.0, any_("1")), "step must be an int"),
    ("keep_weights: sample", lambda: nas.keep_weights(any_({"width": 2})), "torch.nn.Module"),
]


ASKED = Classification(DATA, DATA, max_epochs=1, batch_size=20)


def classify(tmp_path: Path, *data: Any, model: Any = Net, resume: bool = False, **options: Any) -> Any:
    return experiment(tmp_path, model, Classification(*data, **{"max_epochs": 1, **options}), resume=resume)


class Wide(nn.Module):
    """Knows three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, ValueChoice([2, 4], label="width")), nn.LazyLinear(3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


Kept = Callable[[Path], object]
EXPERIMENTS: list[tuple[str, Kept, str]] = [
    (
        "evaluator: function",
        lambda p: experiment(p, Net, size),
        "wrap a function in nas.evaluators.FunctionalEvaluator",
    ),
    ("evaluator: class", lambda p: experiment(p, Net, FunctionalEvaluator), "give an instance: FunctionalEvaluator"),
    ("evaluator: module", lambda p: experiment(p, Net, Fit), "LightningEvaluator"),
    ("evaluator: None", lambda p: experiment(p, Net, None), "must be a nas.Evaluator.*None"),
    (
        "evaluator and strategy swapped",
        lambda p: experiment(p, Net, Random(), EVALUATE),
        "evaluator stands before the strategy",
    ),
    ("strategy: class", lambda p: experiment(p, strategy=Random), r"Random\(\), not Random"),
    ("strategy: str", lambda p: experiment(p, strategy="random"), r"'random'.*Random\(\), not a name"),
    ("strategy: None", lambda p: experiment(p, strategy=None), r"must be a nas.Strategy.*Random\(\)"),
    (
        "strategy: sampler",
        lambda p: experiment(p, strategy=optuna.samplers.TPESampler()),
        r"OptunaStrategy\(TPESampler",
    ),
    (
        "strategy: sampler class",
        lambda p: experiment(p, strategy=optuna.samplers.TPESampler),
        r"OptunaStrategy\(TPESampler",
    ),
    (
        "no evaluator",
        lambda p: any_(Experiment)(Net, name="test", directory=p),
        "Experiment needs 'evaluator' and 'strategy'",
    ),
    ("no name", lambda p: any_(Experiment)(Net, EVALUATE, Random(), directory=p), "Experiment needs 'name'"),
    ("name: path", lambda p: experiment(p, name="a/b"), "name of its folder.*'a/b'.*directory="),
    ("name: None", lambda p: experiment(p, name=None), "name of its folder.*None"),
    ("unknown: n_trials", lambda p: experiment(p, n_trials=3), "Experiment has no argument 'n_trials'"),
    (
        "unknown: direction",
        lambda p: experiment(p, direction="minimize"),
        "Experiment has no argument 'direction'.*'objective'",
    ),
    (
        "unknown: sampler",
        lambda p: any_(Experiment)(Net, EVALUATE, sampler=Random(), name="test", directory=p),
        "'sampler'.*'strategy'",
    ),
    ("unknown: dir", lambda p: any_(Experiment)(Net, EVALUATE, Random(), name="test", dir=p), "'dir'.*'directory'"),
    ("unknown: pruner", lambda p: experiment(p, pruner=None), "'pruner'.*'early_stopping'"),
    (
        "too many",
        lambda p: any_(Experiment)(Net, EVALUATE, Random(), "test"),
        "Experiment takes 3 arguments by position.*name",
    ),
    ("objective: word", lambda p: experiment(p, objective="min"), '"maximize" or "minimize".*\'min\'.*="minimize"'),
    ("objective: list", lambda p: experiment(p, objective=["accuracy"]), "the objective is"),
    ("objective: set", lambda p: experiment(p, objective={"accuracy"}), "the objective is"),
    ("objective: empty", lambda p: experiment(p, objective={}), "the objective is"),
    ("objective: int", lambda p: experiment(p, objective={"loss": -1}), "direction must be"),
    ("objective: int name", lambda p: experiment(p, objective={1: "minimize"}), "name"),
    ("seed: str", lambda p: experiment(p, seed="0"), "seed must be an int.*'0'.*seed=0"),
    ("seed: None", lambda p: experiment(p, seed=None), "seed must be an int"),
    ("seed: float", lambda p: experiment(p, seed=1.5), "seed must be an int"),
    ("repeats: zero", lambda p: experiment(p, repeats=0), "repeats must be an int from 1 on.*repeats=1"),
    ("repeats: bool", lambda p: experiment(p, repeats=True), "repeats must be an int"),
    ("mutators: single", lambda p: experiment(p, mutators=Widen()), r"mutators=\[Widen"),
    ("mutators: class", lambda p: experiment(p, mutators=[Widen]), "Widen.*give an instance"),
    ("mutators: None", lambda p: experiment(p, mutators=None), "mutators is a list"),
    ("executor: word", lambda p: experiment(p, executor="threads"), 'the executor is "inline", "process" or "ray"'),
    ("executor: class", lambda p: experiment(p, executor=nas.ProcessExecutor), "the executor is"),
    ("executor: None", lambda p: experiment(p, executor=None), "the executor is"),
    ("early stopping: word", lambda p: experiment(p, early_stopping="median"), "early_stopping is a nas.EarlyStopping"),
    (
        "early stopping: class",
        lambda p: experiment(p, early_stopping=nas.MedianStop),
        "early_stopping is a nas.EarlyStopping",
    ),
    (
        "early stopping: several objectives",
        lambda p: experiment(p, early_stopping=nas.MedianStop(), objective={"a": "minimize", "b": "minimize"}),
        "single objective",
    ),
    ("storage: int", lambda p: experiment(p, storage=3), "storage is a URL or an Optuna storage"),
    ("storage: path", lambda p: experiment(p, storage=p / "x.db"), "storage is a URL"),
    ("storage: nonsense", lambda p: experiment(p, storage="nonsense"), "storage cannot be opened"),
    ("resume: word", lambda p: experiment(p, resume="yes"), 'resume must be True or False, or "auto"'),
    ("resume: None", lambda p: experiment(p, resume=None), 'resume must be True or False, or "auto"'),
    ("accept_changes: word", lambda p: experiment(p, accept_changes="yes"), "accept_changes must be True or False"),
    ("directory: int", lambda p: experiment(p, directory=3), "directory"),
    ("directory: None", lambda p: experiment(p, directory=None), "directory"),
    ("space: plain", lambda p: experiment(p, Plain), "at least one choice.*Plain"),
    ("space: None", lambda p: experiment(p, None), "source of a model space"),
    ("space: str", lambda p: experiment(p, "lenet"), "source of a model space.*'lenet'.*model_zoo"),
    ("space: empty dict", lambda p: experiment(p, {}), "at least one choice"),
    (
        "space: mutators of a dict",
        lambda p: experiment(p, {"a": [1, 2]}, mutators=[Widen()]),
        "mutators change modules",
    ),
    (
        "space: layer that needs arguments",
        lambda p: experiment(p, lambda: LayerChoice([nn.Conv2d], label="op")),
        "LayerChoice 'op'.*Conv2d",
    ),
    (
        "grid: real",
        lambda p: experiment(p, lambda: nn.Dropout(ValueChoice(Real(0, 0.5), label="rate")), strategy=GridSearch()),
        "'rate'.*grid.*step",
    ),
    (
        "grid: searched real",
        lambda p: experiment(p, Net, FunctionalEvaluator(lambda model, rate: rate, rate=Real(0, 1)), GridSearch()),
        "'rate'.*grid.*step",
    ),
    (
        "one objective",
        lambda p: experiment(p, strategy=GaussianProcess(), objective={"a": "minimize", "b": "minimize"}),
        "one objective",
    ),
    ("supernet: function", lambda p: experiment(p, strategy=DARTS()), "DARTS trains a supernet.*Classification"),
    ("supernet: processes", lambda p: experiment(p, Net, ASKED, DARTS(), executor="process"), "executor.*supernet"),
    ("supernet: repeats", lambda p: experiment(p, Net, ASKED, DARTS(), repeats=2), "repeats"),
    (
        "supernet: searched",
        lambda p: experiment(p, Net, Classification(DATA, DATA, learning_rate=Real(0, 1)), ENAS()),
        "learning_rate",
    ),
    (
        "data: floats",
        lambda p: classify(p, TensorDataset(X, Y.float()), DATA),
        r"numbers of classes, as ints.*float32.*long\(\)",
    ),
    (
        "data: floats in validation",
        lambda p: classify(p, DATA, TensorDataset(X, Y.double())),
        "numbers of classes, as ints.*float64",
    ),
    (
        "data: floats from a function",
        lambda p: classify(p, lambda: (TensorDataset(X, Y.float()), DATA)),
        "numbers of classes, as ints",
    ),
    (
        "data: floats in a loader",
        lambda p: classify(p, DataLoader(TensorDataset(X, Y.float())), DataLoader(DATA)),
        "numbers of classes, as ints",
    ),
    (
        "data: too few classes",
        lambda p: classify(p, TensorDataset(X, Y + 2), DATA),
        "3 outputs knows the classes 0 to 2.*class 4.*5 outputs",
    ),
    (
        "data: counted from 1",
        lambda p: classify(p, TensorDataset(X, Y + 1), DATA),
        "3 outputs knows the classes 0 to 2.*class 3",
    ),
    ("data: negative", lambda p: classify(p, TensorDataset(X, Y - 1), DATA), "3 outputs"),
    (
        "data: one class",
        lambda p: classify(p, DATA, DATA, model=ModelSpace(Net, 2)),
        "2 outputs knows the classes 0 to 1.*class 2",
    ),
    ("data: shapes", lambda p: experiment(p, Net, Regression(DATA, DATA)), "one prediction for each target"),
    ("data: no pairs", lambda p: classify(p, TensorDataset(X), TensorDataset(X)), "a batch must be"),
    ("data: no modules", lambda p: experiment(p, {"a": [1, 2]}, ASKED), "this space builds none"),
    ("accelerator", lambda p: classify(p, DATA, DATA, accelerator="tpu"), "Trainer refuses its arguments.*tpu"),
    ("accelerator: word", lambda p: classify(p, DATA, DATA, accelerator="warp"), "Trainer refuses its arguments.*warp"),
    (
        "accelerator: processes",
        lambda p: experiment(p, Net, Classification(DATA, DATA, accelerator="tpu"), executor="process"),
        "Trainer refuses its arguments",
    ),
    (
        "precision",
        lambda p: classify(p, DATA, DATA, precision="half-baked"),
        "Trainer refuses its arguments.*half-baked",
    ),
    (
        "lightning: function of no module",
        lambda p: experiment(p, Net, LightningEvaluator(lambda model: 3, DATA, DATA, metric="val_loss")),
        "factory must return a LightningModule",
    ),
    (
        "lightning: module itself",
        lambda p: experiment(p, Net, LightningEvaluator(lambda model: model, DATA, DATA, metric="val_loss")),
        "factory must return a LightningModule",
    ),
    (
        "lightning: no validation step",
        lambda p: experiment(p, Net, LightningEvaluator(NoValidation, DATA, DATA, metric="val_loss")),
        "judged by validation.*NoValidation.*validation_step",
    ),
]
METHODS: list[tuple[str, Kept, str]] = [
    (
        "run: concurrency",
        lambda p: experiment(p).run(3, concurrency=4),
        'concurrency must be an int from 1 to 1.*4.*executor="process"',
    ),
    ("run: unknown", lambda p: experiment(p).run(n_trials=3), "run has no argument 'n_trials'.*'max_trials'"),
    ("run: trials", lambda p: experiment(p).run("10"), "max_trials must be an int.*'10'.*max_trials=10"),
    ("run: none", lambda p: experiment(p).run(0), "max_trials must be an int from 1 on"),
    ("run: timeout", lambda p: experiment(p).run(1, timeout=-1), "timeout must be a number of seconds above 0"),
    ("run: jobs", lambda p: experiment(p).run(1, n_jobs=2), "'n_jobs'.*'concurrency'"),
    ("run: progress", lambda p: experiment(p).run(1, progress="loud"), "progress must be"),
    ("run: progress bool", lambda p: experiment(p).run(1, progress=False), "progress must be"),
    ("run: positional", lambda p: experiment(p).run(1, 60), "run takes 1 argument by position.*timeout"),
    ("enqueue: list", lambda p: experiment(p).enqueue([1]), "a sample must be a dict"),
    ("enqueue: unknown", lambda p: experiment(p).enqueue({"widht": 2}), "did you mean 'width'"),
    ("enqueue: outside", lambda p: experiment(p).enqueue({"width": 3}), "ValueChoice 'width'.*3"),
    ("enqueue: again", lambda p: experiment(p).enqueue({"width": 2}, again="yes"), "again must be True or False"),
    ("enqueue: several", lambda p: experiment(p).enqueue([{"width": 2}]), "a sample must be a dict"),
    ("retry: str", lambda p: experiment(p).retry("0"), "trials that are FAILED.*0"),
    ("retry: none there", lambda p: experiment(p).retry(3), "trial 3 is not there"),
    ("retrain: nothing yet", lambda p: experiment(p).retrain(), "no trial is COMPLETE"),
    ("retrain: evaluator", lambda p: experiment(p).retrain(evaluator=size), "evaluator"),
    ("retrain: rank", lambda p: experiment(p).retrain(0), "rank must be an int from 1 on"),
    ("retrain: epochs", lambda p: experiment(p).retrain(max_epochs=3), "no argument 'max_epochs'"),
    ("export: nothing yet", lambda p: experiment(p).export_top_models(), "no trial is COMPLETE"),
    (
        "export: format",
        lambda p: experiment(p).export_top_models(format="onnx"),
        "export_top_models has no argument 'format'.*'formatter'",
    ),
    ("export: word", lambda p: experiment(p).export_top_models(1, "torch"), "formatter must be"),
    ("export: k", lambda p: experiment(p).export_top_models("all"), "k must be an int from 1 on"),
    ("export: weights", lambda p: experiment(p).export_top_models(weights="best"), "weights must be"),
    ("best", lambda p: experiment(p).best_trial, "no trial is COMPLETE"),
    ("report: multi-trial", lambda p: experiment(p).one_shot_report(), "supernet"),
    ("load: nothing there", lambda p: Experiment.load(p / "none"), "no experiment in this folder"),
    ("load: int", lambda p: any_(Experiment).load(3), "the path must name a file or a folder"),
    ("load: unknown", lambda p: any_(Experiment).load(p, evaluater=3), "'evaluater'.*'evaluator'"),
]


EVALUATORS: list[Case] = [
    ("functional: int", lambda: FunctionalEvaluator(any_(3)), "needs a function.*3"),
    ("functional: None", lambda: FunctionalEvaluator(any_(None)), "needs a function"),
    ("functional: nothing", lambda: any_(FunctionalEvaluator)(), "FunctionalEvaluator needs 'function'"),
    ("functional: no argument", lambda: FunctionalEvaluator(lambda: 1.0), r"function\(model, \*\*values\)"),
    (
        "functional: unknown",
        lambda: FunctionalEvaluator(lambda model, learning_rate: 1.0, lr=Real(0, 1)),
        "'lr'.*'learning_rate'",
    ),
    ("functional: missing", lambda: FunctionalEvaluator(lambda model, rate: 1.0), "needs 'rate'"),
    ("functional: two", lambda: any_(FunctionalEvaluator)(size, 3), "FunctionalEvaluator takes 1 argument by position"),
    ("functional: coroutine", lambda: FunctionalEvaluator(any_(_coroutine)), "async"),
    ("functional: generator", lambda: FunctionalEvaluator(any_(_generator)), "generator"),
    ("functional: class", lambda: FunctionalEvaluator(any_(FunctionalEvaluator)), "function"),
    ("functional: evaluator", lambda: FunctionalEvaluator(any_(EVALUATE)), "function"),
    (
        "functional: domain class",
        lambda: FunctionalEvaluator(lambda model, rate: 1.0, rate=Real),
        "rate is searched by an instance.*rate=Real",
    ),
    (
        "data: arrays",
        lambda: Classification(any_(X.numpy()), any_(Y.numpy())),
        r"train must be a Dataset.*ndarray of shape \(40, 4\).*TensorDataset",
    ),
    (
        "data: large tensors",
        lambda: Classification(any_(torch.zeros(100, 100)), any_(Y)),
        r"Tensor of shape \(100, 100\).*TensorDataset",
    ),
    ("data: tuple", lambda: Classification(any_((X, Y)), any_((X, Y))), r"Tensor of shape.*TensorDataset"),
    ("data: pair", lambda: Classification(any_((DATA, DATA))), "train must be a Dataset|there must be validation data"),
    (
        "data: list of arrays",
        lambda: Classification(any_([X.numpy(), Y.numpy()]), any_([X.numpy(), Y.numpy()])),
        "TensorDataset",
    ),
    ("data: list of numbers", lambda: Classification(any_([1.0] * 100), DATA), "TensorDataset"),
    ("data: None", lambda: Classification(any_(None), DATA), "train must be a Dataset.*None"),
    ("data: nothing", lambda: any_(Classification)(), "Classification needs 'train'"),
    ("data: str", lambda: Classification(any_("mnist"), DATA), "train must be a Dataset.*'mnist'"),
    ("data: generator", lambda: Classification(any_(i for i in DATA), DATA), "train must be a Dataset.*generator"),
    ("data: iterator", lambda: Classification(any_(iter(DataLoader(DATA))), DATA), "train must be a Dataset"),
    ("data: set", lambda: Classification(any_({1, 2}), DATA), "train must be a Dataset"),
    ("data: class", lambda: Classification(any_(TensorDataset), DATA), "train must be a Dataset.*instance"),
    ("data: needs arguments", lambda: Classification(lambda root: DATA), "without arguments.*'root'"),
    ("data: no validation", lambda: Classification(DATA), "there must be validation data.*folds"),
    ("data: empty", lambda: Classification(TensorDataset(X[:0], Y[:0]), DATA), "train data must not be empty.*0"),
    (
        "data: loader and size",
        lambda: Classification(DataLoader(DATA), DataLoader(DATA), batch_size=8),
        "its own batch size",
    ),
    ("data: loaders swapped", lambda: Classification(DATA, any_(3)), "validation must be a Dataset"),
    (
        "data: positional",
        lambda: any_(Classification)(DATA, DATA, 32),
        "Classification takes 2 arguments by position.*batch_size",
    ),
    (
        "rate: list",
        lambda: Classification(DATA, DATA, learning_rate=any_([0.1, 0.01])),
        r"learning_rate must be a number.*Categorical\(\[0.1, 0.01\]\)",
    ),
    (
        "rate: tuple",
        lambda: Classification(DATA, DATA, learning_rate=any_((0.1, 0.01))),
        r"learning_rate.*Categorical\(\[0.1, 0.01\]\)",
    ),
    (
        "rate: str",
        lambda: Classification(DATA, DATA, learning_rate=any_("1e-3")),
        "learning_rate must be a number.*'1e-3'.*learning_rate=0.001",
    ),
    (
        "rate: negative",
        lambda: Classification(DATA, DATA, learning_rate=-0.1),
        "learning_rate must be a number from 0 on",
    ),
    ("rate: nan", lambda: Classification(DATA, DATA, learning_rate=math.nan), "learning_rate must be a finite number"),
    (
        "rate: class",
        lambda: Classification(DATA, DATA, learning_rate=any_(Real)),
        "instance.*learning_rate=Real",
    ),
    ("rate: None", lambda: Classification(DATA, DATA, learning_rate=any_(None)), "learning_rate must be a number"),
    ("decay: list", lambda: Classification(DATA, DATA, weight_decay=any_([0.1, 0.01])), r"weight_decay.*Categorical\("),
    (
        "optimizer: list",
        lambda: Classification(DATA, DATA, optimizer=any_(["SGD", "Adam"])),
        r"optimizer.*Categorical\(\['SGD', 'Adam'\]\)",
    ),
    (
        "optimizer: classes",
        lambda: Classification(DATA, DATA, optimizer=any_([torch.optim.SGD, torch.optim.Adam])),
        r"optimizer.*\{.*SGD",
    ),
    ("optimizer: name", lambda: Classification(DATA, DATA, optimizer="adam"), "no such optimizer.*'Adam'"),
    (
        "optimizer: instance",
        lambda: Classification(DATA, DATA, optimizer=any_(torch.optim.SGD(Plain().parameters(), lr=0.1))),
        "optimizer.*class of torch.optim",
    ),
    ("optimizer: None", lambda: Classification(DATA, DATA, optimizer=any_(None)), "optimizer must be"),
    (
        "criterion: list",
        lambda: Classification(DATA, DATA, criterion=any_([nn.CrossEntropyLoss(), nn.NLLLoss()])),
        r"criterion.*\{",
    ),
    ("criterion: str", lambda: Classification(DATA, DATA, criterion=any_("cross_entropy")), "criterion must be a loss"),
    (
        "criterion: metric",
        lambda: Classification(DATA, DATA, criterion=nn.Linear),
        "criterion cannot be made without arguments",
    ),
    ("scheduler: list", lambda: Classification(DATA, DATA, scheduler=any_([None, 3])), r"scheduler.*\{"),
    ("scheduler: str", lambda: Classification(DATA, DATA, scheduler=any_("cosine")), "scheduler must be a function"),
    (
        "batch size: list",
        lambda: Classification(DATA, DATA, batch_size=any_([16, 32])),
        r"batch_size.*Categorical\(\[16, 32\]\)",
    ),
    ("batch size: zero", lambda: Classification(DATA, DATA, batch_size=0), "batch_size must be an int from 1 on"),
    ("batch size: bool", lambda: Classification(DATA, DATA, batch_size=True), "batch_size must be an int"),
    ("unknown: lr", lambda: Classification(DATA, DATA, lr=0.1), "'lr'.*did you mean 'learning_rate'"),
    ("unknown: epochs", lambda: Classification(DATA, DATA, epochs=3), "'epochs'.*did you mean 'max_epochs'"),
    ("unknown: bs", lambda: Classification(DATA, DATA, bs=3), "'bs'.*did you mean 'batch_size'"),
    ("unknown: loss", lambda: Classification(DATA, DATA, loss=nn.NLLLoss), "'loss'.*did you mean 'criterion'"),
    ("unknown: wd", lambda: Classification(DATA, DATA, wd=0.1), "'wd'.*did you mean 'weight_decay'"),
    ("unknown: val", lambda: Classification(DATA, val=DATA), "'val'.*did you mean 'validation'"),
    ("unknown: metric", lambda: Classification(DATA, DATA, metric="accuracy"), "'metric'.*did you mean 'metrics'"),
    ("unknown: gpus", lambda: Classification(DATA, DATA, gpus=1), "'gpus'"),
    ("metrics: list", lambda: Classification(DATA, DATA, metrics=any_(["accuracy"])), "metrics must be a dict"),
    ("metrics: str", lambda: Classification(DATA, DATA, metrics=any_("accuracy")), "metrics must be a dict"),
    ("metrics: word", lambda: Classification(DATA, DATA, metrics=any_({"accuracy": "accuracy"})), "metric 'accuracy'"),
    ("folds: one", lambda: Classification(DATA, folds=1), "folds must be an int from 2 on"),
    ("folds: many", lambda: Classification(DATA, folds=41), "41 folds need a dataset"),
    ("folds: both", lambda: Classification(DATA, DATA, folds=4), "takes its validation data from train"),
    ("executions: zero", lambda: Classification(DATA, DATA, executions=0), "executions must be an int from 1 on"),
    ("epochs: list", lambda: Classification(DATA, DATA, max_epochs=[1, 2]), r"max_epochs.*Categorical\(\[1, 2\]\)"),
    ("epochs: str", lambda: Classification(DATA, DATA, max_epochs="3"), "max_epochs.*'3'"),
    ("epochs: float", lambda: Classification(DATA, DATA, max_epochs=2.5), "max_epochs.*2.5"),
    (
        "lightning: instance",
        lambda: LightningEvaluator(any_(Fit(Plain())), DATA, DATA, metric="val_loss"),
        "factory must be a class or function",
    ),
    ("lightning: no metric", lambda: any_(LightningEvaluator)(Fit, DATA, DATA), "LightningEvaluator needs 'metric'"),
    (
        "lightning: metric None",
        lambda: LightningEvaluator(Fit, DATA, DATA, metric=any_(None)),
        "metric must be the name",
    ),
    (
        "lightning: direction",
        lambda: LightningEvaluator(Fit, DATA, DATA, metric="val_loss", direction=any_("min")),
        'direction must be "maximize" or "minimize"',
    ),
    (
        "lightning: unknown",
        lambda: LightningEvaluator(Fit, DATA, DATA, metric="val_loss", lr=0.1),
        "'lr'.*did you mean 'rate'",
    ),
    (
        "lightning: missing",
        lambda: LightningEvaluator(any_(lambda model, width: 3), DATA, DATA, metric="val_loss"),
        "needs width",
    ),
    (
        "lightning: plain module",
        lambda: LightningEvaluator(any_(Plain), DATA, DATA, metric="val_loss"),
        "Plain|called as factory\\(model",
    ),
    ("surrogate: int", lambda: Surrogate(any_(3)), "function of a sample.*3"),
    ("surrogate: seconds", lambda: Surrogate(lambda sample: 1.0, seconds=any_("1")), "seconds must be a number"),
    ("surrogate: unknown", lambda: any_(Surrogate)(lambda sample: 1.0, encoder=3), "'encoder'.*'encode'"),
    ("tabular: int", lambda: Tabular(any_(3)), "table"),
    ("tabular: key", lambda: Tabular({"a": 1.0}, key=any_(3)), "key"),
]

STRATEGIES: list[Case] = [
    ("random: unknown", lambda: any_(Random)(seed=3), "Random has no argument 'seed'"),
    ("random: positional", lambda: any_(Random)(False), "Random takes no arguments by position.*distinct"),
    ("random: distinct", lambda: Random(distinct=any_("yes")), "distinct must be True or False"),
    ("grid: unknown", lambda: any_(GridSearch)(shuffle=True), "GridSearch has no argument 'shuffle'"),
    (
        "evolution: sample size",
        lambda: RegularizedEvolution(population_size=10, sample_size=20),
        "sample_size must be an int from 1 to 10.*20.*sample_size=10",
    ),
    (
        "evolution: population",
        lambda: RegularizedEvolution(population_size=0),
        "population_size must be an int from 1 on",
    ),
    ("evolution: float", lambda: RegularizedEvolution(population_size=any_(10.0)), "population_size must be an int"),
    ("evolution: bool", lambda: RegularizedEvolution(population_size=any_(True)), "population_size must be an int"),
    (
        "evolution: probability",
        lambda: RegularizedEvolution(mutation_probability=1.5),
        "mutation_probability must be a number from 0 to 1",
    ),
    (
        "evolution: word",
        lambda: RegularizedEvolution(remove=any_("olders")),
        'remove must be "oldest" or "worst".*remove="oldest"',
    ),
    (
        "evolution: unknown",
        lambda: any_(RegularizedEvolution)(pop_size=10),
        "'pop_size'.*did you mean 'population_size'",
    ),
    ("evolution: crossover", lambda: RegularizedEvolution(crossover=any_(1)), "crossover must be True or False"),
    ("tpe: unknown", lambda: any_(TPE)(n_startup_trials=3), "TPE has no argument 'n_startup_trials'"),
    ("gp: unknown", lambda: any_(GaussianProcess)(n_initial=3), "GaussianProcess has no argument 'n_initial'"),
    ("gp: initial", lambda: GaussianProcess(initial=any_("3")), "initial must be an int"),
    ("bananas: unknown", lambda: any_(BANANAS)(ensembles=3), "BANANAS has no argument 'ensembles'"),
    ("ppo: unknown", lambda: any_(PPO)(lr=3), "PPO has no argument 'lr'.*'learning_rate'"),
    ("anneal: unknown", lambda: any_(Anneal)(temp=3), "Anneal has no argument 'temp'"),
    ("local: unknown", lambda: any_(LocalSearch)(starts=3), "LocalSearch has no argument 'starts'"),
    ("optuna: class", lambda: OptunaStrategy(any_(optuna.samplers.TPESampler)), r"OptunaStrategy.*TPESampler\(\)"),
    ("optuna: None", lambda: OptunaStrategy(any_(None)), "must be an Optuna sampler"),
    ("optuna: strategy", lambda: OptunaStrategy(any_(Random())), "must be an Optuna sampler"),
    ("optuna: nothing", lambda: any_(OptunaStrategy)(), "OptunaStrategy needs 'sampler'"),
    ("chain: empty", lambda: any_(Chain)(), "Chain|stage|strateg"),
    ("chain: strategies", lambda: any_(Chain)(Random(), TPE()), "Chain"),
    ("darts: unknown", lambda: any_(DARTS)(lr=0.1), "DARTS has no argument 'lr'.*'learning_rate'"),
    ("darts: max_epochs", lambda: any_(DARTS)(max_epochs=3), "'max_epochs'.*did you mean 'epochs'"),
    ("darts: epochs", lambda: DARTS(epochs=0), "epochs must be an int from 1 on"),
    ("darts: unrolled", lambda: DARTS(unrolled=any_("yes")), "unrolled must be True or False"),
    ("darts: betas", lambda: DARTS(betas=any_(0.9)), "betas must be a pair"),
    ("darts: rate", lambda: DARTS(learning_rate=any_([0.1])), "learning_rate must be a number"),
    ("gumbel: temperature", lambda: GumbelDARTS(temperature=any_(5)), "temperature must be a pair"),
    ("enas: unknown", lambda: any_(ENAS)(controler=3), "ENAS has no argument 'controler'"),
    (
        "paths: unknown",
        lambda: any_(RandomOneShot)(n_candidates=3),
        "RandomOneShot has no argument 'n_candidates'.*'candidates'",
    ),
    ("median: float", lambda: nas.MedianStop(any_(1.5)), "MedianStop: warmup_trials must be an int"),
    (
        "median: unknown",
        lambda: any_(nas.MedianStop)(n_startup_trials=3),
        "MedianStop has no argument.*'warmup_trials'",
    ),
    ("hyperband: missing", lambda: any_(nas.Hyperband)(), "Hyperband needs 'max_resource'"),
    ("hyperband: unknown", lambda: any_(nas.Hyperband)(max_t=81), "Hyperband has no argument 'max_t'.*'max_resource'"),
    (
        "hyperband: small",
        lambda: nas.Hyperband(min_resource=3, max_resource=1),
        "max_resource must be an int from 3 on",
    ),
    ("halving: factor", lambda: nas.SuccessiveHalving(reduction_factor=1), "reduction_factor must be an int from 2 on"),
    ("patience: negative", lambda: nas.Patience(patience=-1), "patience must be an int from 1 on"),
    ("patience: missing", lambda: any_(nas.Patience)(), "Patience needs 'patience'"),
    ("process: zero", lambda: nas.ProcessExecutor(workers=0), "ProcessExecutor: workers must be an int from 1 on"),
    ("process: unknown", lambda: any_(nas.ProcessExecutor)(n_gpus=1), "'n_gpus'.*'gpus_per_trial'"),
    ("process: gpus", lambda: nas.ProcessExecutor(gpus_per_trial=1.5), "whole number, or a fraction"),
    ("inline: unknown", lambda: any_(nas.InlineExecutor)(workers=2), "InlineExecutor has no argument 'workers'"),
    ("futures: int", lambda: nas.FuturesExecutor(any_(3)), "FuturesExecutor|pool|executor"),
    ("ray: unknown", lambda: any_(nas.RayExecutor)(adress="auto"), "'adress'.*'address'"),
]

OTHERS: list[Case] = [
    ("profile: class", lambda: profile(any_(Plain), (1, 2)), "profile needs a module"),
    ("profile: nothing", lambda: any_(profile)(Plain()), "profile needs 'example_input'"),
    ("profile: unknown", lambda: any_(profile)(Plain(), input_size=(1, 2)), "'input_size'"),
    ("profile: input", lambda: profile(Plain(), any_("x")), "example"),
    ("profile: None", lambda: profile(Plain(), any_(None)), "example"),
    ("profile: wrong shape", lambda: profile(Plain(), (1, 3)), r"Plain|layer"),
    (
        "profile: sample of a module",
        lambda: profile(any_(Plain()), (1, 2), sample={"a": 1}),
        "a sample belongs to a ModelSpace",
    ),
    ("latency: class", lambda: latency(any_(Plain), (1, 2)), "latency needs an nn.Module"),
    ("latency: unknown", lambda: any_(latency)(Plain(), (1, 2), dev="cpu"), "latency has no argument 'dev'.*'backend'"),
    (
        "onnx: class",
        lambda: to_onnx(any_(Plain), torch.zeros(1, 2), "/nowhere/x.onnx"),
        "model must be a torch.nn.Module",
    ),
    ("onnx: no input", lambda: to_onnx(Plain(), None, "/nowhere/x.onnx"), "example"),
    ("onnx: no path", lambda: any_(to_onnx)(Plain(), torch.zeros(1, 2)), "to_onnx needs 'path'"),
    ("onnx: path", lambda: to_onnx(Plain(), torch.zeros(1, 2), any_(3)), "path must be the path of a file"),
    (
        "onnx: unknown",
        lambda: any_(to_onnx)(Plain(), torch.zeros(1, 2), "x", opset_version=18),
        "'opset_version'.*'opset'",
    ),
    ("code: module", lambda: to_code(any_(Plain()), {}, "/nowhere/x.py"), "ModelSpace"),
    ("code: sample", lambda: to_code(ModelSpace(Net), any_(None), "/nowhere/x.py"), "sample must be a dict"),
    (
        "code: unknown",
        lambda: any_(to_code)(ModelSpace(Net), {"width": 2}, "/nowhere/x.py", weight=3),
        "'weight'.*'weights'",
    ),
    ("zoo: name", lambda: nas.model_zoo.space("lnet"), "unknown model space.*did you mean 'lenet'"),
    ("zoo: None", lambda: nas.model_zoo.space(any_(None)), "unknown model space"),
    ("zoo: argument", lambda: nas.model_zoo.space("lenet", num_classes=3), "'classes'"),
    ("zoo: kind", lambda: nas.model_zoo.space("lenet", classes="10"), "classes must be an int"),
    ("zoo: model", lambda: nas.model_zoo.model("darts"), "unknown model.*'darts_v1'|'darts_v2'"),
    ("zoo: dataset", lambda: nas.model_zoo.model("darts_v2", dataset=any_("mnist")), "mnist"),
    ("draw: int", lambda: nas.draw(any_(3)), "draw"),
    ("weighted: zero", lambda: nas.objectives.weighted_product(0.9, 1.0, 0), "target must be a number above 0"),
    ("weighted: str", lambda: nas.objectives.weighted_product(0.9, any_("1"), 1), "latency must be"),
    ("pruners: optuna", lambda: nas.Hyperband(max_resource=any_("81")), "max_resource must be an int"),
]


async def _coroutine(model: nn.Module) -> float:
    return 1.0


def _generator(model: nn.Module) -> Any:
    yield 1.0


def refused(make: Callable[[], object], words: str) -> None:
    """One of our errors, with all that it has to say, in a few lines."""
    with pytest.raises(NasError) as caught:
        make()
    message = " ".join(str(caught.value).split())
    assert re.search(words, message), message
    assert "eceived" in message, message
    assert "To mend: " in message, message
    assert len(message) < 1000, message


def cases(*tables: list[tuple[str, Any, str]]) -> Any:
    """Each case as a test of its own."""
    return [pytest.param(make, words, id=name) for table in tables for name, make, words in table]


@pytest.mark.parametrize(("make", "words"), cases(CHOICES, SPACES, EVALUATORS, STRATEGIES, OTHERS))
def test_what_makes_no_sense_is_refused_in_words(make: Callable[[], object], words: str) -> None:
    refused(make, words)


@pytest.mark.parametrize(("make", "words"), cases(EXPERIMENTS))
def test_an_experiment_that_cannot_be_leaves_nothing_and_its_name_free(make: Kept, words: str, tmp_path: Path) -> None:
    refused(lambda: make(tmp_path), words)
    assert list(tmp_path.rglob("*")) == []
    assert experiment(tmp_path).trials == []


@pytest.mark.parametrize(("make", "words"), cases(METHODS))
def test_a_call_of_an_experiment_that_makes_no_sense_records_no_trial(make: Kept, words: str, tmp_path: Path) -> None:
    refused(lambda: make(tmp_path), words)
    assert experiment(tmp_path).trials == []


def test_what_was_refused_runs_under_its_name_once_it_is_mended(tmp_path: Path) -> None:
    refused(lambda: classify(tmp_path, TensorDataset(X, Y.float()), DATA), "numbers of classes")
    mended = classify(tmp_path, DATA, DATA)
    mended.run(1, progress="silent")
    assert [trial.number for trial in mended.trials] == [0]
    assert mended.best_trial.value is not None


def test_classes_of_the_other_lightning_are_refused_before_a_trial(tmp_path: Path) -> None:
    other = pytest.importorskip("lightning.pytorch")

    class Data(other.LightningDataModule):  # type: ignore[misc,name-defined]  # it is imported late
        def train_dataloader(self) -> Any:
            return DataLoader(DATA)

        def val_dataloader(self) -> Any:
            return DataLoader(DATA)

    for factory in (Fit, lambda model: Fit(model)):
        words = "the classes of one package.*(Data|Fit).*import both from the same package"
        refused(lambda f=factory: experiment(tmp_path, Net, LightningEvaluator(f, Data(), metric="val_loss")), words)
    refused(lambda: classify_with(tmp_path, Data(), other.Callback(), pytorch_lightning.Callback()), "one package")
    assert list(tmp_path.rglob("*")) == []


def classify_with(tmp_path: Path, data: Any, *callbacks: Any) -> Any:
    return experiment(tmp_path, Net, Classification(data, callbacks=list(callbacks)))


def test_what_can_only_be_done_elsewhere_can_be_looked_at_here(tmp_path: Path) -> None:
    """Where there is an experiment already, its results are there even where it could not be run."""
    done = classify(tmp_path, DATA, DATA)
    done.run(1, progress="silent")
    again = classify(tmp_path, DATA, DATA, accelerator="tpu", resume=True)
    assert again.trials == done.trials
    refused(lambda: again.run(2, progress="silent"), "Trainer refuses its arguments")
    assert len(experiment(tmp_path, Net, Classification(DATA, DATA, max_epochs=1), resume=True).trials) == 1


def test_the_question_changes_no_setting_and_no_random_number(tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    classify(tmp_path, DATA, DATA, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled() is before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


GOOD: dict[str, Callable[[Path], object]] = {
    "numpy numbers": lambda p: experiment(p, seed=numpy.int64(1), repeats=numpy.int8(1)).run(numpy.int64(1)),
    "numpy candidates": lambda p: space(lambda: nn.Linear(1, ValueChoice(list(numpy.arange(1, 3)), label="w"))),
    "ignored targets": lambda p: classify(p, TensorDataset(X, torch.where(Y == 0, -100, Y)), DATA),
    "soft targets": lambda p: classify(p, *[TensorDataset(X, nn.functional.one_hot(Y, 3).float())] * 2),
    "more outputs than classes": lambda p: classify(p, DATA, DATA, model=ModelSpace(Net, 7)),
    "outputs by choice": lambda p: classify(
        p, DATA, DATA, model=lambda: nn.Linear(4, ValueChoice([2, 3, 5], label="n"))
    ),
    "a list of pairs": lambda p: classify(p, [(x, int(y)) for x, y in DATA], DATA),
    "a model that needs numbers": lambda p: classify(p, DATA, DATA, model=NeedsNumbers),
    "evolution of few": lambda p: RegularizedEvolution(population_size=10),
    "a generator of mutators": lambda p: ModelSpace(Plain(), mutators=(Widen() for _ in range(1))),
}


class ByChoice(nn.Linear):
    """Has too few outputs by default, and enough in other architectures."""

    def __init__(self) -> None:
        super().__init__(4, ValueChoice([2, 3, 5], label="outputs"))


class NeedsNumbers(nn.Module):
    """Cannot be called without numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(4, ValueChoice([3, 4], label="width"))

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x) * float(x.sum().item() >= 0)


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_what_makes_sense_is_not_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path)


MADE_BY_US = {
    *(
        "Architecture",
        "BackgroundRun",
        "Compared",
        "Cost",
        "CostConstraint",
        "Bounds",
        "Inputs",
        "Moment",
        "Report",
        "TrustReport",
    ),
    *("ForwardPass", "Lookalike", "ModelProfile", "ModuleProfile", "ModuleRun", "OnnxReport", "PredictionError"),
    *("Elastic", "Subject", "TensorSpec", "TrialState"),
}
"""What users are handed, and do not make."""

PARTS = {
    *("Concentrations", "GumbelMixer", "Logits", "PathLearner", "PathSupernet", "RandomStream", "RelaxedLearner"),
    *(
        "RelaxedSupernet",
        "Simplex",
        "SoftmaxMixer",
        "SumMixer",
        "SupervisedModule",
        "TwoPathMixer",
        "all_of",
        "as_numbers",
    ),
    "fresh",
    *("build_on_meta", "compile_whole", "frozen", "interruptible", "largest_eigenvalue", "logged", "meta_copy"),
    *("meta_example", "optimise", "real_example", "register_slicer", "run_first", "sample_subject", "silence"),
    *("silenced", "soft_cross_entropy", "softmax", "subject_of", "tensors_of", "weighted_sum", "Passage", "Skip"),
    *("ThinAttention",),
}
"""Parts for those who write algorithms of their own; some run in each step, and a compiler looks into them."""


def is_protocol(kind: type) -> bool:
    return Protocol in kind.__bases__


def public() -> list[Any]:
    """The functions and classes that users call."""
    doors = ("strategies", "evaluators", "oneshot", "profile", "export", "compress", "model_zoo", "objectives")
    found = []
    for door in (nas, *(import_module(f"nas.{name}") for name in doors)):
        for name in door.__all__:
            thing = getattr(door, name)
            made = isinstance(thing, type) and (
                issubclass(thing, BaseException)
                or inspect.isabstract(thing)
                or is_typeddict(thing)
                or is_protocol(thing)
            )
            ours = callable(thing) and str(getattr(thing, "__module__", "")).startswith("nas")
            if ours and not made and name not in MADE_BY_US | PARTS:
                found.append(pytest.param(thing, id=f"{door.__name__}.{name}"))
    return found


@pytest.mark.parametrize("thing", public())
def test_an_argument_that_is_not_there_is_refused_by_all_that_users_call(thing: Any) -> None:
    with pytest.raises(NasError, match="no_such_argument|needs '"):
        thing(no_such_argument=1)


def test_a_decorated_class_says_which_of_its_arguments_is_meant() -> None:
    refused(lambda: any_(Net)(clases=3), "Net has no argument 'clases'; did you mean 'classes'")
