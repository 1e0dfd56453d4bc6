"""Architectures written as Python files."""

import contextlib
import functools
import importlib.util
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas import (
    Experiment,
    ExperimentError,
    ModelSpace,
    Mutator,
    NasError,
    NasTypeError,
    Real,
    ValueChoice,
    search_space,
)
from nas.evaluators import FunctionalEvaluator
from nas.export.code import to_code
from nas.export.code_check import run_file
from nas.strategies import Random


class Chain(nn.Sequential):
    def __init__(self, outputs: int, *, bias: bool = True, sizes: tuple[int, ...] = (2, 3)) -> None:
        width = ValueChoice(sizes, label="width")
        super().__init__(nn.Linear(4, width), nn.Linear(width, outputs, bias=bias))


class Widen(Mutator):
    def __init__(self, by: int) -> None:
        self.by = by

    def mutate(self, model: nn.Module) -> None:
        model.add_module("extra", nn.Linear(self.by, ValueChoice([1, 2], label="extra")))


class Outer:
    class Inner(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(1, ValueChoice([6, 7], label="n")))


def run(path: Path) -> str:
    # The test's own module must be found by its name.
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_arguments_mutators_and_hyperparameters_are_written(tmp_path: Path) -> None:
    space = ModelSpace(Chain, 5, mutators=[Widen(4)], bias=False, sizes=(2, 3)).with_hyperparameters(
        {"rate": Real(0, 1)}
    )
    sample = {"width": 3, "extra": 2, "rate": 0.5}
    path = to_code(space, sample, tmp_path / "new" / "folder" / "best.py")
    assert "HYPERPARAMETERS = {'rate': 0.5}" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["best.py"]
    assert run(path).strip() == str(space.build(sample))


@pytest.mark.slow
def test_nested_classes_can_be_imported(tmp_path: Path) -> None:
    assert "out_features=7" in run(to_code(ModelSpace(Outer.Inner), {"n": 7}, tmp_path / "inner.py"))


@pytest.mark.slow
def test_the_evaluators_labels_may_be_unknown_to_the_space(tmp_path: Path) -> None:
    path = to_code(ModelSpace(Chain, 1), {"width": 2, "rate": 0.5}, tmp_path / "a.py", hyperparameters={"rate"})
    assert "SAMPLE = {'width': 2}" in path.read_text()
    assert "HYPERPARAMETERS = {'rate': 0.5}" in path.read_text()


def local() -> type[nn.Module]:
    class Local(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(1, ValueChoice([2, 3], label="width")))

    return Local


class Plain(Mutator):
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def mutate(self, model: nn.Module) -> None:
        ValueChoice([2, 3], label="width")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (ModelSpace(lambda: nn.Linear(1, ValueChoice([2, 3], label="width"))), "source can be imported.*lambda"),
        (ModelSpace(local()), "source can be imported.*Local"),
        (ModelSpace(nn.Linear(1, 1), mutators=[Plain(nn.ReLU())]), "source can be imported"),
        (ModelSpace(nn.Linear, 1, 1, mutators=[Plain(nn.ReLU())]), "literal arguments.*ReLU"),
    ],
)
def test_what_no_file_can_say_is_refused_and_nothing_written(tmp_path: Path, space: ModelSpace, message: str) -> None:
    with pytest.raises(NasTypeError, match=message):
        to_code(space, {"width": 2}, tmp_path / "a.py")
    assert list(tmp_path.iterdir()) == []


