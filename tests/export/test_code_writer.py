"""Objects as expressions: read again in a file of their own, they are the same."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import functools
import importlib
import importlib.util
import math
import operator
import pathlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from torch import nn

from nas import Mutator, NasTypeError
from nas.export.code_writer import Writer, arguments_of


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    names: tuple[str, ...] = ()


@dataclasses.dataclass(slots=True)
class Slotted:
    width: int


class Pair(NamedTuple):
    left: int
    right: Any


class Widen(Mutator):
    """Its attributes are no arguments of its constructor."""

    def __init__(self, by: int, /, *, name: str = "extra") -> None:
        self.twice, self.title = 2 * by, name

    def mutate(self, model: nn.Module) -> None: ...

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    @classmethod
    def small(cls) -> Widen:
        return cls(1)


class Ways(dict[str, int]):
    """A dict with more to it."""


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


@wrapped
def decorated(x: int) -> int:
    return x


def written(value: Any) -> Any:
    writer = Writer({})
    text = writer.expression(value)
    return read(writer, text)


def read(writer: Writer, text: str) -> Any:
    names: dict[str, Any] = {"__name__": "a_file_of_its_own"}
    exec("\n".join([writer.future, *writer.imports, writer.definitions]), names)
    return eval(text, names)


VALUES: list[Any] = [
    None,
    ...,
    True,
    -3,
    'it\'s "quoted"\n',
    b"\x00'",
    1e300,
    math.inf,
    -math.inf,
    2 - 3j,
    (),
    (1,),
    [1, (2.5, [])],
    {},
    {"a-b": {1: None}},
    set(),
    {1, 2},
    frozenset({3}),
    frozenset(),
    range(0, 9, 2),
    slice(1, None),
    Color.RED,
    [Color("b"), Level.LOW | Level.HIGH],
    Config(width=3, names=("a",)),
    Slotted(4),
    Pair(1, Config(width=2)),
    Widen(3, name="other"),
    Ways({"a": 1}),
    collections.OrderedDict(b=1, a=2),
    collections.defaultdict(list, {"a": [1]}),
    datetime.timedelta(seconds=3),
    pathlib.Path("a/b c"),
    pathlib.PurePosixPath("/a"),
    nn.ReLU,
    torch.relu,
    nn.functional.gelu,
    math.sqrt,
    operator.add,
    decorated,
    Color,
    int,
    torch.float16,
    torch.channels_last,
    torch.device("cpu"),
    torch.Size([2, 3]),
    numpy.float32(0.5),
    numpy.int64(3),
    numpy.bool_(True),
    numpy.float64(math.inf),
    numpy.dtype("int8"),
    Widen.small,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda thing: type(thing).__name__)
def test_an_object_is_the_same_when_it_is_read_again(value: Any) -> None:
    again = written(value)
    assert type(again) is type(value)
    assert again == value


def test_arrays_and_partials_and_nan() -> None:
    for array in (
        numpy.zeros((2, 0)),
        numpy.array(3.5),
        numpy.array([[1, -2]], dtype="int16"),
        numpy.array([math.nan]),
    ):
        numpy.testing.assert_array_equal(written(array), array, strict=True)
    for tensor in (torch.tensor(2.0), torch.tensor([[1, 2]]), torch.tensor([0.1, math.inf]).bfloat16()):
        again = written(tensor)
        assert again.dtype == tensor.dtype
        assert torch.equal(again, tensor)
    made = written(functools.partial(nn.Linear, 3, out_features=2, bias=False))()
    assert str(made) == "Linear(in_features=3, out_features=2, bias=False)"
    assert math.isnan(written(math.nan))
    assert written(Widen(3)).twice == 6


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


CANNOT: dict[str, Any] = {
    "a lambda": lambda: 1,
    "a lambda deep inside": {"a": [lambda: 1]},
    "a function of a function": wrapped(len),
    "a module": nn.ReLU(),
    "a large tensor": torch.zeros(2000),
    "a parameter": nn.Parameter(torch.zeros(2)),
    "a large array": numpy.zeros(2000),
    "an array of objects": numpy.array([None]),
    "a lock": threading.Lock(),
    "a generator": (i for i in range(3)),
    "a file": sys.stdout,
    "what holds itself": endless(),
}


@pytest.mark.parametrize("value", CANNOT.values(), ids=CANNOT)
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(NasTypeError, match="literal arguments"):
        Writer({}).expression(value)


def test_keywords_may_be_any_text() -> None:
    text = arguments_of(["1"], {"a": "2", "class": "3", "b-c": "4"})
    assert eval(f"(lambda *args, **named: (args, named))({text})") == ((1,), {"a": 2, "class": 3, "b-c": 4})
    assert arguments_of(["x" * 90], {}).count("\n") == 2


def test_names_do_not_collide() -> None:
    class Path(nn.Module): ...

    this = sys.modules[__name__]
    this.Path, before = Path, this.Path  # type: ignore[attr-defined,misc]  # put back below
    Path.__qualname__ = "Path"
    try:
        writer = Writer({})
        assert writer.expression([pathlib.Path("a"), Path]) == "[Path('a'), Path_2]"
    finally:
        this.Path = before  # type: ignore[attr-defined,misc]


# Modules that no fresh process can import.


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Any]:
    loaded: list[str] = []

    def made(name: str, text: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield made
    for name in loaded:
        del sys.modules[name]


LAYERS = """
import math
from math import pi, tau as turn
EVEN = [2, 4]
ODD = [1, 3]
class Scale:
    by = pi
