"""Removing channels and heads from modules: tensors become shorter, and what is kept of their sizes fits again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from nas._compat.torch_internals import (
    Convolution,
    NormBase,
    TransposedConvolution,
    own_buffers,
    own_parameters,
)
from nas.compress.dependencies.attention import ThinAttention
from nas.compress.dependencies.groups import Line, Slot


@final
@dataclass(frozen=True, kw_only=True)
class Follows:
    """A number that a module keeps, which is the length of something that is thinned."""

    path: str
    attribute: str
    """Its name; behind a dot that of an attribute of an object, as in `config.hidden_size`."""
    line: Line

    def apply(self, module: nn.Module, most: Sequence[int]) -> None:
        """Sets it in a module whose other numbers fit already."""
        _set(module, self.attribute, len(self.line.owner), len(self.line.kept(most)))


def _set(module: nn.Module, attribute: str, before: int, after: int) -> None:
    outer, _, inner = attribute.rpartition(".")
    owner: Any = module
    if outer:
        owner = copy.copy(getattr(module, outer))
        setattr(module, outer, owner)
    value = getattr(owner, inner)
    if isinstance(value, list | tuple):
        setattr(owner, inner, type(value)(after if item == before else item for item in value))
    else:
        setattr(owner, inner, after)


@final
@dataclass(frozen=True, kw_only=True)
class Thinning:
    """How a model is thinned.

    Attributes:
        lines: of each dimension of parameters and buffers, by the name of the tensor.
        follows: the numbers that modules keep.
    """

    lines: Mapping[Slot, Line]
    follows: tuple[Follows, ...] = ()

    def apply(self, modules: Mapping[str, nn.Module], most: Sequence[int]) -> None:
        """Thins modules in place.

        Args:
            modules: all of a model, by their paths in the whole one.
            most: how many of each group are kept.
        """
        shorter: dict[int, Tensor] = {}
        for name, index in self._indices(most).items():
            path, _, leaf = name.rpartition(".")
            tensor = _tensor(modules[path], leaf)  # which its module holds, so that its id stays its own
            shorter[id(tensor)] = _cut(tensor, index)
        sizes = {path: _sizes(module) for path, module in modules.items()}
        for module in modules.values():
            own: dict[str, Tensor | None] = {**own_parameters(module), **own_buffers(module)}
            for leaf, found in own.items():
                if id(found) in shorter:
                    setattr(module, leaf, shorter[id(found)])
        for path, module in modules.items():
            if _sizes(module) != sizes[path]:
                _refit(module, sizes[path])
        for rule in self.follows:
            rule.apply(modules[rule.path], most)

    def _indices(self, most: Sequence[int]) -> dict[str, dict[int, Tensor]]:
        found: dict[str, dict[int, Tensor]] = {}
        for (name, dim), line in self.lines.items():
            kept = line.kept(most)
            if len(kept) < len(line.owner):
                found.setdefault(name, {})[dim] = torch.from_numpy(kept)
        return found


def _tensor(module: nn.Module, leaf: str) -> Tensor:
    found: Tensor | None = own_parameters(module).get(leaf)
    found = own_buffers(module)[leaf] if found is None else found
    assert found is not None
    return found


def _cut(tensor: Tensor, index: Mapping[int, Tensor]) -> Tensor:
    """The part of a tensor, a parameter where it was one."""
    part = tensor.detach()
    for dim, lines in index.items():
        part = part.index_select(dim, lines.to(part.device))
    part = part.contiguous()
    return nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part


def _sizes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a module itself; also of those that it computes from others."""
    both: dict[str, Tensor | None] = {**own_parameters(module), **own_buffers(module)}
    if is_parametrized(module):
        both |= {name: getattr(module, name) for name in cast("nn.ModuleDict", module.parametrizations)}
    return {name: tuple(tensor.shape) for name, tensor in both.items() if tensor is not None}


def _refit(module: nn.Module, before: Mapping[str, tuple[int, ...]]) -> None:
    """Lets a layer of torch say what its tensors are; others say it in attributes that are found by trying."""
    kept: Any = module
    now = _sizes(module)
    if isinstance(module, Convolution):
        _refit_convolution(kept, before["weight"], now["weight"])
    elif isinstance(module, nn.Linear):
        kept.out_features, kept.in_features = now["weight"]
    elif isinstance(module, nn.Bilinear):
        kept.out_features, kept.in1_features, kept.in2_features = now["weight"]
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        kept.num_embeddings, kept.embedding_dim = now["weight"]
    elif isinstance(module, NormBase):
        kept.num_features = next(shape[0] for shape in now.values() if shape)
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        kept.normalized_shape = now["weight"]
    elif isinstance(module, nn.GroupNorm):
        if module.num_groups > 1:
            kept.num_groups = module.num_groups * now["weight"][0] // before["weight"][0]
        kept.num_channels = now["weight"][0]
    elif isinstance(module, nn.PReLU):
        kept.num_parameters = now["weight"][0]
    elif isinstance(module, nn.RNNBase):
        kept.input_size = now["weight_ih_l0"][1]
        kept.hidden_size = module.hidden_size * now["weight_ih_l0"][0] // before["weight_ih_l0"][0]
        if "weight_hr_l0" in now:
            kept.proj_size = now["weight_hr_l0"][0]
    elif isinstance(module, ThinAttention):
        module.fits()
    elif isinstance(module, nn.RNNCellBase):
        kept.input_size, kept.hidden_size = now["weight_ih"][1], now["weight_hh"][1]


def _refit_convolution(kept: Any, before: tuple[int, ...], now: tuple[int, ...]) -> None:
    made = before[0] // kept.groups
    groups = now[0] // made if kept.groups > 1 else 1
    rows, columns = now[0], groups * now[1]
    transposed = isinstance(kept, TransposedConvolution)
    kept.in_channels, kept.out_channels = (rows, columns) if transposed else (columns, rows)
    kept.groups = groups
