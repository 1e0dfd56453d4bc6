"""Examples taken apart and put together again: names, constants, dynamic dimensions, and what models return."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas import NasTypeError, NasValueError
from nas.export.onnx_call import dynamic_dimensions, outputs_of, take_apart

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Batch:
    images: Tensor
    scale: float = 2.0


class Listens(nn.Module):
    """Returns what it is called with."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class Named(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Any:
        return ids, mask, scale


class TakesADict(nn.Module):
    def forward(self, batch: dict[str, Tensor]) -> Any:
        return batch


def x(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 3)))


@pytest.mark.parametrize(
    ("net", "example", "names", "constants"),
    [
        (Listens(), x(), ["input"], {}),
        (Listens(), (x(),), ["input"], {}),
        (Listens(), [x(), x()], ["input_0", "input_1"], {}),
        (Listens(), (x(), 3, None, 0.5), ["input_0"], {"input_1": 3, "input_3": 0.5}),
        (Listens(), (x(), torch.tensor(0.5)), ["input_0", "input_1"], {}),
        (Listens(), ([x(), x(5)],), ["input_0", "input_1"], {}),
        (Listens(), ([x()], x()), ["input_0_0", "input_1"], {}),
        (Listens(), {"a": x(), "b": [x(), x()]}, ["a", "b_0", "b_1"], {}),
        (Listens(), OrderedDict(a=x(), n=4), ["a"], {"n": 4}),
        (Listens(), ({"a": x(), "b": x()},), ["a", "b"], {}),
        (Listens(), (x(), {"a": x()}), ["input_0", "input_1_a"], {}),
        (Listens(), (Pair(x(), x()),), ["input_0", "input_1"], {}),
        (Listens(), Pair(x(), x()), ["input_0", "input_1"], {}),
        (Listens(), Batch(x()), ["images"], {"scale": 2.0}),
        (Listens(), {"a": [x()], "a_0": x()}, ["a_0", "a_0_"], {}),
        (Named(), {"ids": x(), "scale": 3.0}, ["ids"], {"scale": 3.0}),
        (TakesADict(), {"ids": x()}, ["ids"], {}),
        (TakesADict(), [x(), x()], ["input_0", "input_1"], {}),
    ],
)
def test_names_and_constants_and_the_same_call_again(
    net: nn.Module, example: Any, names: list[str], constants: dict[str, Any]
) -> None:
    call = take_apart(net, example)
    assert list(call.tensors) == names
    assert call.constants == constants
    others = [tensor + 1 for tensor in call.tensors.values()]
    returned = call.run(net, others)
    assert all(any(found is other for found in outputs_of(returned).values()) for other in others)


def test_structures_keep_their_kind() -> None:
    (pair, batch, images), _ = take_apart(Listens(), (Pair(x(), 1), Batch(x(), 3.0), [x()])).run(
        Listens(), [x(), x(), x()]
    )
    assert isinstance(pair, Pair)
    assert pair.right == 1
    assert isinstance(batch, Batch)
    assert batch.scale == 3.0
    assert isinstance(images, list)


@pytest.mark.parametrize(
    ("net", "example", "message"),
    [
        (Listens(), np.zeros((2, 3)), r"a tensor or a tuple of tensors; received \['ndarray'\]"),
        (Listens(), (x(), np.zeros(3)), r"a tuple of tensors; received \['ndarray'\]\. To mend: wrap the model"),
        (Listens(), (3, None), r"received \['int', 'NoneType'\]"),
        (nn.Linear(3, 2), (), r"received \[\]"),
        (nn.Linear(3, 2), (x(), x()), r"received \['Tensor', 'Tensor'\]\. To mend: give the arguments of forward\(inp"),
        (Named(), {"idz": x(), "mask": [x()]}, None),
    ],
)
def test_what_is_no_call_of_the_model_is_refused(net: nn.Module, example: Any, message: str | None) -> None:
    if message is None:  # a dict of other names is the one argument
        assert list(take_apart(net, example).tensors) == ["idz", "mask_0"]
        return
    with pytest.raises(NasTypeError, match=message):
        take_apart(net, example)