PARTS = """
from torch import nn

class Block(nn.Sequential):
    pass
"""
SCRIPT = """
import enum, functools
import parts_of_test
from pathlib import Path
import numpy as np
import torch
from torch import nn
from nas import LayerChoice, Mutator, ValueChoice, model_space

class Kind(enum.Enum):
    SMALL = "small"

def activation(name):
    return getattr(nn, name)()

class Shapes:
    @model_space
    class Net(nn.Module):
        def __init__(self, sizes, *, kind=None, linear=nn.Linear, where=Path("."), **more):
            super().__init__()
            self.kind, self.where, self.more = kind, where, more
            width = ValueChoice([2, 3], label="it's \\"the\\" width")
            self.layers = parts_of_test.Block(linear(int(sizes.sum()), width), activation("GELU"), nn.LazyLinear(1))
            self.register_buffer("constant", torch.arange(3.0) * sizes.mean(), persistent=False)

        def forward(self, x):
            return self.layers(x)

class Widen(Mutator):
    def __init__(self, by, /, *, name="extra"):
        self.twice, self.title, self.seen = 2 * by, name, []

    def mutate(self, model):
        model.add_module(self.title, nn.Linear(self.twice, ValueChoice([1, 2], label="extra")))

def build():
    return Shapes.Net(np.ones(2))

def arguments():
    linear = functools.partial(nn.Linear, bias=False)
    return {"kind": Kind.SMALL, "linear": linear, "where": Path("here"), "a-b": float("inf")}

def reads():
    return nn.Linear(int(Path("width.txt").read_text()), ValueChoice([2, 3], label="width"))

class Settings:
    factor = 1

    def __init__(self):
        self.act = torch.relu

SETTINGS = Settings()

def act(x):
    return SETTINGS.act(x)

class Edited(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, ValueChoice([2, 3], label="width"))

    def forward(self, x):
        return act(self.layer(x))

class Changing(nn.Sequential):
    width = 4
    def __init__(self):
        super().__init__(nn.Linear(self.width, ValueChoice([2, 3], label="width")))

raise SystemExit("the experiment starts")
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Any]:
    """A module that no other process can import, and that would start something."""
    modules = []
    for name, text in (("parts_of_test", PARTS), ("my-search", SCRIPT)):
        file = tmp_path / "project" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        modules.append(module)
        with contextlib.suppress(SystemExit):
            spec.loader.exec_module(module)
    yield modules[-1]
    for module in modules:
        del sys.modules[module.__name__]


@pytest.mark.slow
def test_a_script_and_its_objects_move_into_the_file(tmp_path: Path, script: Any) -> None:
    sizes = script.np.array([1.0, 2.0])
    space = ModelSpace(
        script.Shapes.Net(sizes, **script.arguments()), mutators=[script.Widen(1), script.Widen(2, name="other")]
    )
    sample = {'it\'s "the" width': 3, "extra": 2}
    path = to_code(space, sample, tmp_path / "written" / "best.py")
    text = path.read_text()
    assert str(tmp_path) not in text
    assert "the experiment" not in text
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(tmp_path / "project")
    moved = Path(shutil.move(path, tmp_path / "elsewhere" / "moved.py"))
    assert "(other): Linear(in_features=4, out_features=2, bias=True)" in run(moved)


@pytest.mark.slow
def test_weights_go_along(tmp_path: Path, script: Any) -> None:
    space = ModelSpace(script.build)
    model = space.build({'it\'s "the" width': 3}).double()
    model(torch.randn(2, 2).double())
    model.constant.add_(0.5)  # type: ignore[operator,union-attr]  # a buffer that its state dict leaves out
    path = to_code(space, {'it\'s "the" width': 3}, tmp_path / "out" / "best.py", weights=model)
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.pt", "best.py"]
    # The function of the script is called `build`, as that of the file is.
    again = runpy.run_path(str(path))["build"]()
    x = torch.randn(3, 2).double()
    assert torch.equal(again(x), model.eval()(x))
    assert torch.equal(again.constant, model.constant)
    assert not again.training


@pytest.mark.slow
def test_what_builds_another_module_elsewhere_is_refused_and_the_file_of_before_stays(
    tmp_path: Path, script: Any
) -> None:
    script.Changing.width = 7
    (tmp_path / "a.py").write_text("of before")
    with pytest.raises(
        ExperimentError, match=r"builds another module: '0.weight' is .*\[2, 4\]\] in place of .*\[2, 7\]"
    ):
        to_code(ModelSpace(script.Changing), {"width": 2}, tmp_path / "a.py")
    assert (tmp_path / "a.py").read_text() == "of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.py", "project"]


@pytest.mark.slow
def test_what_was_edited_or_set_since_is_refused(tmp_path: Path, script: Any) -> None:
    file = Path(script.__file__)
    edited = SCRIPT.replace("act(self.layer(x))", "-act(self.layer(x))")
    script.SETTINGS.act = torch.tanh
    with pytest.raises(ExperimentError, match="global SETTINGS of act is Settings .*act: .*relu.* in place of .*tanh"):
        to_code(ModelSpace(script.Edited), {"width": 2}, tmp_path / "a.py")
    script.SETTINGS.act = torch.relu
    file.write_text(edited)
    with pytest.raises(
        ExperimentError, match="the code of Edited.forward is another one in this process: the source was edited since"
    ):
        to_code(ModelSpace(script.Edited), {"width": 2}, tmp_path / "a.py")
    assert not (tmp_path / "a.py").exists()


@pytest.mark.slow
def test_what_fails_elsewhere_is_refused_with_the_reason(
    tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "width.txt").write_text("3")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match=r"failed there: FileNotFoundError: .*width\.txt"):
        to_code(ModelSpace(script.reads), {"width": 2}, "a.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project", "width.txt"]


def test_a_space_without_choices_has_hyperparameters_alone(tmp_path: Path) -> None:
    experiment = Experiment(
        functools.partial(nn.Linear, 3, out_features=2),
        FunctionalEvaluator(lambda model, rate: rate, rate=Real(0, 1)),
        Random(),
        name="plain",
        directory=tmp_path,
    )
    experiment.run(1, progress="silent")
    (path,) = experiment.export_top_models(1, "code")
    assert f"HYPERPARAMETERS = {{'rate': {experiment.best_trial.sample['rate']!r}}}" in path.read_text()
    with pytest.raises(NasTypeError, match="code is written for spaces of modules"):
        to_code(search_space({"a": [1, 2]}), {"a": 1}, tmp_path / "a.py")


def test_a_wrong_sample_is_refused_and_nothing_written(tmp_path: Path) -> None:
    for wrong in ({"width": 9}, {"width": 2, "rate": 0.5}, {}):
        with pytest.raises(NasError, match="width|rate"):
            to_code(ModelSpace(Chain, 1), wrong, tmp_path / "a.py")
    assert list(tmp_path.iterdir()) == []


FACTS = ["[" * 5000, '{"tensors": {}, "sums": {"a": [null]}, "modules": {}}']


@pytest.mark.parametrize("facts", FACTS)
def test_what_a_file_writes_in_the_place_of_facts_is_refused(tmp_path: Path, facts: str) -> None:
    """The file that is run may do anything in its process, and end it."""
    path = tmp_path / "net.py"
    path.write_text(f"import os, sys\nopen(sys.argv[2], 'w').write({facts!r})\nos._exit(0)\n")
    with pytest.raises(ExperimentError, match=r"wrote no (facts|sums).*net\.py"):
        run_file(path)
