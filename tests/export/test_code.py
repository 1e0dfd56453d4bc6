"""Architectures written as Python files."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from nas import ModelSpace, Mutator, NasError, NasTypeError, Real, ValueChoice
from nas.export.code import to_code


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


def test_arguments_mutators_and_hyperparameters_are_written(tmp_path: Path) -> None:
    space = ModelSpace(Chain, 5, mutators=[Widen(4)], bias=False, sizes=(2, 3)).with_hyperparameters(
        {"rate": Real(0, 1)}
    )
    sample = {"width": 3, "extra": 2, "rate": 0.5}
    path = to_code(space, sample, tmp_path / "new" / "folder" / "best.py")
    assert "HYPERPARAMETERS = {'rate': 0.5}" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["best.py"]
    assert run(path).strip() == str(space.build(sample))


def test_nested_classes_can_be_imported(tmp_path: Path) -> None:
    assert "out_features=7" in run(to_code(ModelSpace(Outer.Inner), {"n": 7}, tmp_path / "inner.py"))


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


def test_a_wrong_sample_is_refused_and_nothing_written(tmp_path: Path) -> None:
    for wrong in ({"width": 9}, {"width": 2, "rate": 0.5}, {}):
        with pytest.raises(NasError, match="width|rate"):
            to_code(ModelSpace(Chain, 1), wrong, tmp_path / "a.py")
    assert list(tmp_path.iterdir()) == []
