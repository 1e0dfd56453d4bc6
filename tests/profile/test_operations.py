"""What differs in anything is another entry of a latency table; what is alike, one; what nobody can see into, apart."""

import collections
import dataclasses
import enum
import functools
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from nas import LayerChoice, ModelSpace, ValueChoice
from nas.profile import latency, latency_table

X = torch.zeros(8, 8)


class Holds(nn.Module):
    """Computes as often as something in it says."""

    def __init__(self, held: Any, times: Callable[[Any], int]) -> None:
        super().__init__()
        self._held, self._times = held, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self._times(self._held)):
            x = x @ x
        return x


class Buffered(nn.Module):
    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.register_buffer("steps", buffer)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = x @ step
        return x


class Applies(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@dataclasses.dataclass
class Settings:
    times: int


class Slotted:
    __slots__ = ("times",)

    def __init__(self, times: int) -> None:
        self.times = times


class Config(dict[str, int]):
    """As of a library."""


class Speed(enum.Enum):
    SLOW = 1
    FAST = 5


def again(times: int) -> Callable[[Tensor], Tensor]:
    def repeated(x: Tensor) -> Tensor:
        for _ in range(times):
            x = x @ x
        return x

    return repeated


def repeated(x: Tensor, times: int) -> Tensor:
    return again(times)(x)


def of_a_class(times: int) -> nn.Module:
    class Local(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return repeated(x, times)

    return Local()


def hooked(times: int) -> nn.Module:
    module = nn.Identity()
    module.register_forward_hook(lambda module, inputs, out: repeated(out, times))
    return module


def generator(times: int) -> torch.Generator:
    return torch.Generator().manual_seed(times)


OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "private attribute": lambda n: Holds(n, int),
    "list": lambda n: Holds([n, [n]], lambda held: int(held[0])),
    "config dict": lambda n: Holds({"times": n}, lambda held: int(held["times"])),
    "class of a dict": lambda n: Holds(Config(times=n), lambda held: int(held["times"])),
    "ordered dict": lambda n: Holds(collections.OrderedDict(times=n), lambda held: int(held["times"])),
    "namespace": lambda n: Holds(types.SimpleNamespace(times=n), lambda held: int(held.times)),
    "dataclass": lambda n: Holds(Settings(n), lambda held: int(held.times)),
    "slots": lambda n: Holds(Slotted(n), lambda held: int(held.times)),
    "enum": lambda n: Holds(Speed(n), lambda held: int(held.value)),
    "array": lambda n: Holds(numpy.full(1, n), lambda held: int(held[0])),
    "tensor": lambda n: Holds(torch.from_numpy(numpy.full(1, n)), lambda held: int(held[0])),
    "range": lambda n: Holds(range(n), len),
    "buffers of other sizes": lambda n: Buffered(torch.ones(n, 8, 8)),
    "closure": lambda n: Applies(again(n)),
    "partial": lambda n: Applies(functools.partial(repeated, times=n)),
    "lambda": lambda n: Applies((lambda x: x @ x) if n == 1 else (lambda x: x @ x @ x)),
    "function": lambda n: Applies(nn.functional.relu if n == 1 else nn.functional.gelu),
    "builtin": lambda n: Applies(torch.relu if n == 1 else torch.erf),
    "method": lambda n: Applies(types.MethodType(lambda held, x: repeated(x, held.times), Settings(n))),
    "local class": of_a_class,
    "hook": hooked,
}
OPAQUE: dict[str, Callable[[int], nn.Module]] = {
    "generator": lambda n: Holds(generator(n), lambda held: int(held.initial_seed())),
    "iterator": lambda n: Holds(iter([n]), lambda held: int(held.__reduce__()[1][0][0])),
}


@pytest.mark.parametrize("name", [*OPERATIONS, *OPAQUE])
def test_different_operations_are_kept_apart(name: str, tmp_path: Path) -> None:
    make = (OPERATIONS | OPAQUE)[name]
    space = ModelSpace(lambda: LayerChoice([lambda: make(1), lambda: make(5)], label="times"))
    table = latency_table(space, X, repeats=1, warmup=0)
    first, second = table({"times": 0}), table({"times": 1})
    assert len(table.entries) == 2
    assert (table({"times": 0}), table({"times": 1})) == (first, second)
    assert len(table.entries) == 2
    saved = latency_table(space, X, repeats=1, warmup=0).load(table.save(tmp_path / "table.json"))
    assert len(saved.entries) == (2 if name in OPERATIONS else 0)


def test_what_a_prediction_says_is_measured() -> None:
    space = ModelSpace(lambda: LayerChoice([lambda: Holds(1, int), lambda: Holds(20, int)], label="times"))
    table = latency_table(space, (64, 64), repeats=15)
    measured = [latency(space.build({"times": n}), (64, 64), repeats=15).median for n in (0, 1)]
    predicted = [table({"times": n}) for n in (0, 1)]
    assert predicted[1] / predicted[0] > 0.5 * measured[1] / measured[0] > 2


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_alike_operations_are_one() -> None:
    def build() -> nn.Module:
        ValueChoice([1, 2, 3], label="nothing")
        shared = Holds({"times": 2}, lambda held: int(held["times"]))
        shared.itself = weakref.ref(shared)
        layers = [nn.LSTM(8, 8), First(), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), shared]
        return nn.Sequential(*layers, Attends(), First(), Applies(lambda x: x + 1), nn.BatchNorm1d(8))

    table = latency_table(ModelSpace(build), (8, 8), repeats=1, warmup=0)
    found = {table({"nothing": n}) for n in (1, 2, 3)}
    assert len(found) == 1
    assert all("sample" not in key and '"nothing"' not in key for key in table.entries)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.attention(x, key=x, value=x)  # type: ignore[no-any-return]  # torch's


class First(nn.Module):
    def forward(self, x: tuple[Tensor, ...]) -> Tensor:
        return x[0]
