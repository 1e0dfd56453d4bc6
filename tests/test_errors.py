"""Texts of errors: a value says which it was, in a line that is never long and never long in the making."""

from __future__ import annotations

import errno
import os
import time
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy
import pytest
import torch

from nas import ExperimentError, NasValueError
from nas.errors import DiskFull, explain, is_full, shown, told_if_full


@dataclass
class Pair:
    one: Any = 1
    other: Any = None


class Point(NamedTuple):
    x: Any
    y: Any


class Long:
    def __repr__(self) -> str:
        return "long" * 5_000_000


class Half:
    def __repr__(self) -> str:
        raise AttributeError("half made")

    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("half made")


def doubled(make: Any, inner: Any = 1) -> Any:
    for _ in range(60):
        inner = make(inner)
    return inner


def deep() -> Any:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def shared_array() -> Any:
    array = numpy.empty(1, object)
    array[0] = doubled(lambda inner: [inner, inner])
    return array


LARGE = {
    "lists": lambda: doubled(lambda inner: [inner, inner]),
    "tuples": lambda: doubled(lambda inner: (inner, inner)),
    "dicts": lambda: doubled(lambda inner: {"a": inner, "b": inner}),
    "ordered dicts": lambda: doubled(lambda inner: OrderedDict(a=inner, b=inner)),
    "dicts with defaults": lambda: doubled(lambda inner: defaultdict(list, a=inner, b=inner)),
    "dataclasses": lambda: doubled(lambda inner: Pair(inner, inner)),
    "named tuples": lambda: doubled(lambda inner: Point(inner, inner)),
    "queues": lambda: doubled(lambda inner: deque([inner, inner])),
    "namespaces": lambda: doubled(lambda inner: SimpleNamespace(a=inner, b=inner)),
    "proxies": lambda: doubled(lambda inner: MappingProxyType({"a": inner, "b": inner})),
    "errors": lambda: doubled(lambda inner: ValueError(inner, inner)),
    "values of a dict": lambda: {"a": doubled(lambda inner: [inner, inner])}.values(),
    "an array of objects": shared_array,
    "a deep list": deep,
    "a long repr": Long,
    "long reprs": lambda: [[[Long()] * 8] * 8] * 8,
    "a long text": lambda: "a" * 10**8,
    "long bytes": lambda: b"a" * 10**8,
    "a long int": lambda: 1 << 10**7,
    "long ints": lambda: [1 << 10**6] * 8,
    "a large set": lambda: set(range(10**6)),
    "a set of long texts": lambda: {str(i) * 10**6 for i in range(9)},
}


@pytest.mark.parametrize("kind", LARGE)
def test_what_is_large_is_shown_as_soon_as_what_is_small(kind: str) -> None:
    value = LARGE[kind]()
    start = time.process_time()
    text = shown(value)
    error = explain("a rule", got=value)
    assert time.process_time() - start < 1
    assert 0 < len(text) < 500
    assert len(error) < 600


def test_what_somebody_else_has_said_is_cut() -> None:
    error = explain("a rule " + "a" * 10**7, where="b" * 10**7, mend="c" * 10**7)
    assert len(error) < 75_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, [2, (3,)]], "[1, [2, (3,)]]"),
        ({"b": 1, "a": [None, True]}, "{'b': 1, 'a': [None, True]}"),
        ({3, 1, 2}, "{1, 2, 3}"),
        (frozenset({1}), "frozenset({1})"),
        (set(), "set()"),
        (OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (deque([1]), "deque([1])"),
        (Pair(one=[1]), "Pair(one=[1], other=None)"),
        (Point(1, "a"), "Point(x=1, y='a')"),
        (SimpleNamespace(a=1), "namespace(a=1)"),
        (ValueError("a"), "ValueError('a')"),
        ({"a": 1}.keys(), "dict_keys(['a'])"),
        ([[[[[1]]]]], "[[[[[...]]]]]"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        (10**30, str(10**30)),
        ("it's\n", '"it\'s\\n"'),
        (numpy.arange(3), "array([0, 1, 2])"),
        (torch.zeros(5, 5), "Tensor of shape (5, 5) and dtype torch.float32"),
        (Half(), "an object of the class Half"),
    ],
)
def test_what_is_small_is_shown_whole(value: object, text: str) -> None:
    assert shown(value) == text


def test_an_error_is_one_of_ours() -> None:
    with pytest.raises(NasValueError, match=r"^here: a rule; received 1\. To mend: do\.$"):
        raise NasValueError(explain("a rule", got=1, where="here", mend="do"))


def _full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_as_torch_says_it():
    try:
        _full()
    finally:
        raise RuntimeError("unexpected pos 400832 vs 400784")


def test_a_full_disk_is_said_in_one_way_whatever_a_library_makes_of_it():
    with pytest.raises(DiskFull, match=r"no space left.*'model\.pt'.*make room") as raised, told_if_full("model.pt"):
        _full_as_torch_says_it()
    assert isinstance(raised.value, ExperimentError)
    assert is_full(raised.value)


def test_what_has_been_said_is_not_said_again():
    with pytest.raises(DiskFull, match="inner"), told_if_full("outer"), told_if_full("inner"):
        _full()


def test_other_errors_pass():
    with pytest.raises(PermissionError), told_if_full("file"):
        raise PermissionError(errno.EACCES, "no")
    error = ValueError("its own cause")
    error.__cause__ = error
    assert not is_full(error)
