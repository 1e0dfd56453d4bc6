"""Candidates as chains of steps: what of them is without parameters, and so the same wherever its input is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from torch import nn

from nas._compat.torch_internals import BatchNorm, has_hooks

Signature: TypeAlias = tuple[Hashable, ...]

_PLAIN: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Softplus,
    nn.Flatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
_NOT_COMPUTED = ("training", "inplace")


def steps_of(module: nn.Module) -> tuple[nn.Module, ...]:
    """The modules that a candidate runs one after the other; what is no plain sequence is one step."""
    if type(module) is nn.Identity and not has_hooks(module):
        return ()
    if type(module) is not nn.Sequential or has_hooks(module):
        return (module,)
    return tuple(step for child in module for step in steps_of(child))


def signature(step: nn.Module) -> Signature | None:
    """What makes two steps without parameters compute the same; None for those that are not known to.

    Example:
        >>> signature(nn.ReLU()) == signature(nn.ReLU(inplace=True)), signature(nn.Dropout())
        (True, None)
    """
    if type(step) not in _PLAIN or has_hooks(step):
        return None
    settings = sorted((key, repr(value)) for key, value in vars(step).items() if key[0] != "_")
    return (type(step), *(pair for pair in settings if pair[0] not in _NOT_COMPUTED))


def shared_length(steps: Sequence[nn.Module]) -> int:
    """How many steps at first compute the same for all that have them: those without parameters."""
    for number, step in enumerate(steps):
        if signature(step) is None:
            return number
    return len(steps)


@final
@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Steps without parameters at the beginning of chains, batch norms without weights among them."""

    steps: tuple[nn.Module, ...]
    keys: tuple[Signature, ...]
    """Of the tensor after each step: equal where the tensors are."""

    @classmethod
    def of(cls, steps: Sequence[nn.Module]) -> Prefix:
        """Of steps that are known to be such."""
        each = [signature(step) or ("norm", step.eps if isinstance(step, BatchNorm) else id(step)) for step in steps]
        return cls(steps=tuple(steps), keys=tuple(tuple(each[: i + 1]) for i in range(len(each))))


def without_weights(steps: Sequence[nn.Module]) -> int:
    """How many steps at first have no parameters, batch norms without weights among them."""
    number = shared_length(steps)
    while number < len(steps) and is_plain_norm(steps[number]):
        number += 1
        number += shared_length(steps[number:])
    return number


def is_plain_norm(step: nn.Module) -> bool:
    """Whether it is a batch norm without weights."""
    return (
        isinstance(step, BatchNorm)
        and type(step) in (nn.BatchNorm1d, nn.BatchNorm2d)
        and not (step.affine or has_hooks(step))
    )
