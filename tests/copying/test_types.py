"""Classes that are made anew, and are one kind."""

import functools
from collections.abc import Callable

from torch import nn
from torch.nn.utils import parametrizations, parametrize

from nas.copying import same_kind


def scaling(factor: float, base: type = nn.Module) -> type:
    class Scale(base):  # type: ignore[misc]  # a base that is given
        @property
        def factor(self) -> float:
            return factor

        @staticmethod
        def twice(x: float) -> float:
            return 2 * x

        def forward(self, x: float) -> float:
            return x * factor

    return Scale


def other(factor: float) -> type:
    class Scale(nn.Module):
        @property
        def factor(self) -> float:
            return factor

        @staticmethod
        def twice(x: float) -> float:
            return 2 * x

        def forward(self, x: float) -> float:
            return x + factor

    Scale.__qualname__ = scaling(1.0).__qualname__
    return Scale


def test_classes_of_the_same_lines_are_one_kind_whatever_they_hold_on_to() -> None:
    assert same_kind(scaling(1.0), scaling(2.0))
    assert same_kind(scaling(1.0, scaling(1.0)), scaling(2.0, scaling(3.0)))


def test_other_code_another_name_or_another_base_is_another_kind() -> None:
    assert not same_kind(scaling(1.0), other(1.0))
    assert not same_kind(scaling(1.0), scaling(1.0, nn.ReLU))
    assert not same_kind(scaling(1.0, scaling(1.0)), scaling(1.0, other(1.0)))
    assert not same_kind(nn.ReLU, nn.GELU)


def test_code_behind_a_property_a_static_method_and_a_decorator_counts() -> None:
    def decorated(function: Callable[..., int]) -> type:
        def call(*args: object) -> int:
            return function(*args)

        return type("Made", (), {"forward": functools.wraps(function)(call), "__module__": "here"})

    def with_property(function: Callable[..., int]) -> type:
        return type("Made", (), {"size": property(function), "__module__": "here"})

    one, two = (lambda *_: 1), (lambda *_: 2)
    for make in (decorated, with_property):
        assert same_kind(make(one), make(one))
        assert not same_kind(make(one), make(two))


def test_parametrized_layers_are_one_kind_where_the_same_tensors_are_parametrized() -> None:
    one, two = (parametrizations.weight_norm(nn.Linear(2, 2)) for _ in range(2))
    assert type(one) is not type(two)
    assert same_kind(type(one), type(two))
    assert not same_kind(type(one), type(parametrizations.weight_norm(nn.Conv2d(2, 2, 1))))
    more = parametrizations.weight_norm(nn.Linear(2, 2))
    parametrize.register_parametrization(more, "bias", nn.Identity())
    assert not same_kind(type(one), type(more))
    assert not same_kind(type(one), nn.Linear)
