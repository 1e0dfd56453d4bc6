"""Checks what spaces are asked for by name, before anything is built."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from nas.checks import check_bool, check_int, check_number
from nas.errors import NasError, NasTypeError, NasValueError, close_names, explain, nearest
from nas.model_zoo.cells import cell_network
from nas.model_zoo.transformer_layers import TransformerRanges


def check_arguments(source: Callable[..., nn.Module], arguments: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Holds keyword arguments against the annotations of a space, all of them at once.

    Returns:
        The arguments, with Python's own numbers.

    Raises:
        NasTypeError: an argument that the space does not have, or a value of another kind.
        NasValueError: a number of channels, classes, ... below 1.
    """
    kinds = _kinds(source)
    unknown = [name for name in arguments if name not in kinds]
    if unknown:
        hints = "; ".join(close_names(name, kinds) for name in unknown)
        near = nearest(unknown[0], kinds)
        mend = f"{near[0]}=..." if near else f"leave {unknown[0]} out"
        raise NasTypeError(explain(f"no such argument; {hints}", got=", ".join(unknown), where=where, mend=mend))
    checked, wrong = dict(arguments), list[NasError]()
    for name, value in arguments.items():
        try:
            checked[name] = _check(name, value, kinds[name])
        except (NasTypeError, NasValueError) as error:
            wrong.append(error)
    if wrong:
        kind = NasTypeError if any(isinstance(error, NasTypeError) for error in wrong) else NasValueError
        raise kind(f"{where}: {' '.join(map(str, wrong))}")
    return checked


def _kinds(source: Callable[..., nn.Module]) -> dict[str, object]:
    """The annotation of each argument."""
    kinds = typing.get_type_hints(vars(source)["__init__"] if isinstance(source, type) else source)
    kinds.pop("return")
    if kinds.pop("arguments", None) is not None:  # of the cell spaces: those of the component builder
        kinds |= typing.get_type_hints(cell_network)
        del kinds["family"], kinds["return"]
    return kinds


def _check(name: str, value: object, kind: object) -> object:
    """The value, if it is of one of the kinds known here; other kinds are left to the space."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and types.NoneType in options:
        return None
    or_else = "None" if types.NoneType in options else ""
    if bool in options:
        return check_bool(name, value, or_else=or_else)
    if int in options:
        return check_int(name, value, least=1, or_else=or_else)
    if float in options:
        return check_number(name, value, or_else=or_else)
    if TransformerRanges in options and not isinstance(value, TransformerRanges):
        raise NasTypeError(explain(f"{name} must be a TransformerRanges", got=value))
    return value
