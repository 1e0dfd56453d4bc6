"""Digests of a user's code: whatever it is made of, and wherever libraries are installed."""

import functools
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.records.fingerprint import changed_code, fingerprint

SCRIPT = """
    import torch
    from torch import nn
    from nas.records.fingerprint import fingerprint
    from other import helper

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(2, 2)

    def train(model):
        helper()
        return torch.softmax(torch.ones(2), 0), torch.nn.functional.relu(torch.ones(1))

    print(sorted(name for name in fingerprint(Net, train) if name != "Python"))
"""


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


class Raises:
    """An object that cannot be looked at."""

    @property
    def __dict__(self) -> Any:
        raise RuntimeError("no")

    def __call__(self, model: object) -> float:
        return 1.0


@pytest.mark.parametrize(
    "strange",
    [
        wrapped(math.sqrt),
        wrapped(torch.relu),
        wrapped(str.upper),
        wrapped(torch.Tensor.add),
        math.sqrt,
        str.upper,
        torch.Tensor.add,
        torch.Tensor.shape,
        torch.ops.aten.add,
        functools.partial(wrapped(len)),
        Raises(),
        torch.jit.script,
        property(len),
        (line for line in "ab"),
        type("Odd", (), {"__module__": 3}),
        type("Odd", (), {"__module__": 3})(),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_nothing_that_a_user_gives_makes_it_fail(strange: Any) -> None:
    def train(model: object) -> object:
        return strange

    assert fingerprint(strange, train)["train"]


def test_a_wrapper_around_a_builtin_counts_by_its_own_code() -> None:
    def other(function: Any) -> Any:
        @functools.wraps(function)
        def inner(*args: Any) -> Any:
            return 2 * function(*args)

        return inner

    assert changed_code(fingerprint(wrapped(math.sqrt)), fingerprint(wrapped(math.sqrt))) == []
    assert changed_code(fingerprint(wrapped(math.sqrt)), fingerprint(other(math.sqrt)))


@pytest.mark.parametrize("where", [pytest.param("site", marks=pytest.mark.slow), "target"])
def test_libraries_of_any_site_directory_are_no_code_of_the_users(where: str, tmp_path: Path) -> None:
    """A second site-packages, and a folder on PYTHONPATH that an installer has filled."""
    folder = tmp_path / ("second/site-packages" if where == "site" else "libraries")
    (folder / "library").mkdir(parents=True)
    (folder / "library/__init__.py").write_text("def work():\n    return 1\n")
    if where == "target":
        (folder / "library-1.0.dist-info").mkdir()
    project = tmp_path / "project"
    project.mkdir()
    (project / "other.py").write_text("from library import work\n\ndef helper():\n    return work()\n")
    (project / "script.py").write_text(textwrap.dedent(SCRIPT))
    path = f"{folder}:{Path(__file__).parents[2]}"
    run = subprocess.run(
        [sys.executable, "script.py"],
        cwd=project,
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "['Net.__init__', 'helper', 'train']", run.stderr


STATE = """
    import functools

    CONSTANT = [1, 2]
    APPENDED, ASSIGNED, INNER, COUNT, BY_ANOTHER, IN_A_METHOD, CACHED, CLOSED = [], {}, {0: []}, 0, {}, [], {}, []

    def train(model):
        global COUNT
        APPENDED.append(1)
        ASSIGNED["a"] = model
        INNER[0].append(1)
        COUNT += 1

        def inside():
            CLOSED.extend([1])

        inside()
        return CONSTANT, BY_ANOTHER, IN_A_METHOD, CACHED

    def note():
        BY_ANOTHER.update(a=1)

    class Watcher:
        @staticmethod
        def on_end():
            IN_A_METHOD.append(1)

    @functools.cache
    def load():
        CACHED["data"] = 1
"""


def test_what_the_code_counts_or_keeps_is_no_part_of_it() -> None:
    """Else a search could not be gone on with by the process, or the notebook, that began it."""
    made: dict[str, Any] = {"__name__": "mine"}
    exec(compile(textwrap.dedent(STATE), "/mine.py", "exec"), made)
    before = fingerprint(made["train"])
    made["train"](1)
    made["note"]()
    made["Watcher"]().on_end()
    made["load"]()
    assert changed_code(before, fingerprint(made["train"])) == []
    made["CONSTANT"].append(3)
    assert changed_code(before, fingerprint(made["train"])) == ["code of train: changed"]