@dataclass
class Said:
    logits: Tensor
    hidden: tuple[Tensor, ...]
    loss: Tensor | None = None


class Cache:
    """An object of its own class, as language models return their keys and values."""

    def __init__(self) -> None:
        self.layers = [Pair(x(), x())]
        self.length = 3


@pytest.mark.parametrize(
    ("output", "places"),
    [
        (x(), [""]),
        ((x(), [x(), None]), ["0", "1.0"]),
        (OrderedDict(logits=x(), loss=None, more=(x(),)), ["logits", "more.0"]),
        (Said(x(), (x(), x())), ["logits", "hidden.0", "hidden.1"]),
        ((x(), 3, 0.5, True), ["0", "1", "2", "3"]),
        ({"x": x(), "cache": Cache()}, ["x", "cache.layers.0.0", "cache.layers.0.1"]),
    ],
)
def test_outputs_by_place(output: Any, places: list[str]) -> None:
    found = outputs_of(output)
    assert list(found) == places
    assert all(isinstance(tensor, Tensor) for tensor in found.values())


@pytest.mark.parametrize("output", ["done", (x(), "done"), object(), np.zeros(3), {"x": x(), "s": {1}}])
def test_outputs_that_are_no_tensors_are_refused(output: Any) -> None:
    with pytest.raises(NasTypeError, match="a tuple, list or dict of tensors; received .* To mend: wrap the model"):
        outputs_of(output)


def test_the_batch_is_the_first_dimension_of_those_as_long_as_the_first() -> None:
    def batch(*tensors: Tensor, dynamic: Any = None) -> Any:
        return dynamic_dimensions(take_apart(Listens(), tensors), dynamic)

    assert batch(x(4, 3)) == ({}, {"input": {0: "batch"}})
    assert batch(x(4, 3), torch.tensor(1.0), x(4)) == ({}, {"input_0": {0: "batch"}, "input_2": {0: "batch"}})
    assert batch(x(5, 3), x(2, 8)) == ({}, {"input_0": {0: "batch"}})
    assert batch(torch.tensor(1.0)) == ({}, {})
    tokens = {"input": {-1: "tokens"}}
    assert batch(x(4, 3), dynamic=tokens) == ({"input": {1: "tokens"}}, {"input": {0: "batch"}})
    edges = {"input_0": {0: "nodes"}, "input_1": {1: "edges"}}
    assert batch(x(5, 3), x(2, 8), dynamic=edges) == (edges, {})


@pytest.mark.parametrize(
    ("dynamic", "error", "message"),
    [
        (["input"], NasTypeError, "dynamic must be a dict of inputs"),
        ({"input_0": [1]}, NasTypeError, r'such as dynamic=\{"input": \{1: "tokens"\}\}'),
        ({"input_0": {"1": "tokens"}}, NasTypeError, "dynamic must be a dict of inputs"),
        ({"input_0": {1: 7}}, NasTypeError, "dynamic must be a dict of inputs"),
        ({"input_0": {1: "7"}}, NasValueError, "an identifier as its name; received '7'"),
        ({"ids": {1: "n"}}, NasValueError, r"which are \['input_0', 'input_1'\]; received 'ids'"),
        ({"input_0": {2: "n"}}, NasValueError, "'input_0' has 2 dimensions; received 2"),
        ({"input_0": {1: "n"}, "input_1": {1: "n"}}, NasValueError, r"named 'n' must be of one size.*\[3, 4\]"),
    ],
)
def test_dynamic_dimensions_that_cannot_be_are_refused(dynamic: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dynamic_dimensions(take_apart(Listens(), (x(2, 3), x(2, 4))), dynamic)
