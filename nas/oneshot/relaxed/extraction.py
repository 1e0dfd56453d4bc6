"""An architecture beside the supernet it is a part of: both trees walked in parallel, and the weights copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import children_of, own_buffers, own_parameters
from nas.copying import same_kind
from nas.domains import Answer, Sample
from nas.errors import NasValueError, explain
from nas.oneshot.paths import indexed, region
from nas.oneshot.relaxed.mixtures import MixedDepth, MixedInput, MixedLayer
from nas.space import CellModule, ModelSpace


@final
@dataclass(frozen=True, kw_only=True)
class Pair:
    """A module of an architecture, and the one of the supernet that it is a part of."""

    name: str
    """Of the module in the supernet, as in `named_modules()`."""
    whole: nn.Module
    part: nn.Module

    def tensors(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Its own parameters and buffers: the name in the module, that of the supernet, that of the architecture."""
        for name, small in [*own_parameters(self.part).items(), *own_buffers(self.part).items()]:
            if small is None:
                continue
            large = {**own_parameters(self.whole), **own_buffers(self.whole)}.get(name)
            if large is None:
                raise _differs(f"{self.name or 'the model'} has no {name!r} in the supernet")
            yield name, large, small


def pairs(whole: nn.Module, part: nn.Module, sample: Mapping[str, Answer], name: str = "") -> Iterator[Pair]:
    """Each module of an architecture with its counterpart, mixtures resolved by the sample.

    Raises:
        NasValueError: they differ in more than the relaxed choices.
    """
    inside = f"{name}." if name else ""
    if isinstance(whole, MixedLayer):
        position = whole.answers.index(sample[whole.label])
        yield from pairs(whole.candidates[position], part, sample, f"{inside}candidates.{position}")
        return
    if isinstance(whole, MixedInput):
        passed = children_of(part).get("each")
        for key, child in passed.named_children() if passed is not None else ():
            yield from pairs(whole.each[key], child, sample, f"{inside}each.{key}")
        return
    if not same_kind(type(whole), type(part)) and not isinstance(whole, MixedDepth):
        if next(part.parameters(), None) is None and next(part.buffers(), None) is None:
            return  # what stands in the place of something unread, as the identity in a cell
        raise _differs(
            f"{name or 'the model'} is a {type(part).__name__} in the architecture and a {type(whole).__name__} in the "
            "supernet"
        )
    if isinstance(part, CellModule) and isinstance(whole, CellModule) and part.outputs != whole.outputs:
        raise NasValueError(
            explain(
                "the loose ends of a cell cannot be relaxed: what is concatenated depends on all of its inputs",
                where=f"Cell {part.label!r}",
                mend='output="all", or search this space by paths',
            )
        )
    yield Pair(name=name, whole=whole, part=part)
    for key, child in _children(part).items():
        other = children_of(whole).get(key)
        if other is not None:
            yield from pairs(other, child, sample, inside + key)
        elif next(child.parameters(), None) is not None:
            raise _differs(f"{inside}{key} is missing in the supernet")


def _children(module: nn.Module) -> dict[str, nn.Module]:
    """By name, those that stand under two names too."""
    return {key: child for key, child in children_of(module).items() if child is not None}


def _differs(what: str) -> NasValueError:
    return NasValueError(
        explain(
            f"the architecture differs from the supernet in more than its layers, inputs, depths and widths: {what}",
            mend="ask LayerChoice, InputChoice or Repeat for what is there at all, or search this space by paths",
        )
    )


def extract(
    space: ModelSpace, network: nn.Module, sample: Mapping[str, Answer], *, device: torch.device | str | None = None
) -> nn.Module:
    """The architecture of a sample with copies of the weights and buffers that a supernet has for it.

    It shares no storage with the supernet and has its dtypes, and what the program froze is frozen in it. The global
    random state stays as it is.

    Args:
        space: of the sample.
        network: the supernet.
        sample: label -> answer.
        device: where it is made.
    """
    with torch.random.fork_rng(devices=[]):
        built = space.build(sample, device=device)
    with torch.no_grad():
        for pair in pairs(network, built, sample):
            for name, large, small in pair.tensors():
                place = region(pair.part, name, tuple(large.shape), full_module=pair.whole)
                if small.dtype != large.dtype:  # the supernet was made one of other numbers after it was built
                    small.data = small.data.to(large.dtype)
                small.copy_(indexed(large, place))
    return built


def labels_at_fault(space: ModelSpace, sample: Sample, fails: Callable[[Sample], bool]) -> list[str]:
    """The labels of a failing sample without whose answer it would not fail; all with other answers than the default.

    Args:
        space: of the sample.
        sample: one that fails.
        fails: whether a sample fails.
    """

    def without(label: str) -> Sample:
        return space.search_space.extend({name: answer for name, answer in sample.items() if name != label})

    changed = [label for label in sample if without(label) != sample]
    return [label for label in changed if not fails(without(label))] or changed or list(sample)