class Unused:
    wrong = 1 / 1
"""
SCRIPT = """
import functools as tools
import layers_of_test
from layers_of_test import Scale as Scaled, EVEN
SIZE = 3
SIZE += 1
OPS = {"a": lambda x: x * SIZE, "b": Scaled}
try:
    import nowhere
except ImportError:
    nowhere = None
def again(n): return n and again(n - 1)
def first(x): return second(x) if x else SIZE
def second(x): return first(x - 1)
class Base:
    odd = layers_of_test.ODD
class Net(Base):
    class Inner:
        number = 7
    def ways(self, experiment=None):
        return OPS["a"](2), OPS["b"].by, EVEN, self.odd, nowhere, again(2), tools.reduce(max, EVEN), layers_of_test.turn
Net.extra = 5; LATER = 6
REGISTRY = {}
def register(cls):
    REGISTRY[cls.__name__] = cls
    return cls
@register
class Registered:
    names = list(REGISTRY)
@tools.lru_cache
def cached(n): return len(REGISTRY) + n
class Config:
    def __init__(self, n=1): self.n = n
DEFAULT = Config(5)
class Uses:
    def __init__(self, config=DEFAULT): self.n = config.n + cached(1)
def build(): return Net
def calls_build(): return build()
def reads(): return __file__
experiment = 1 / SIZE
print("THE EXPERIMENT STARTS")
"""


def test_a_script_is_written_as_far_as_it_is_used(
    load: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    load("layers_of_test", LAYERS)
    script = load("a script-of-test", SCRIPT)
    capsys.readouterr()
    writer = Writer({"build": object()})
    text = writer.expression([script.Net.Inner, script.first, script.Net, script.Registered, script.Uses])
    inner, first, net, registered, uses = read(writer, text)
    assert registered.names == []
    assert uses().n == 7
    assert inner.number == 7
    assert first(3) == 4
    assert net.extra == 5
    assert net().ways() == script.Net().ways() == (8, math.pi, [2, 4], [1, 3], None, 0, 4, math.tau)
    assert capsys.readouterr().out == ""
    for unused in ("Unused", "LATER", "experiment =", "print", str(tmp_path)):
        assert unused not in writer.definitions
    assert "build" not in writer.definitions


@pytest.mark.parametrize(
    ("name", "words"),
    [("calls_build", "'build' of its own; call yours otherwise"), ("reads", "looks for files beside itself")],
)
def test_what_means_something_else_in_the_file_is_refused(load: Any, name: str, words: str) -> None:
    load("layers_of_test", LAYERS)
    script = load("a script-of-test", SCRIPT)
    with pytest.raises(NasTypeError, match=words):
        Writer({"build": object()}).expression(getattr(script, name))


def test_a_function_that_is_called_as_one_of_the_file_gets_another_name(load: Any) -> None:
    load("layers_of_test", LAYERS)
    script = load("a script-of-test", SCRIPT)
    writer = Writer({"build": object()})
    assert writer.expression(script.build) == "_build"
    assert writer.definitions.rstrip().endswith("_build = build")


def test_two_things_of_one_name_are_refused(load: Any) -> None:
    load("layers_of_test", LAYERS)
    other = load("other_of_test", "from layers_of_test import Scale as One\nclass Scale(One): pass\n")
    with pytest.raises(NasTypeError, match="another thing is called 'Scale' too"):
        Writer({}).expression(other.Scale)


def test_a_notebook_is_its_cells() -> None:
    cells = [
        "",
        "%matplotlib inline",
        "class Net: width = 1",
        "WIDTH = 3\nclass Base: pass",
        "class Net(Base):\n    def width(self): return WIDTH",
        "Net().width()",
    ]
    notebook = ModuleType("notebook_of_test")
    for cell in cells[2:]:
        exec(cell, vars(notebook))
    notebook.__dict__["In"] = cells
    sys.modules["notebook_of_test"] = notebook
    try:
        notebook.Net.__module__ = notebook.Base.__module__ = "notebook_of_test"
        writer = Writer({})
        text = writer.expression(notebook.Net)
        assert read(writer, text)().width() == 3
        assert "width = 1" not in writer.definitions
        del notebook.__dict__["In"]
        with pytest.raises(NasTypeError, match="interactive session"):
            Writer({}).expression(notebook.Net)
    finally:
        del sys.modules["notebook_of_test"]


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "__init__.py": "from .net import Net",
        "layers.py": "from typing import Optional\ndef act(x: Optional[int]) -> int: return -x\nclass Block: size = 4",
        "sub/__init__.py": "",
        "sub/deep.py": "SCALE = 2\ndef scaled(x): return x * SCALE",
        "net.py": "from . import layers\nfrom .layers import Block as B\nfrom .sub import deep\n"
        "import package_of_test.sub.deep as deeper\n"
        "class Net:\n    def forward(self, x): return deep.scaled(layers.act(x)) + deeper.SCALE + B.size",
    }
    for name, text in files.items():
        file = tmp_path / "package_of_test" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    net = importlib.import_module("package_of_test").Net
    try:
        writer = Writer({})
        text = writer.expression(net)
        assert "from ." not in writer.definitions
        assert not any("package_of_test" in line for line in writer.imports)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "package_of_test"]:
            del sys.modules[name]
    assert read(writer, text)().forward(3) == net().forward(3) == 0
